"""viper.py: ViPER, the one module: clips go in, reaction intensities come out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from viper_e2e.config import (
    DecodingConfig,
    Depths,
    Frozen,
    FusionConfig,
    ModelConfig,
    backbones_of,
    in_order,
    looks_at_face,
    needs_of,
    reads_words,
    with_own_settings,
)
from viper_e2e.decoding import ClipDecoder
from viper_e2e.encoders import (
    Backbone,
    ClipView,
    Encoders,
    PreparedClip,
    Search,
    TokenCache,
    check_buildable,
    check_overrides,
    prefix_encoders,
)
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.faces import FaceCropper, FaceTrack
from viper_e2e.fusion import FusionHead, LabelScale, build_fusion, sample_hidden
from viper_e2e.labels import HUME_REACTION, LabelSet
from viper_e2e.loading import Reading, SecondDecoding
from viper_e2e.model.augment import Augment
from viper_e2e.model.close_ups import CloseUps
from viper_e2e.model.modes import in_mode
from viper_e2e.model.output import ViPEROutput, output_of, records_of
from viper_e2e.model.preparing import Clip, batch_of, decode, find_faces, is_one, name_of, refuse_absent
from viper_e2e.model.pretrained import Pretrained
from viper_e2e.model.records import Record
from viper_e2e.model.slots import Slots, lay_out
from viper_e2e.model.transfer import Transfer


class ViPER(Pretrained):
    """Turn clips into reaction intensities in one forward pass; nothing is written to disk in between.

    ``model(clips)`` decodes, finds and crops faces, encodes every modality and fuses them; training and
    inference both call it. Backbones are frozen, except for adapters, until ``set_training_depths`` is called.

    Source: ViPER (Vaiani et al. 2022, https://doi.org/10.1145/3551876.3554806), rebuilt end to end.

    Args:
        config: what is computed; see ``presets.py`` for where to start.
        labels: names and range of the outputs.
        assets: a checkpoint folder's ``backbones/``, holding configs, preprocessors and tokenizers.
        records: ``{backbone: {spec, revision, tensors_sha256}}`` that loaded weights must match.
        overrides: ``{backbone: path}``, looked at before any other place.
        bundled: backbones that are built without weights, for the caller to load.
    """

    def __init__(
        self,
        config: ModelConfig,
        labels: LabelSet = HUME_REACTION,
        *,
        assets: os.PathLike | None = None,
        records: Mapping[str, Any] | None = None,
        overrides: Mapping[str, str] | None = None,
        bundled: frozenset[str] = frozenset(),
    ):
        nn.Module.__init__(self)
        self.modalities = in_order(config.modalities)
        config = with_own_settings(config)
        self._config, self.labels = config, labels
        self._reads_words = reads_words(self.modalities)
        self.decoder = ClipDecoder.for_model(config)
        self.faces = FaceCropper(config.faces)
        search = Search(None if assets is None else Path(assets), records or {}, overrides or {}, bundled)
        bank = ["sentence_bank"] if "sentences" in needs_of(self.modalities) else []
        check_overrides(search, [*backbones_of(config), *bank])
        self.encoders = Encoders.of_model(config, self.modalities, search)
        widths = {name: encoder.embed_dim for name, encoder in self.encoders.items()}
        scale = LabelScale.of(labels, bounded=config.fusion.output == "sigmoid")

        def new_fusion() -> FusionHead:
            return build_fusion(config.fusion, widths, len(labels), labels.in_unit_interval, scale)

        check_buildable("fusion", "its settings", new_fusion, search.checkpoint_budget)
        self.fusion = new_fusion()
        self.compute_dtype: torch.dtype | None = None
        """Type of backbones and fusion; ``None``: weights as they were made, under the caller's autocast."""
        self.augment: Augment | None = None
        """Changes clips that come with a seed, in training mode alone; set by who trains, never saved."""
        self.modality_dropout = 0.0
        """Chance that a modality is hidden from a clip that comes with a seed, in training mode alone; set by
        who trains, never saved."""
        self._second_decoding = SecondDecoding(Reading(num_workers=0))

    @property
    def device(self) -> torch.device:
        return next(self.fusion.parameters()).device

    @property
    def backbones(self) -> dict[str, Backbone]:
        """The backbones of all encoders, by name."""
        return {name: b for encoder in self.encoders.values() for name, b in encoder.backbones().items()}

    def set_training_depths(self, depths: Depths) -> None:
        """Train these backbones to these depths from now on; the others train only their adapters, if any."""
        for name, backbone in self.backbones.items():
            depth = depths.of(name)
            backbone.set_training_depth(backbone.least_depth if depth == Frozen() else depth)

    # --- clips -> intensities ---------------------------------------------------------------------

    def forward(
        self,
        clips: Clip | Sequence[Clip],
        seeds: Sequence[int] | None = None,
        *,
        hidden: Bool[Tensor, "B M"] | None = None,
        cache: TokenCache | None = None,
        keep_streams: bool = False,
    ) -> ViPEROutput:
        """Score a batch of clips.

        Args:
            clips: any mixture of the forms of :data:`Clip`; one alone is a batch of one.
            seeds: in training, one integer per clip from which its modality dropout and augmentation
                are drawn; ``None``: neither.
            hidden: modalities to be treated as absent, clip by clip.
            cache: where frozen encoders look up and store their tokens of prepared clips; ``None``: nowhere.
            keep_streams: return the tokens of all modalities too, hidden ones included.

        An unreadable clip keeps its row: its ``valid`` is False and its ``errors`` says why.
        """
        prepared = self.prepare(clips)
        if not prepared:
            # No network takes an empty batch: of a batch of one, no row.
            return self([None], keep_streams=keep_streams).without_rows()
        slots = lay_out(
            prepared, self.config.decoding.num_frames, self.device, spread=self.fusion.spreads_frames
        )
        views = self._views(prepared, slots, seeds)
        streams = {name: encoder.encode(views, cache) for name, encoder in self.encoders.items()}
        present = torch.stack([stream.present.any(dim=1) for stream in streams.values()], dim=1)
        if hidden is None and self.training and seeds is not None and self.modality_dropout > 0:
            hidden = sample_hidden(present, self.modality_dropout, seeds)
        with self._fusing():
            answers = self.fusion(streams, slots.face_found, slots.duration_seconds, hidden)
        accounts = None if self.training else [self.encoders.account(view) for view in views]
        output = output_of(answers, present, prepared, slots, accounts)
        return output._replace(streams=streams) if keep_streams else output

    def prepare(self, clips: Clip | Sequence[Clip]) -> list[PreparedClip | ClipError]:
        """Decode clips and find faces; clips that are already decoded or prepared skip those steps."""
        decoded = [decode(clip, self.decoder, reads_words=self._reads_words) for clip in batch_of(clips)]
        return find_faces(decoded, self.device, self._track, self._close_ups)

    def _track(self, frames: Tensor, seconds: Tensor) -> FaceTrack:
        if "face" in needs_of(self.config.decoding.for_modalities or self.modalities):
            return self.faces([frames], [seconds])[0]
        return FaceTrack.of_no_face(len(seconds), frames.shape[2], frames.shape[1], self.device)

    def _close_ups(self, transfer: Transfer) -> CloseUps:
        specs = [spec for encoder in self.encoders.values() if (spec := encoder.crop_spec) is not None]
        reach = self.augment.box_reach if self.augment is not None and "box" in self.augment.kinds else 0.0
        margin = max(self.config.faces.hold_margin, reach)
        keeps_frames = any(encoder.reads_whole_frames for encoder in self.encoders.values())
        wanted = specs if self.decoder.comes_back else []
        again = self._second_decoding
        return CloseUps(self.config.decoding, wanted, margin, transfer, again, keeps_frames=keeps_frames)

    def _views(
        self, clips: Sequence[PreparedClip | ClipError], slots: Slots, seeds: Sequence[int] | None
    ) -> list[ClipView]:
        """Views of each clip for the encoders in this pass."""
        augment = self.augment if self.training and seeds is not None else None
        drawn = [None] * len(clips) if augment is None or seeds is None else seeds
        assert len(drawn) == len(clips), "a seed for each clip"
        return [
            ClipView(
                None if isinstance(clip, ClipError) else clip,
                slots.frame[i],
                slots.used[i],
                self.config.decoding.sample_rate,
                augment,
                drawn[i],
            )
            for i, clip in enumerate(clips)
        ]

    def _fusing(self) -> AbstractContextManager:
        """The autocast state that the fusion runs in; its weights are float32 throughout."""
        if self.compute_dtype is None:
            return nullcontext()
        half = self.compute_dtype.itemsize < 4
        return torch.autocast(self.device.type, dtype=self.compute_dtype if half else None, enabled=half)

    # --- other ways to use it ---------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, clips: Clip | Sequence[Clip], *, boxes: bool = False) -> Record | list[Record]:
        """Score one clip (returns a record) or several (returns a list); see :func:`output.records_of`.

        A clip that cannot be decoded has a record with ``valid`` False and its ``error``. `ViperError` where
        nothing is at a path, before any work.
        """
        several, batch = not is_one(clips), batch_of(clips)
        refuse_absent(batch)
        names = [name_of(clip) for clip in batch]
        with in_mode(self, training=False):
            output = self.calibrated(self(batch))
        records = records_of(
            output, names, self.labels, self.modalities, boxes=boxes, calibration=self.calibration
        )
        return records if several else records[0]

    def calibrated(self, output: ViPEROutput) -> ViPEROutput:
        """The output with calibrated intensities, as people get them."""
        if self.calibration is None:
            return output
        values = self.calibration.apply(output.intensities.cpu().double().numpy(), self.labels)
        return output._replace(intensities=torch.from_numpy(values))

    def cacheable(
        self, clip: PreparedClip, cache: TokenCache | None = None, *, prefixes: bool = True
    ) -> PreparedClip:
        """The least of a clip that makes a later pass bitwise equal to the one that had this cache.

        ``prefixes``: with those of partly trained encoders, several times as large as the pictures replaced.
        `ViperError` without the tokens of an encoder that is frozen: nothing of the clip is left for it.
        """
        clip = clip if cache is None else cache.with_tokens(clip)
        trained = {name for name, encoder in self.encoders.items() if not encoder.is_frozen}
        if missing := set(self.modalities) - trained - clip.tokens.keys():
            raise ViperError(
                f"{clip.name}: without tokens of {', '.join(sorted(missing))} it cannot be cached; give "
                "cacheable() the cache of a pass over it"
            )
        made_by = {name: one.prefix_id() for name, one in prefix_encoders(self.encoders).items() if prefixes}
        begun = {name: one for name, one in clip.prefixes.items() if one.made_by == made_by.get(name)}
        clip = replace(clip, prefixes=begun)
        # Sound is small beside them, and says where its pieces lie.
        needs = needs_of(trained - begun.keys()) | (needs_of(trained) & {"sound"})
        specs = [
            spec
            for name in trained - begun.keys()
            if looks_at_face(name) and (spec := self.encoders[name].crop_spec) is not None
        ]
        aligned = any(spec.align == "eyes" for spec in specs)
        return clip.reduced(self.faces, pixels="face" in needs, sound="sound" in needs, aligned=aligned)

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Store frozen backbones in ``dtype``; run the others, and the fusion, under autocast to it.

        Autocast around the module is then unnecessary, and has no effect. The detector, crops, times and
        outputs stay float32.
        """
        self.compute_dtype = dtype
        for encoder in self.encoders.values():
            encoder.to_compute_dtype(dtype)

    def set_decoding(self, decoding: DecodingConfig) -> None:
        """Clips are decoded by these settings from now on: other limits, other tracks."""
        self._config = replace(self.config, decoding=decoding)
        self.decoder = ClipDecoder.for_model(self.config)

    def set_fusion(self, fusion: FusionHead, settings: FusionConfig) -> None:
        """Fuse by this head from now on, which was built from these settings."""
        self._config, self.fusion = replace(self.config, fusion=settings), fusion

    def set_reading(self, reading: Reading) -> None:
        """Guard the module's own decoding and measuring like that of the clips it is given."""
        for encoder in self.encoders.values():
            encoder.clip_timeout_seconds = reading.clip_timeout_seconds
        self._second_decoding = SecondDecoding(reading)


def load(
    source: str | os.PathLike,
    *,
    revision: str | None = None,
    overrides: Mapping[str, str] | None = None,
) -> ViPER:
    """A trained model from a folder or a hub id, ready to predict; see :meth:`ViPER.from_pretrained`."""
    return ViPER.from_pretrained(source, revision=revision, overrides=overrides)
