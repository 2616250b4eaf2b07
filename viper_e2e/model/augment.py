"""augment.py: random changes of training clips, the same in all frames of a clip, each from its own seed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from viper_e2e.clip import CropSpec
from viper_e2e.config import CHANGES, AugmentConfig, Changes, Need, check_settings, needs_of, option_of
from viper_e2e.errors import ViperError

_REACHES: dict[str, Need] = {"pixels": "face", "box": "face", "sound": "sound"}
"""A change reaches the modalities that need this."""

_SETTINGS = {
    "pixels": ("flip", "color", "rotate_degrees", "translate", "scale", "blur", "erase"),
    "box": ("box_shift", "box_scale"),
    "sound": ("gain_decibels", "noise", "noise_snr_decibels", "shift_seconds", "mask_seconds", "mask_hertz"),
}
_SNR_RANGE_DECIBELS = 20.0
_FFT, _HOP = 400, 100
_KERNEL = 1 / 8
"""Pixels that the widest resampling kernel reads beyond a box, as a share of it (`faces.crop.cut_regions`)."""

Runs = list[tuple[float, Float[Tensor, " _"]]]


class Augment:
    """Random changes to clips. They depend on the clip's seed alone: not on batch, process, worker or history.

    No module, so that it is no part of a model's state. Its owner calls it in training only.
    """

    def __init__(self, kinds: Collection[str], config: AugmentConfig):
        """``kinds``: of `CHANGES`. A `ViperError` names an amount that is out of range."""
        self.kinds, self.config = frozenset(kinds), config
        check_settings("--", {"augmentation.": config})
        # Imported here: a model that only predicts needs neither.
        import kornia.augmentation as K
        from torchaudio import functional

        self._audio = functional
        self._video = K.VideoSequential(
            K.RandomHorizontalFlip(p=config.flip),
            K.ColorJiggle(config.color, config.color, config.color, config.color / 4, p=1.0),
            K.RandomAffine(
                config.rotate_degrees,
                (config.translate, config.translate),
                (1 - config.scale, 1 + config.scale),
                padding_mode="border",
                p=1.0,
            ),
            K.RandomGaussianBlur((5, 5), (0.1, 2.0), p=config.blur),
            K.RandomErasing((0.02, 0.15), (0.5, 2.0), value=0.5, p=config.erase),
            data_format="BTCHW",
            same_on_frame=True,
        )

    def changes(self, modality: str) -> bool:
        """Whether this modality's input differs from epoch to epoch."""
        return any(_REACHES[kind] in needs_of([modality]) for kind in self.kinds)

    def check_holding(self, frozen: Collection[str], hold_margin: float) -> None:
        """`ViperError` where clips cached in memory would take the place of changed ones.

        ``frozen``: modalities whose tokens are cached, so that their input is never changed again.
        """
        for modality in frozen:
            if self.changes(modality):
                kind = "pixels or box" if "face" in needs_of([modality]) else "sound"
                raise ViperError(
                    f"--augment {kind} changes the input of {modality} in every epoch, but its backbone is "
                    "frozen and --reuse-memory reuses its output of the first epoch; set --reuse-memory 0"
                )
        reach = self.box_reach
        if "box" in self.kinds and hold_margin < reach:
            raise ViperError(
                f"--augment box moves boxes up to {reach:.2f} of their size, but --reuse-memory keeps only "
                f"{hold_margin:.2f} around them; set --model.faces.hold-margin {reach + 0.01:.2f}"
            )

    @property
    def box_reach(self) -> float:
        """Reach of crops beyond a box, as a share of its size."""
        widest = 1 + self.config.box_scale
        return self.config.box_shift + self.config.box_scale / 2 + widest * _KERNEL

    # --- what is seen ---------------------------------------------------------------------------

    def boxes(
        self, boxes: Float[Tensor, "N 4"], face_found: Bool[Tensor, "N"], seed: int
    ) -> Float[Tensor, "N 4"]:
        """Boxes around faces moved and resized alike, in shares of their own size; whole frames stay."""
        if "box" not in self.kinds:
            return boxes
        with _drawing(seed, "box"):
            shift_x, shift_y, scale = (2 * torch.rand(3) - 1).tolist()
        shift = torch.tensor([shift_x, shift_y], device=boxes.device) * self.config.box_shift
        half = (boxes[:, 2:] - boxes[:, :2]) / 2
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + 2 * half * shift
        half = half * (1 + scale * self.config.box_scale)
        moved = torch.cat([centre - half, centre + half], 1)
        return torch.where(face_found[:, None], moved, boxes)

    def pixels(self, crops: Float[Tensor, "N 3 S S"], spec: CropSpec, seed: int) -> Float[Tensor, "N 3 S S"]:
        """Crops as ``spec`` normalised them -> mirrored, recoloured, turned, blurred, partly covered."""
        if "pixels" not in self.kinds:
            return crops
        mean, std = (torch.tensor(x, device=crops.device)[:, None, None] for x in (spec.mean, spec.std))
        with _drawing(seed, "pixels"), torch.autocast(crops.device.type, enabled=False):
            changed = self._video((crops * std + mean).clamp(0, 1)[None])[0]
            return (changed.clamp(0, 1) - mean) / std

    # --- what is heard --------------------------------------------------------------------------

    def sound(self, runs: Runs, sample_rate: int, seed: int) -> Runs:
        """Runs of samples -> louder or quieter, noisy, shifted, with gaps in time and pitch."""
        if "sound" not in self.kinds:
            return runs
        config = self.config
        with _drawing(seed, "sound"):
            gain, snr, shift, chance = torch.rand(4).tolist()
            gain = (2 * gain - 1) * config.gain_decibels
            snr = config.noise_snr_decibels + snr * _SNR_RANGE_DECIBELS if chance < config.noise else None
            shift = round((2 * shift - 1) * config.shift_seconds * sample_rate)
            return [(start, self._heard(samples, sample_rate, gain, snr, shift)) for start, samples in runs]

    def _heard(
        self, samples: Float[Tensor, " S"], rate: int, gain: float, snr: float | None, shift: int
    ) -> Float[Tensor, " S"]:
        if samples.numel() == 0:
            return samples
        heard = self._audio.gain(samples.float(), gain)
        if snr is not None:
            noise = torch.randn(samples.shape).to(samples.device)
            heard = self._audio.add_noise(heard, noise, torch.tensor(snr, device=samples.device))
        return self._masked(_shifted(heard, shift), rate)

    def _masked(self, samples: Float[Tensor, " S"], rate: int) -> Float[Tensor, " S"]:
        """A stretch of time and a band of pitch silenced (after SpecAugment, Park et al. 2019), as sound."""
        columns = round(self.config.mask_seconds * rate / _HOP)
        rows = round(self.config.mask_hertz / rate * _FFT)
        if not columns and not rows:
            return samples
        window = torch.hann_window(_FFT, device=samples.device)
        with torch.autocast(samples.device.type, enabled=False):
            spectrum = torch.stft(samples, _FFT, _HOP, window=window, pad_mode="constant", return_complex=True)
            # Drawn on a mask of its own, which torchaudio wants real; at most half of a run goes.
            kept = torch.ones(1, *spectrum.shape)
            kept = self._audio.mask_along_axis(kept, columns, 0.0, axis=2, p=0.5)
            kept = self._audio.mask_along_axis(kept, rows, 0.0, axis=1, p=0.5)[0]
            spectrum = spectrum * kept.to(samples.device)
            return torch.istft(spectrum, _FFT, _HOP, window=window, length=len(samples))


