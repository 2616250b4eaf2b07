"""packing/transcripts.py: `viper pack --transcribe`: transcripts by Whisper of clips without words."""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple
from pathlib import Path

import numpy as np

from viper_e2e.clip import Cue, DecodedClip, Sample
from viper_e2e.config import DecodingConfig, LimitsConfig
from viper_e2e.decoding import ClipDecoder
from viper_e2e.errors import ViperError
from viper_e2e.loading import DecodeSample
from viper_e2e.packing.media_worker import in_worker
from viper_e2e.runtime import plain_json
from viper_e2e.shards import TRANSCRIBED

SAMPLE_RATE = 16_000


class Transcripts:
    """Cues of clips as a model transcribes them, with a note to readers that nobody has checked them."""

    def __init__(self, source: str, language: str | None, limits: LimitsConfig, journal: Path | None = None):
        """``source``: a Whisper in a folder or on the hub; `ViperError` where it cannot be used. ``journal``: a
        file that saves transcripts, so that packing which was killed does not transcribe again."""
        from viper_e2e.encoders import Transcriber  # loads torch, which no other packing needs

        self._transcribe = Transcriber(source, language)
        self.source = source
        self.made_by = f"{TRANSCRIBED} {source}, language {language or 'as heard'}; checked by nobody"
        """The note in the shard beside the words."""
        decoding = DecodingConfig(num_frames=1, sound="windows", sample_rate=SAMPLE_RATE, limits=limits)
        self._decode = DecodeSample(ClipDecoder(decoding, hears=True, sees="never"))
        self._journal = journal
        self._known = {} if journal is None else _transcribed_before(journal, self.made_by)
        self.num_known = 0
        """Clips that an earlier run had transcribed."""

    def __call__(self, sample: Sample) -> tuple[Cue, ...]:
        """Transcribe a clip, on its own clock; `ClipError` if its sound cannot be read."""
        if self._journal is None:
            return self._cues(sample)
        clip = _digest(sample)
        if clip in self._known:
            self.num_known += 1
            return self._known[clip]
        cues = self._cues(sample)
        line = {"made_by": self.made_by, "clip": clip, "cues": [astuple(cue) for cue in cues]}
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        return cues

    def _cues(self, sample: Sample) -> tuple[Cue, ...]:
        size = len(sample.video) if isinstance(sample.video, bytes) else 0
        return self._transcribe(_sound_of(in_worker(sample.key, size, self._decode, sample)))

    def forget(self) -> None:
        """Remove the journal: all transcripts are packed."""
        if self._journal is not None:
            self._journal.unlink(missing_ok=True)


def _transcribed_before(journal: Path, made_by: str) -> dict[str, tuple[Cue, ...]]:
    """Clip → cues, of the same model and language; a line that was cut short is left out."""
    found: dict[str, tuple[Cue, ...]] = {}
    lines = journal.read_text(encoding="utf-8", errors="replace").split("\n") if journal.is_file() else []
    for line in lines:
        one = plain_json.record_in(line) or {}
        try:
            cues = tuple(Cue(str(text), float(start), float(end)) for text, start, end in one["cues"])
            if one["made_by"] == made_by:
                found[str(one["clip"])] = cues
        except (ValueError, KeyError, TypeError, OverflowError):  # cut short by a kill, or of another version
            continue
    return found


def _digest(sample: Sample) -> str:
    """Digest of a clip's content."""
    made = hashlib.sha256(repr(sample.segment).encode())
    for data in (sample.video, sample.sound):
        content = data if isinstance(data, bytes) else b""
        made.update(len(content).to_bytes(8, "big") + content)
    return made.hexdigest()


def transcripts_of(
    source: str | None, language: str | None, limits: LimitsConfig, journal: Path | None = None
) -> Transcripts | None:
    """Transcripts by the model that was asked for; `ViperError` if it does not know the language."""
    if source is None and language is not None:
        raise ViperError(f"--language {language} goes with --transcribe; name a Whisper model with it")
    return None if source is None else Transcripts(source, language, limits, journal)


def _sound_of(clip: DecodedClip) -> np.ndarray:
    """All of it from the clip's first frame on, silent where there is none."""
    places = [round(run.start_seconds * SAMPLE_RATE) for run in clip.sound]
    ends = [place + len(run.samples) for place, run in zip(places, clip.sound, strict=True)]
    samples = np.zeros(max([0, *ends]), np.float32)
    for place, run in zip(places, clip.sound, strict=True):
        first = max(0, -place)
        samples[place + first : place + len(run.samples)] = run.samples[first:]
    return samples
