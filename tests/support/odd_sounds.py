"""odd_sounds.py: a table of odd clips to hear: how FFmpeg makes each, and what is to be expected."""

from __future__ import annotations

from typing import NamedTuple

STEADY = "testsrc2=s=64x48:r=10:d=3"
STILL = "color=red:s=64x48:r=10:d=0.1"
SHORT = "testsrc2=s=64x48:r=10:d=1"
RATES = (8_000, 11_025, 12_000, 22_050, 44_101, 96_000, 192_000)
UNEVEN = "testsrc2=s=64x48:r=10:d=3,select=lt(mod(n\\,9)\\,2)"
LONG = "testsrc2=s=64x48:r=10:d=5"


class OddSound(NamedTuple):
    """One recipe."""

    name: str
    """With the ending that names the container."""
    codec: str
    rate: int = 48_000
    layout: str = "stereo"
    how: str = ""
    """Further options of the output."""
    picture: str = STEADY
    sound_options: str = ""
    """In front of the sound input, such as ``-itsoffset 0.7``."""
    picture_options: str = ""
    filters: str = ""
    """On the sound."""


def _matrix() -> list[OddSound]:
    codecs = {
        "mp4": ("aac", "libmp3lame", "libopus", "flac", "ac3", "alac", "eac3"),
        "mov": ("aac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_f32le", "pcm_mulaw", "pcm_alaw", "alac"),
        "mkv": (
            "aac",
            "libmp3lame",
            "libopus",
            "libvorbis",
            "flac",
            "pcm_s16le",
            "pcm_u8",
            "ac3",
            "mp2",
        ),
        "webm": ("libopus", "libvorbis"),
        "avi": ("libmp3lame", "pcm_s16le", "ac3", "adpcm_ms", "pcm_mulaw"),
        "flv": ("aac", "libmp3lame", "pcm_s16le"),
        "ts": ("aac", "mp2", "libmp3lame", "ac3", "eac3"),
        "ogv": ("libvorbis", "flac"),
    }
    return [
        OddSound(f"{codec} in {kind}.{kind}", codec, 44_100 if kind == "flv" else 48_000)
        for kind, some in codecs.items()
        for codec in some
    ]


ODD_SOUNDS = [
    *_matrix(),
    *(OddSound(f"{rate} Hz.mkv", "pcm_s16le", rate) for rate in RATES),
    *(OddSound(f"{rate} Hz.mp4", "aac", rate, "mono") for rate in (8_000, 16_000, 22_050, 44_100)),
    *(
        OddSound(f"{layout}.{kind}", codec, 48_000, layout)
        for layout in ("mono", "3.0", "quad", "5.0", "5.1", "7.1")
        for kind, codec in (("mp4", "aac"), ("mkv", "flac"))
    ),
    OddSound("late sound.mp4", "aac", sound_options="-itsoffset 0.7"),
    OddSound("late sound.mkv", "libopus", sound_options="-itsoffset 0.7"),
    OddSound("late sound.ts", "mp2", sound_options="-itsoffset 0.7"),
    OddSound("late picture.mkv", "pcm_s16le", picture_options="-itsoffset 0.6"),
    OddSound("late picture.mp4", "aac", picture_options="-itsoffset 0.6"),
    OddSound("still picture.mp4", "aac", picture=STILL),
    OddSound("still picture.mkv", "libvorbis", picture=STILL),
    OddSound("picture ends first.mp4", "aac", picture=SHORT),
    OddSound("picture ends first.ts", "mp2", picture=SHORT),
    OddSound("sound ends first.mkv", "flac", picture=LONG),
    OddSound("pieces.mp4", "aac", how="-movflags frag_keyframe+empty_moov+default_base_moof"),
    OddSound("header first.mp4", "aac", how="-movflags +faststart"),
    OddSound("far clock.ts", "aac", how="-output_ts_offset 90000"),
    OddSound("low delay.mkv", "libopus", how="-frame_duration 5"),
    OddSound("long packets.mkv", "libopus", how="-frame_duration 60"),
    OddSound("variable rate.mp4", "libmp3lame", how="-q:a 6"),
    OddSound(
        "uneven pictures.mkv",
        "aac",
        picture=UNEVEN,
        how="-fps_mode vfr",
    ),
    OddSound("quiet.mp4", "aac", filters="volume=0.02"),
]