def _shifted(samples: Float[Tensor, " S"], by: int) -> Float[Tensor, " S"]:
    """Later (or, negative, earlier) by so many samples; silence moves in."""
    by = max(-len(samples), min(len(samples), by))
    silence = samples.new_zeros(abs(by))
    if by < 0:
        return torch.cat([samples[-by:], silence])
    return torch.cat([silence, samples[: len(samples) - by]])


@contextmanager
def _drawing(seed: int, kind: str) -> Iterator[None]:
    """Draws of this kind for this seed, from the generator that kornia and torchaudio use; put back afterwards.

    The CPU's alone: seeding by ``torch.manual_seed`` would touch the accelerator's, and with it dropout.
    """
    state = torch.default_generator.get_state()
    words = np.random.SeedSequence([seed, CHANGES.index(kind)]).generate_state(1)
    torch.default_generator.manual_seed(int(words[0]))
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


# --- settings -----------------------------------------------------------------------------------


def build_augment(wanted: Changes, config: AugmentConfig, modalities: Collection[str]) -> Augment | None:
    """`ViperError` for a setting that would have no effect on these modalities."""
    possible = [kind for kind in CHANGES if _REACHES[kind] in needs_of(modalities)]
    kinds = wanted.among(possible)
    for kind in kinds:
        if kind not in possible:
            raise ViperError(f"--augment {kind}: has no effect on {', '.join(modalities)}; leave it out")
    for kind in CHANGES:
        for name in _SETTINGS[kind]:
            if kind not in kinds and getattr(config, name) != getattr(AugmentConfig, name):
                option = option_of(f"augmentation.{name}")
                raise ViperError(f"{option} has no effect without --augment {kind}")
    return Augment(kinds, config) if kinds else None
