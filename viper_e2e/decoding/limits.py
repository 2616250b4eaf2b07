"""limits.py: what a clip may ask of us: `ClipError` with the setting, and the option, that allow more."""

from __future__ import annotations

import math

from viper_e2e.decoding.media import Media
from viper_e2e.errors import ClipError


def check_frame_size(media: Media, width: int, height: int) -> None:
    """Raise `ClipError` if a frame is larger than the limits."""
    limits, found = media.limits, f"has frames of {width}×{height}"
    wanted = f"(--max-side-in {max(width, height)} allows more)"
    if width > limits.max_width or height > limits.max_height:
        allowed = f"{limits.max_width}×{limits.max_height}"
        raise media.fail(f"{found}; limits.max_width and max_height allow {allowed} {wanted}")
    if width * height > limits.max_pixels:
        raise media.fail(f"{found}; limits.max_pixels allows {limits.max_pixels:,} pixels {wanted}")


def check_sound_format(media: Media, sample_rate: int, channels: int) -> None:
    """Raise `ClipError` if the sound is outside the limits."""
    limits = media.limits
    if channels < 1 or sample_rate < 1:
        raise media.fail("its sound has no channels or no rate; it is damaged: copy it again", stage="sound")
    if channels > limits.max_channels:
        raise over("audio channels", channels, limits.max_channels, "max_channels", media.name)
    if not limits.min_sample_rate <= sample_rate <= limits.max_sample_rate:
        allowed = f"{limits.min_sample_rate:,} to {limits.max_sample_rate:,}"
        raise media.fail(
            f"has sound at {sample_rate:,} Hz; limits.min_sample_rate and max_sample_rate allow {allowed}"
        )


def check_seconds(media: Media, seconds: float) -> None:
    """Raise `ClipError` if something in the clip is longer than the limits."""
    if seconds > media.limits.max_seconds:
        wanted = f"--max-seconds {math.ceil(seconds)}"
        raise over(
            "seconds", round(seconds), round(media.limits.max_seconds), "max_seconds", media.name, wanted
        )


def check_num_frames(media: Media, num_frames: int) -> None:
    """Raise `ClipError` if there are more frames than the limits allow."""
    if num_frames > media.limits.max_frames:
        wanted = "more --max-seconds"
        raise over("frames", num_frames, media.limits.max_frames, "max_frames", media.name, wanted)


def over(what: str, found: int, allowed: int, setting: str, name: str, wanted: str = "") -> ClipError:
    """The error to raise where there is more than a limit allows.

    `wanted`: the option that raises the limit, as it would have to be given.
    """
    message = f"has {found:,} {what}; limits.{setting} allows {allowed:,}"
    return ClipError(f"{message} ({wanted} allows more)" if wanted else message, stage="container", clip=name)
