"""reading_options.py: options of every command on how clips are read, and what they change in the settings."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import fields
from types import NoneType
from typing import Any, get_args, get_type_hints

from viper_e2e.config import DecodingConfig, LimitsConfig, ReadingOptions, RemoteOptions, check_options
from viper_e2e.shards import RemoteReading, ShardLimits

FRAMES_PER_SECOND = 120
"""Frames that a clip may have for every second that it may last."""


def add_reading_options(parser: ArgumentParser) -> None:
    """Add them to the parser of `viper train`, which writes names with underscores."""
    hints = get_type_hints(ReadingOptions)
    for field in fields(ReadingOptions):
        (kind,) = (part for part in get_args(hints[field.name]) if part is not NoneType)
        how: dict[str, Any] = {} if kind is str else {"type": kind}
        parser.add_argument(
            f"--{field.name}", help=field.metadata["help"], metavar=field.metadata["metavar"], **how
        )


def reading_options(given: object) -> ReadingOptions:
    """What a parser found of them."""
    options = ReadingOptions(**{field.name: getattr(given, field.name) for field in fields(ReadingOptions)})
    check_options(options)
    return options


def apply_reading_options(decoding: DecodingConfig, options: ReadingOptions) -> None:
    """Change ``decoding`` in place, and so every decoder that holds it, as the options given ask."""
    limits = decoding.limits
    if options.max_bytes is not None:
        limits.max_bytes = limits.max_bytes_in_memory = options.max_bytes.num_bytes
    if (side := options.max_side_in) is not None:
        limits.max_width = limits.max_height = side
        limits.max_pixels = max(LimitsConfig.max_pixels, side * side)
    if (seconds := options.max_seconds) is not None:
        limits.max_seconds = seconds
        limits.max_frames = max(LimitsConfig.max_frames, int(seconds * FRAMES_PER_SECOND))
    if options.video_track is not None:
        decoding.video_track = options.video_track
    if options.audio_track is not None:
        decoding.audio_track = options.audio_track


def shard_limits(options: ReadingOptions) -> ShardLimits:
    """What shards may ask for under these options, and how remote ones are read."""
    decoding = DecodingConfig()
    apply_reading_options(decoding, options)
    reading = RemoteReading.of(options) if isinstance(options, RemoteOptions) else RemoteReading()
    return ShardLimits(max_clip_bytes=decoding.limits.max_bytes_in_memory, remote_reading=reading)
