"""packing/subtitles.py: subtitles beside a clip, or the words in the table -> the member for the shard."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from viper_e2e.clip import Cue, Sample, Segment, cues_within
from viper_e2e.loading import HOW_TO_NAME_IT, beside_clip, cues_of_file, unread_beside
from viper_e2e.packing.report import Findings
from viper_e2e.packing.transcripts import Transcripts
from viper_e2e.runtime import count_of, extension_of, first_of, printable
from viper_e2e.shards import words_member

MAX_NAMED = 10


@dataclass
class PackedWords:
    """Words of the clips of a run, and what to report about them."""

    findings: Findings
    is_wanted: bool = True
    """Whether files beside clips are looked at."""
    language: str = ""
    """Language of the file to take if there are several."""
    transcripts: Transcripts | None = None
    """Hears clips of which no words are known."""
    broken: list[str] = field(default_factory=list)
    """Files with cues that are left out, each with the first of them."""
    unread: dict[str, None] = field(default_factory=dict)
    """Names of subtitles of clips without timed words that are not read, each once."""
    _read: dict[Path, tuple[Cue, ...]] = field(default_factory=dict)
    """Cues of the last file read, which may belong to several clips."""

    def members(self, video: Path, text: str | None, segment: Segment | None) -> dict[str, bytes]:
        """The member with a clip's words; none where nothing is known of them.

        Subtitles with times come first, then the table's ``text``, then a text beside the clip; of a
        ``segment`` of the file, what is said in it, on its own clock. Raises `ClipError` for a file that cannot
        be used.
        """
        beside = beside_clip(video, self.language) if self.is_wanted else None
        is_timed = beside is not None and extension_of(beside.name) != "txt"
        if self.is_wanted and not is_timed:
            self.unread |= dict.fromkeys(map(printable, unread_beside(video)))
        has_text = text is not None and bool(text.strip())
        if has_text and beside is not None:
            taken, left = ("subtitles", "the table's words") if is_timed else ("the table's words", "the .txt")
            self.findings.count(f"with words from several places: {taken} used, {left} not")
        if text is not None and has_text and not is_timed:
            return self._told([Cue(" ".join(text.split()))], "whose words are those of the table")
        if beside is None:
            return {}
        cues = self._cues_of(beside)
        if segment is not None and segment.span != (0.0, math.inf):
            if not is_timed:
                self.findings.count("cut out of files whose .txt has no times: packed without words")
                return {}
            cues = cues_within(cues, *segment.span)
        return self._told(cues, f"with words from a .{extension_of(beside.name)} beside them")

    def transcribed(self, sample: Sample) -> dict[str, bytes]:
        """The member with the words that a model finds in a clip, marked as such; none without a model."""
        if self.transcripts is None:
            return {}
        cues, source = self.transcripts(sample), self.transcripts.source
        self.findings.count(f"transcribed by {source}" if cues else f"in which {source} finds no words")
        return dict([words_member(cues, self.transcripts.made_by)]) if cues else {}

    def all_packed(self) -> None:
        """Once shards are in place, the saved transcripts are not needed."""
        if self.transcripts is not None:
            if known := self.transcripts.num_known:
                self.findings.count("transcribed by an earlier run that did not end", known)
            self.transcripts.forget()

    def lines(self) -> list[str]:
        """Lines to report, one per file."""
        told = []
        if self.unread:
            many = f"{count_of(len(self.unread), 'file')} of subtitles not read ({first_of(self.unread)})"
            told.append(f"{many}: {HOW_TO_NAME_IT}")
        more = len(self.broken) - MAX_NAMED
        return [*told, *self.broken[:MAX_NAMED], *([f"{more} more files with broken cues"] if more > 0 else [])]

    def _told(self, cues: tuple[Cue, ...] | list[Cue], note: str) -> dict[str, bytes]:
        self.findings.count(note if cues else "with subtitles, but none during the clip")
        return dict([words_member(cues)]) if cues else {}

    def _cues_of(self, path: Path) -> tuple[Cue, ...]:
        if path not in self._read:
            cues, faults = cues_of_file(path)
            if faults:
                count = count_of(len(faults), "cue")
                self.broken.append(f"{printable(str(path))}: {count} left out ({faults[0]})")
            self._read = {path: cues}
        return self._read[path]
