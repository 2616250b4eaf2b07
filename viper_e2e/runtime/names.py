"""names.py: names of files as people and file systems write them: endings, odd letters, patterns."""

from __future__ import annotations

import glob
import re
import unicodedata
from pathlib import Path

from viper_e2e.errors import nearest

VIDEO_EXTENSIONS = (
    *("mp4", "mov", "mkv", "webm", "avi", "flv", "m4v", "qt", "3gp", "3gpp", "3g2", "f4v", "insv", "lrv"),
    *("mk3d", "divx", "mts", "m2ts", "m2t", "mpegts", "tod", "ogv", "ogm", "wmv", "asf", "dvr-ms"),
    *("mpg", "mpeg", "mpe", "m1v", "m2v", "m2p", "vob", "evo", "dv", "dif"),
    *("mxf", "rm", "rmvb", "h264", "264", "avc", "h265", "265", "hevc"),
    *("ts", "ogg", "gif", "mod", "dat", "360"),
)
"""Endings of files that hold video; some only to be refused with the way to convert them (`magic.py`)."""
AMBIGUOUS_EXTENSIONS = ("ts", "ogg", "gif", "mod", "dat", "360")
"""Files of other kinds end so too (programs, sound, pictures): what is in them decides."""
SOUND_EXTENSIONS = (
    *(
        "wav",
        "flac",
        "wave",
        "bwf",
        "rf64",
        "w64",
        "m4a",
        "m4b",
        "mp3",
        "opus",
        "oga",
        "aac",
        "adts",
        "mka",
        "weba",
    ),
)
"""Endings of files that hold only sound, beside a clip."""


def extension_of(name: str) -> str:
    """``IMG_1.MOV`` → ``mov``; empty for a name without an ending, and of hidden files."""
    stem, _, extension = name.rpartition(".")
    return extension.lower() if stem else ""


def is_hidden(name: str) -> bool:
    """Dot files, among them the ``._*`` that macOS leaves beside files on foreign disks."""
    return name.startswith(".")


def printable(name: str) -> str:
    r"""A file's name as text that every output can hold: bytes that are no UTF-8 become ``\xe9``."""
    if not any("\ud800" <= character <= "\udfff" for character in name):
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def fault_of(name: str) -> str | None:
    """Why a name cannot be a sample's: control characters, line separators or broken UTF-8.

    Format characters (joiners, soft hyphens, directional marks) and every kind of space are letters of names.
    """
    for character in name:
        kind = unicodedata.category(character)
        if kind == "Cs":
            return "is not UTF-8"
        if kind in ("Cc", "Zl", "Zp"):
            return f"has a control character (U+{ord(character):04X})"
    return None


def likely_path(missing: str) -> str | None:
    """The file beside a missing path that was probably meant: its name differs only in its ending."""
    path = Path(missing)
    try:
        beside = {printable(other.name): other.stem for other in path.parent.iterdir()}
    except OSError:
        return None
    stem = nearest(path.stem, beside.values())
    near = nearest(path.name, [name for name, own in beside.items() if own == stem], likeness=0.0)
    return None if near is None else str(path.with_name(near))


def literal_prefix(pattern: str) -> tuple[str, str]:
    """(folders that are there literally, however they are spelt; the rest, which is a pattern).

    >>> literal_prefix("takes [1]/*.mp4")  # where the folder "takes [1]" is
    ('takes [1]/', '*.mp4')
    """
    parts = re.split(r"(?<=/)", pattern)
    prefix = ""
    while len(parts) > 1 and Path(prefix + parts[0]).is_dir():
        prefix += parts.pop(0)
    return prefix, "".join(parts)


def matches(pattern: str) -> list[str]:
    """Files that a glob pattern names, sorted; its folders are taken literally where they are there so."""
    prefix, rest = literal_prefix(pattern)
    return sorted(glob.glob(glob.escape(prefix) + rest, recursive=True))  # noqa: PTH207
