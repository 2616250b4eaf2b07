"""clip_content.py: ids of what a cached clip depends on besides itself: models with equal ids share it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from viper_e2e.config import BackboneConfig, looks_at_face, modality, needs_of, plain
from viper_e2e.encoders import prefix_encoders
from viper_e2e.model.viper import ViPER
from viper_e2e.runtime import digest

_OF_BACKBONE = {field.name for field in fields(BackboneConfig)}
_PLACES = ("source", "revision")


@dataclass(frozen=True)
class ClipContent:
    """Ids of what `ViPER.cacheable` depends on: equal ones make bitwise equal clips and tokens."""

    prepared: str
    """Identity of what is cached beside tokens: how clips are decoded, faces found, slots laid out, and which
    parts of pictures and sound the encoders in training read, or what the frozen front of each makes."""
    tokens: dict[str, str]
    """Identity of each frozen encoder's tokens, by modality."""

    @classmethod
    def of(cls, model: ViPER, *, is_compiled: bool = False) -> ClipContent:
        """Content for the model as it is now; stale once its weights, or what trains of it, change.

        Reads all weights of frozen encoders, which takes about a second for each gigabyte. ``is_compiled``:
        whether encoders run through the compiler, whose arithmetic rounds otherwise.
        """
        decoding, crops = digest(_decoding_of(model)), _crops_of(model)
        frozen = [name for name, encoder in model.encoders.items() if encoder.is_frozen]
        trained = sorted(set(model.modalities) - set(frozen))
        how = [str(model.device.type), str(model.compute_dtype), is_compiled]
        kept = [
            [name, sorted(needs_of([name])), crops * looks_at_face(name), _front_of(model, name, how)]
            for name in trained
        ]
        tokens = {
            name: digest(
                [
                    *(decoding, how, model.encoders[name].content_id(), _settings_of(model, name)),
                    crops * looks_at_face(name),
                ]
            )
            for name in frozen
        }
        return cls(digest([decoding, str(model.device), kept]), tokens)


def _front_of(model: ViPER, name: str, how: list) -> list:
    """The frozen front of a partly trained encoder, whose output cached clips hold."""
    encoder = prefix_encoders(model.encoders).get(name)
    return [] if encoder is None else [how, encoder.prefix_content_id(), _settings_of(model, name)]


def _decoding_of(model: ViPER) -> list:
    """Between a clip's bytes and its slots."""
    decoding = plain(model.config.decoding)
    # It tells what the three below were resolved to, and whether faces are looked for.
    chosen = decoding.pop("for_modalities") or model.modalities
    return [
        decoding,
        plain(model.config.faces),
        [model.decoder.hears, model.decoder.sees, model.decoder.comes_back],
        "face" in needs_of(chosen),
        model.fusion.spreads_frames,
    ]


def _crops_of(model: ViPER) -> list:
    """Crops that are taken of a face. A small one is decoded again as large as the largest of them, with as
    much around it as is moved."""
    augment = model.augment
    specs = [encoder.crop_spec for encoder in model.encoders.values()]
    return [
        sorted({(spec.size, spec.align) for spec in specs if spec is not None}),
        augment.box_reach if augment is not None and "box" in augment.kinds else 0.0,
        any(encoder.reads_whole_frames for encoder in model.encoders.values()),
    ]


def _settings_of(model: ViPER, name: str) -> object:
    return _without_places(plain(modality(name).settings_of(model.config)))


def _without_places(settings: object) -> object:
    """Weights are identified by their content, not by where they came from."""
    if not isinstance(settings, dict):
        return settings
    is_backbone = settings.keys() == _OF_BACKBONE
    kept = {name: value for name, value in settings.items() if not (is_backbone and name in _PLACES)}
    return {name: _without_places(value) for name, value in kept.items()}
