"""sidecar_text.py: the words of a clip from a file next to it: subtitles, or text without times."""

from __future__ import annotations

import logging
import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from viper_e2e.clip import Cue
from viper_e2e.errors import ClipError
from viper_e2e.runtime import VIDEO_EXTENSIONS, extension_of, printable
from viper_e2e.shards import MAX_WORDS_BYTES, read_subtitles

_log = logging.getLogger(__name__)

SUBTITLE_FILES = ("vtt", "srt", "txt")
"""Beside a clip, the first that is there is taken."""
UNREAD_SUBTITLES = ("ass", "ssa", "sbv", "lrc", "ttml", "dfxp", "smi", "sami", "sub", "stl", "scc")
"""Subtitles in forms that are not read; FFmpeg converts most of them."""
LANGUAGE_NAME = re.compile(r"(?P<stem>.+)\.(?P<language>[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*)", re.DOTALL)
"""``clip.en``, ``clip.pt-BR``."""
HOW_TO_NAME_IT = "convert it (`ffmpeg -i FILE.ass CLIP.srt`), and name it CLIP.srt or CLIP.en.srt"


def words_beside(video: Path, language: str = "") -> tuple[Cue, ...]:
    """Words of a file beside a clip, none without one; broken cues are noted.

    ``language`` and `ClipError`: as for `beside_clip`; also for a file that cannot be used.
    """
    path = beside_clip(video, language)
    if path is None:
        for name in unread_beside(video):
            _log.warning("%s is not read; %s", printable(name), HOW_TO_NAME_IT)
        return ()
    cues, faults = cues_of_file(path)
    if faults:
        _log.warning("%s: %d broken cues are not read (%s)", printable(str(path)), len(faults), faults[0])
    return cues


def beside_clip(video: Path, language: str = "") -> Path | None:
    """The file with the words of a clip: its name with another ending, in whatever case.

    The clip's own ending may stay before it (``CLIP.mp4.srt``), and accents may be written either way. A
    language may stand between (``CLIP.en.srt``): the one that is asked for, or else the only one there, where
    no file is without. `ClipError` where there are several to choose from.
    """
    found_by_name = _named_after(video).words
    by_language = {name: path for name, path in found_by_name.items() if name}
    asked = by_language.get(language.casefold()) if language else None
    found = asked or _without_language(video) or found_by_name.get("")
    if found is not None or not by_language or language:
        return found
    if len(by_language) > 1:
        reason = f"has words in {', '.join(sorted(by_language))} beside it; choose one by --words-language"
        raise ClipError(reason, stage="words", clip=str(video))
    return next(iter(by_language.values()))


def unread_beside(video: Path) -> tuple[str, ...]:
    """Names of subtitles beside a clip that are not read: of another form, or with more in their name."""
    return tuple(_named_after(video).unread)


@dataclass(frozen=True)
class _Beside:
    """Files named after one clip."""

    words: dict[str, Path] = field(default_factory=dict)
    """Files by language in lower case, empty for a name without one."""
    unread: list[str] = field(default_factory=list)


def _named_after(video: Path) -> _Beside:
    try:
        changed = video.parent.stat().st_mtime_ns
    except OSError:
        return _Beside()
    return _by_stem(video.parent, changed).get(_composed(_stem(video.name)), _Beside())


@lru_cache(maxsize=8)
def _by_stem(folder: Path, _changed: int) -> dict[str, _Beside]:
    """Files of words in a folder as it was at a time, by the clip's name without ending."""
    found: dict[str, _Beside] = {}
    names = sorted(path.name for path in folder.iterdir())
    clips = {_composed(name) for name in names if extension_of(name) in VIDEO_EXTENSIONS}
    stems = set(map(_stem, clips))
    for ending in (*SUBTITLE_FILES, *UNREAD_SUBTITLES):
        for name in (name for name in names if extension_of(name) == ending):
            # What is called after another clip is that clip's: `take.one.txt` beside `take.one.mp4`.
            whole = _composed(_stem(name))
            match = None if whole in stems else LANGUAGE_NAME.fullmatch(whole)
            if ending in UNREAD_SUBTITLES:
                stem, language = _clip_of(whole, stems), None
            elif whole in clips:
                stem, language = _stem(whole), ""
            elif match:
                stem, language = match["stem"], match["language"].casefold()
            elif whole in stems:
                stem, language = whole, ""
            else:
                stem, language = _clip_of(whole, stems), None
            beside = found.setdefault(stem, _Beside())
            if language is not None:
                beside.words.setdefault(language, folder / name)
            elif ending != "txt":
                beside.unread.append(name)
    return found


def _clip_of(whole: str, stems: set[str]) -> str:
    """The clip after which a name with more dots is called; empty: none."""
    while whole and whole not in stems:
        whole = whole.rpartition(".")[0]
    return whole


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _composed(name: str) -> str:
    """One way of writing letters with accents: macOS writes names apart (NFD), most programs composed (NFC)."""
    return unicodedata.normalize("NFC", name)


def _without_language(video: Path) -> Path | None:
    """Looked at each time: clocks of file systems are too coarse to tell a file that has just been written."""
    found: dict[str, Path] = {}
    for ending in SUBTITLE_FILES:
        for written in (ending, ending.upper()):
            path = video.with_name(f"{_stem(video.name)}.{written}")
            if path.is_file():
                found.setdefault(ending, path)
    return next((found[ending] for ending in SUBTITLE_FILES if ending in found), None)


def cues_of_file(path: Path) -> tuple[tuple[Cue, ...], tuple[str, ...]]:
    """Cues, and what is wrong with others; `ClipError` for a file that cannot be used."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_WORDS_BYTES + 1)
        found = read_subtitles(path.name, data)
    except OSError as error:
        raise ClipError(f"cannot be read ({error.strerror})", stage="words", clip=str(path)) from error
    except ValueError as error:
        raise ClipError(str(error), stage="words", clip=str(path)) from error
    return found.cues, found.faults
