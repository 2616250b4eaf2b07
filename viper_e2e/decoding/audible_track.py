"""audible_track.py: chooses the first sound track that is not silent, if none was named."""

from __future__ import annotations

from dataclasses import replace

from viper_e2e.config import LimitsConfig
from viper_e2e.decoding.container import Source, open_clip
from viper_e2e.decoding.tracks import Tracks, first_that_speaks, number_of, sound_note, sound_tracks


def heard_track(source: Source, limits: LimitsConfig, name: str, tracks: Tracks) -> tuple[Tracks, str]:
    """The same tracks with the sound track that is heard, and what a person should know; as they are of a file
    with one sound track.

    Reads on until a track is known to have sound. Raises `ClipError`.
    """
    with open_clip(source, limits, name, tracks) as media:
        all_of_them = media.container.streams.audio
        if len(all_of_them) < 2:
            return tracks, ""
        own = sound_tracks(media.container, media.video)
        heard = first_that_speaks(media.container, own)
        note = sound_note(media.container, heard, own[0] if heard is not own[0] else None)
        return replace(tracks, audio=number_of(heard, all_of_them)), note
