"""shards/subtitles.py: SubRip, WebVTT or plain text -> what is said and when, and back for a shard's member."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from viper_e2e.clip import Cue

TIMED_WORDS, PLAIN_WORDS = "words.vtt", "words.txt"
WORDS_EXTENSIONS = (TIMED_WORDS, PLAIN_WORDS)
"""Members with words; the first that a sample has is read."""
MAX_WORDS_BYTES = 2 * 1024**2
MAX_CUES = 20_000
MAX_LETTERS = 5_000
"""Most letters of one cue."""

TRANSCRIBED = "transcribed by"
"""Begin of notes on words that a model has transcribed."""
_HEARD = f"NOTE {TRANSCRIBED} "
MAX_MADE_BY = 300
"""Letters of such a note that are kept."""
GLIMPSE_SECONDS = 0.05
"""Nobody says a line in less; so far apart are cues at most of which one goes on where the other ends."""
_TIME = r"(?:(\d{1,3}):)?([0-5]?\d):([0-5]\d)[.,](\d{1,3})"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_MOMENT = re.compile(rf"<{_TIME}>")
_MARKUP = re.compile(r"<[^<>]{0,400}>|\{\\[^{}]{0,400}\}")
_JOINERS = "\u200c\u200d"
"""Cannot be seen, and yet decide how letters of some scripts are written."""
_NO_CUES = ("WEBVTT", "NOTE", "STYLE", "REGION", "X-TIMESTAMP-MAP")
"""How blocks of WebVTT begin that are no cues."""
_TIMESTAMP_MAP = re.compile(r"^X-TIMESTAMP-MAP=(.*)$", re.MULTILINE)
"""Where a LOCAL time is on the stream's own clock, MPEGTS, which counts 90,000 a second (RFC 8216, 3.5)."""


class Subtitles(NamedTuple):
    """Words of a file."""

    cues: tuple[Cue, ...]
    """Cues in order of time."""
    faults: tuple[str, ...] = ()
    """Cues that are not among them: line and reason."""
    made_by: str = ""
    """The model that transcribed them, as its note says; empty: a person, or unknown."""


def read_subtitles(name: str, data: bytes) -> Subtitles:
    """A file by its ending: ``.vtt``, ``.srt``, or text without times.

    Markup is taken out; what is said at times within a cue (``<00:00:01.500>``) becomes cues of its own; lines
    that roll up and so are shown again (YouTube's captions, teletext) are said once. Raises ``ValueError``
    where nothing of it can be used: too large, not UTF-8, not what its name says, no sound cue.
    """
    if len(data) > MAX_WORDS_BYTES:
        raise ValueError(f"has {len(data):,} bytes; at most {MAX_WORDS_BYTES:,} are read as words")
    text = _decoded(data)
    if name.lower().endswith(".txt"):
        words = _plain(text)
        return Subtitles((Cue(words),) if words else ())
    if name.lower().endswith(".vtt") and not text.startswith("WEBVTT"):
        raise ValueError("does not begin with WEBVTT; if it is SubRip, name it .srt")
    _refuse_other_clock(text)
    cues: list[Cue] = []
    faults: list[str] = []
    made_by = ""
    roll = _Roll()
    for line, block in _blocks(text):
        if block[0].startswith(_HEARD):
            made_by = _visible(block[0].partition(" ")[2])[:MAX_MADE_BY]
        found = _cues_of(block, roll)
        if isinstance(found, str):
            faults.append(f"line {line}: {found}")
        else:
            cues += found
        if len(cues) > MAX_CUES:
            raise ValueError(f"has more than {MAX_CUES:,} cues")
    if faults and not cues:
        raise ValueError(f"no cue can be read ({faults[0]})")
    return Subtitles(tuple(sorted(cues, key=lambda cue: cue.start_seconds or 0.0)), tuple(faults), made_by)


def _refuse_other_clock(text: str) -> None:
    """`ValueError` for times that count from another moment than the clip's first: which one, only the segment
    of the stream knows that the words were cut with."""
    for found in _TIMESTAMP_MAP.finditer(text):
        moments = dict(part.strip().split(":", 1) for part in found[1].split(",") if ":" in part)
        local = re.fullmatch(_TIME, moments.get("LOCAL", ""))
        ticks = moments.get("MPEGTS", "")
        if local is None or not ticks.isdecimal():
            raise ValueError(f"{found[0].strip()[:80]!r} cannot be read; remove it if times fit the clip")
        shift = int(ticks[:20]) / 90_000 - _seconds(local.groups())
        if abs(shift) >= GLIMPSE_SECONDS:
            raise ValueError(
                f"its times count on a stream's clock (X-TIMESTAMP-MAP, {shift:+.2f} s), and the clip's may "
                "begin elsewhere; shift them to the clip and remove that line"
            )


