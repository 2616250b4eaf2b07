"""reading_options.py: options of every command on how clips are read, and what they change in the settings."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from viper_e2e.config.schema import DecodingConfig, LimitsConfig
from viper_e2e.errors import ViperError
from viper_e2e.loading.reuse import parse_size
from viper_e2e.shards import ShardLimits

FRAMES_PER_SECOND = 120
"""Frames that a clip may have for every second that it may last."""

_OPTIONS = {
    "max-bytes": {"metavar": "SIZE", "help": "largest file of a clip, e.g. 500GB"},
    "max-side-in": {
        "type": int,
        "metavar": "N",
        "help": f"longest side of a clip's pictures in pixels (default: {LimitsConfig.max_width})",
    },
    "max-seconds": {
        "type": float,
        "metavar": "S",
        "help": f"longest clip in seconds (default: {LimitsConfig.max_seconds:g})",
    },
    "video-track": {
        "type": int,
        "metavar": "N",
        "help": "which of several picture tracks, from 1 on (default: the file's default, else the largest)",
    },
    "audio-track": {
        "type": int,
        "metavar": "N",
        "help": "which of several sound tracks, from 1 on (default: the file's default, unless it is silent)",
    },
}
"""By name; how argparse takes each."""


def add_reading_options(parser: Any, *, separator: str = "-") -> None:
    """Add them to an argparse or jsonargparse parser; ``separator`` stands between the words of a name."""
    for name, how in _OPTIONS.items():
        parser.add_argument(f"--{name.replace('-', separator)}", **how)


def apply_reading_options(decoding: DecodingConfig, options: Namespace) -> None:
    """Change ``decoding`` in place, and so every decoder that holds it, as the options given ask."""
    limits = decoding.limits
    if options.max_bytes is not None:
        limits.max_bytes = limits.max_bytes_in_memory = _positive("bytes", parse_size(options.max_bytes))
    if (side := options.max_side_in) is not None:
        limits.max_width = limits.max_height = _positive("side-in", side)
        limits.max_pixels = max(LimitsConfig.max_pixels, side * side)
    if (seconds := options.max_seconds) is not None:
        limits.max_seconds = _positive("seconds", seconds)
        limits.max_frames = max(LimitsConfig.max_frames, int(seconds * FRAMES_PER_SECOND))
    if (track := options.video_track) is not None:
        if track < 1:
            raise ViperError(f"--video-track {track}: tracks are counted from 1")
        decoding.video_track = track
    if (track := options.audio_track) is not None:
        if track < 1:
            raise ViperError(f"--audio-track {track}: tracks are counted from 1")
        decoding.audio_track = track


def shard_limits(options: Namespace) -> ShardLimits:
    """What shards may ask for under these options."""
    decoding = DecodingConfig()
    apply_reading_options(decoding, options)
    return ShardLimits(max_clip_bytes=decoding.limits.max_bytes_in_memory)


def _positive(name: str, value: float | int) -> float | int:
    if not 0 < value < float("inf"):
        raise ViperError(f"--max-{name} {value:g}: give more than 0")
    return value
