"""reading_options.py: options of every command on how clips are read, and what they change in the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viper_e2e.config import DecodingConfig, LimitsConfig, ReadingOptions, RemoteOptions, with_settings

if TYPE_CHECKING:
    from viper_e2e.shards import ShardLimits

FRAMES_PER_SECOND = 120
"""Frames that a clip may have for every second that it may last."""


def with_reading_options(decoding: DecodingConfig, options: ReadingOptions) -> DecodingConfig:
    """The same but for what the options ask."""
    limits: dict[str, float] = {}
    if options.max_bytes is not None:
        limits |= dict.fromkeys(("max_bytes", "max_bytes_in_memory"), options.max_bytes.num_bytes)
    if (side := options.max_side_in) is not None:
        limits |= {"max_width": side, "max_height": side}
        limits["max_pixels"] = max(LimitsConfig.max_pixels, side * side)
    if (seconds := options.max_seconds) is not None:
        limits["max_seconds"] = seconds
        limits["max_frames"] = max(LimitsConfig.max_frames, int(seconds * FRAMES_PER_SECOND))
    tracks = {name: getattr(options, name) for name in ("video_track", "audio_track")}
    tracks = {name: number for name, number in tracks.items() if number is not None}
    return with_settings(decoding, {**{f"limits.{name}": limit for name, limit in limits.items()}, **tracks})


def shard_limits(options: ReadingOptions) -> ShardLimits:
    """Limits on shards under these options, and settings for remote ones."""
    from viper_e2e.shards import RemoteReading, ShardLimits

    decoding = with_reading_options(DecodingConfig(), options)
    reading = RemoteReading.of(options) if isinstance(options, RemoteOptions) else RemoteReading()
    return ShardLimits(max_clip_bytes=decoding.limits.max_bytes_in_memory, remote_reading=reading)
