"""bounds.py: what every numeric setting may be: one table, checked before anything starts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from viper_e2e.config.depth import parse_depth
from viper_e2e.config.schema import (
    ActionUnitConfig,
    AudioConfig,
    AugmentConfig,
    BackboneConfig,
    DecodingConfig,
    FaceConfig,
    FusionConfig,
    LimitsConfig,
    MotionConfig,
    TextualConfig,
    TrainConfig,
    VisualConfig,
)
from viper_e2e.errors import ViperError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class Bounds:
    """An interval of finite numbers; ``open_low`` and ``open_high``: without its end."""

    low: float | int = -math.inf
    high: float | int = math.inf
    open_low: bool = False
    open_high: bool = False

    def allows(self, value: float | int) -> bool:
        if not math.isfinite(value):
            return False
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        low, high = ((f"{end:.15g}") for end in (self.low, self.high))
        if math.isinf(self.low) and math.isinf(self.high):
            return "a finite number"
        if math.isinf(self.high):
            return f"above {low}" if self.open_low else f"at least {low}"
        start = f"above {low}" if self.open_low else f"from {low}"
        return f"{start} up to {'but not ' if self.open_high else ''}{high}"


ANY = Bounds()
FROM_0, FROM_1 = Bounds(0), Bounds(1)
ABOVE_0 = Bounds(0, open_low=True)
SHARE = Bounds(0, 1)
SHARE_BELOW_1 = Bounds(0, 1, open_high=True)

BOUNDS: dict[type, dict[str, Bounds]] = {
    LimitsConfig: {
        **dict.fromkeys(["max_bytes", "max_width", "max_height", "max_frames", "max_channels"], FROM_1),
        **dict.fromkeys(["max_bytes_in_memory", "max_pixels", "min_sample_rate", "max_sample_rate"], FROM_1),
        "max_seconds": ABOVE_0,
    },
    DecodingConfig: {
        **dict.fromkeys(["num_frames", "max_side", "video_track", "audio_track"], FROM_1),
        "span_seconds": Bounds(0.02, 3600),
        "sample_rate": Bounds(1000, 384_000),
    },
    FaceConfig: {
        **dict.fromkeys(["thresholds", "min_probability"], SHARE),
        **dict.fromkeys(["detect_seconds", "margin", "hold_margin"], FROM_0),
        "min_face_size": FROM_1,
    },
    BackboneConfig: {"lora_rank": FROM_0, "lora_alpha": ABOVE_0, "lora_dropout": SHARE_BELOW_1},
    VisualConfig: {"crop_size": FROM_1, "layers": FROM_1},
    AudioConfig: {"layer": FROM_0, "layers": FROM_1, "max_piece_seconds": Bounds(0.5)},
    TextualConfig: {"max_sentence_tokens": FROM_1},
    MotionConfig: {"num_frames": FROM_1, "crop_size": FROM_1},
    ActionUnitConfig: {"num_units": FROM_1, "embed_dim": FROM_1},
    FusionConfig: {
        **dict.fromkeys(["dim", "num_latents", "latent_dim", "depth", "self_attends_per_block"], FROM_1),
        **dict.fromkeys(["num_cross_heads", "num_latent_heads"], FROM_1),
        "hidden_dim": FROM_0,
        **dict.fromkeys(["dropout", "hidden_dropout"], SHARE_BELOW_1),
        "modality_dropout": SHARE,
    },
    AugmentConfig: {
        **dict.fromkeys(["flip", "color", "translate", "blur", "erase", "box_shift", "noise"], SHARE),
        **dict.fromkeys(["scale", "box_scale"], SHARE_BELOW_1),
        **dict.fromkeys(["shift_seconds", "mask_seconds", "mask_hertz"], FROM_0),
        "rotate_degrees": Bounds(0, 180),
        "gain_decibels": Bounds(0, 100),
        "noise_snr_decibels": Bounds(-100, 200),
    },
    TrainConfig: {
        **dict.fromkeys(["epochs", "max_steps", "batch_size", "accumulation", "halve_epochs", "seeds"], FROM_1),
        **dict.fromkeys(["prefetch", "shuffle_window"], FROM_1),
        **dict.fromkeys(["lr", "backbone_lr", "weight_decay", "clip_norm", "seed", "num_workers"], FROM_0),
        **dict.fromkeys(["save_every_steps", "save_every_minutes", "max_worker_restarts"], FROM_0),
        **dict.fromkeys(["clip_timeout_seconds", "process_timeout_seconds"], ABOVE_0),
        "layer_decay": Bounds(0, 1, open_low=True),
        "warmup_fraction": SHARE,
        "ema_decay": SHARE_BELOW_1,
    },
}
"""By dataclass and field; for a tuple, of each of its numbers. None is no number and always allowed where its
type allows it."""

OPTION_BOUNDS: dict[str, Bounds] = {
    **dict.fromkeys(["batch_size", "max_side_in", "video_track", "audio_track"], FROM_1),
    **dict.fromkeys(["num_workers", "max_worker_restarts", "seed"], FROM_0),
    **dict.fromkeys(
        ["window_seconds", "hop_seconds", "seconds", "max_seconds", "clip_timeout_seconds"], ABOVE_0
    ),
}
"""Of the commands' own options, by their names in `config.options`."""


def check_settings(source: str, parts: Mapping[str, Any]) -> None:
    """`ViperError` in one line where numbers of dataclasses, or of those inside them, are out of bounds.

    ``source`` comes before each name (``--`` or ``FILE: ``). ``parts``: where each stands (``model.``) → it.
    """
    complaints = [line for path, config in parts.items() for line in _complaints(config, source, path)]
    if complaints:
        raise ViperError("; ".join(complaints))


def check_options(options: Mapping[str, Any]) -> None:
    """The same of a command's own options, by name."""
    for name, value in options.items():
        bounds = OPTION_BOUNDS.get(name)
        if bounds is not None and value is not None and not bounds.allows(value):
            raise ViperError(f"--{name.replace('_', '-')} {value:g}: give a number {bounds}")


def _complaints(config: DataclassInstance, source: str, path: str) -> Iterator[str]:
    if isinstance(config, BackboneConfig):
        parse_depth(config.train, f"{source}{path}train")
    for field in fields(config):
        value, name = getattr(config, field.name), f"{path}{field.name}"
        if is_dataclass(value) and not isinstance(value, type):
            yield from _complaints(value, source, f"{name}.")
            continue
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            bounds = BOUNDS[type(config)][field.name]
            if not bounds.allows(number):
                shown = name.replace("_", "-") if source == "--" else name
                yield f"{source}{shown} {number:g}: give a number {bounds}"
