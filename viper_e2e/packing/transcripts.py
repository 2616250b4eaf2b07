"""packing/transcripts.py: `viper pack --transcribe`: what a Whisper hears in clips that come without words."""

from __future__ import annotations

import numpy as np

from viper_e2e.clip import Cue, DecodedClip, Sample
from viper_e2e.config import DecodingConfig, LimitsConfig
from viper_e2e.decoding import ClipDecoder
from viper_e2e.errors import ViperError
from viper_e2e.loading import DecodeSample

SAMPLE_RATE = 16_000


class Transcripts:
    """Cues of clips as a model hears them; whoever reads them is told that nobody has checked them."""

    def __init__(self, source: str, language: str | None, limits: LimitsConfig):
        """``source``: a Whisper in a folder or on the hub; `ViperError` where it cannot be used."""
        from viper_e2e.encoders import Transcriber  # loads torch, which no other packing needs

        self._hear = Transcriber(source, language)
        self.source = source
        self.made_by = f"transcribed by {source}, language {language or 'as heard'}; checked by nobody"
        """What stands in the shard beside the words."""
        decoding = DecodingConfig(num_frames=1, sound="windows", sample_rate=SAMPLE_RATE, limits=limits)
        self._decode = DecodeSample(ClipDecoder(decoding, hears=True, sees="never"))

    def __call__(self, sample: Sample) -> tuple[Cue, ...]:
        """What is said in a clip, on its own clock; `ClipError` where its sound cannot be read."""
        return self._hear(_sound_of(self._decode(sample)))


def transcripts_of(source: str | None, language: str | None, limits: LimitsConfig) -> Transcripts | None:
    """Of a model that is asked for; `ViperError` for a language without one."""
    if source is None and language is not None:
        raise ViperError(f"--language {language} is what --transcribe hears; name a Whisper with it")
    return None if source is None else Transcripts(source, language, limits)


def _sound_of(clip: DecodedClip) -> np.ndarray:
    """All of it from the clip's first frame on, silent where there is none."""
    places = [round(run.start_seconds * SAMPLE_RATE) for run in clip.sound]
    ends = [place + len(run.samples) for place, run in zip(places, clip.sound, strict=True)]
    samples = np.zeros(max([0, *ends]), np.float32)
    for place, run in zip(places, clip.sound, strict=True):
        first = max(0, -place)
        samples[place + first : place + len(run.samples)] = run.samples[first:]
    return samples
