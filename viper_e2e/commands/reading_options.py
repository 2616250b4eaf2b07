"""reading_options.py: options of every command on how clips are read, and what they change in the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viper_e2e.config import DecodingConfig, LimitsConfig, ReadingOptions, RemoteOptions

if TYPE_CHECKING:
    from viper_e2e.shards import ShardLimits

FRAMES_PER_SECOND = 120
"""Frames that a clip may have for every second that it may last."""


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
    from viper_e2e.shards import RemoteReading, ShardLimits

    decoding = DecodingConfig()
    apply_reading_options(decoding, options)
    reading = RemoteReading.of(options) if isinstance(options, RemoteOptions) else RemoteReading()
    return ShardLimits(max_clip_bytes=decoding.limits.max_bytes_in_memory, remote_reading=reading)