def words_member(cues: Sequence[Cue], made_by: str = "") -> tuple[str, bytes]:
    """Extension and bytes of a shard's member that says this; ``made_by``: whom a reader should not take at
    their word.

    All cues have times, or none has.
    """
    if not all(cue.start_seconds is not None for cue in cues):
        lines = [cue.text for cue in cues]
        return PLAIN_WORDS, ("\n".join(lines) + "\n").encode()
    head = ["WEBVTT", ""]
    if made_by:
        head += [f"NOTE {_plain(made_by).replace('-->', '->')}", ""]
    for cue in cues:
        start = round(1000 * max(0.0, cue.start_seconds or 0.0))
        end = max(start + 1, round(1000 * (cue.end_seconds or 0.0)))
        text = html.escape(_visible(cue.text), quote=False).replace("{", "&#123;")
        head += [f"{_clock(start)} --> {_clock(end)}", text, ""]
    return TIMED_WORDS, "\n".join(head).encode()


def _decoded(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("is UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: is not UTF-8; save it as UTF-8") from error


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Lines between empty ones, with the number of the first; a time begins a block as well."""
    first, block = 1, list[str]()
    for number, line in enumerate(text.split("\n"), 1):
        is_second = "-->" in line and any("-->" in before for before in block)
        # YouTube leaves a cue's first line out by a space; only lines of no letter at all end one in WebVTT.
        is_first_line = line != "" and block != [] and "-->" in block[-1]
        if block and ((not line.strip() and not is_first_line) or is_second):
            yield first, block
            block = []
        if line.strip():
            first = first if block else number
            block.append(line)
    if block:
        yield first, block


class _Roll:
    """Lines that stand on the screen: where captions roll up, a cue repeats them above the one that is new."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._end_seconds = 0.0

    def new_lines(self, lines: Sequence[str], start: float, end: float) -> Sequence[str]:
        """Those of a cue's lines that did not stand there already when it began."""
        plain = [_plain(line) for line in lines]
        filled = [i for i, line in enumerate(plain) if line]
        words = [plain[i] for i in filled]
        repeated = 0
        if abs(start - self._end_seconds) < GLIMPSE_SECONDS:
            lengths = range(min(len(words), len(self._shown)), 0, -1)
            repeated = next((n for n in lengths if words[:n] == self._shown[-n:]), 0)
        if repeated == len(words) and end - start >= GLIMPSE_SECONDS:
            repeated = 0  # it may well be said twice
        self._shown, self._end_seconds = words, end
        return lines[filled[repeated - 1] + 1 :] if repeated else lines


def _cues_of(block: Sequence[str], roll: _Roll) -> list[Cue] | str:
    """Cues of a block, or its fault."""
    at = next((i for i, line in enumerate(block) if "-->" in line), None)
    if block[0].startswith(_NO_CUES) and at is None:
        return []
    if at is None:
        return "no times"
    found = _TIMES.fullmatch(block[at][:200])
    if found is None:
        return f"times that cannot be read ({block[at].strip()[:60]!r})"
    start, end = _seconds(found.groups()[:4]), _seconds(found.groups()[4:])
    if end <= start:
        return "ends before it begins" if end < start else "lasts no time"
    text = "\n".join(roll.new_lines(block[at + 1 :], start, end))
    if len(text) > MAX_LETTERS:
        return f"has {len(text):,} letters; at most {MAX_LETTERS:,} are read"
    return _by_moments(text, start, end)


def _by_moments(text: str, start: float, end: float) -> list[Cue]:
    """A cue, or its parts where it says when each is spoken."""
    # Between the texts, four groups of each time.
    parts = _MOMENT.split(text)
    moments = [start, *(_seconds(parts[i : i + 4]) for i in range(1, len(parts), 5)), end]
    if any(later < earlier for earlier, later in pairwise(moments)):
        moments, parts = [start, end], ["".join(parts[::5])]
    texts = [_plain(part) for part in parts[::5]]
    return [
        Cue(words, first, last)
        for words, (first, last) in zip(texts, pairwise(moments), strict=True)
        if words and last > first
    ]


def _plain(text: str) -> str:
    """Words alone: no markup, nothing that cannot be seen, single spaces."""
    return _visible(html.unescape(_MARKUP.sub("", text)))


def _visible(text: str) -> str:
    seen = (c if c.isprintable() or c in _JOINERS else " " if c.isspace() else "" for c in text)
    return " ".join("".join(seen).split())


def _seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = (part or "0" for part in parts)
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(fraction.ljust(3, "0")) / 1000


def _clock(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:03}"
