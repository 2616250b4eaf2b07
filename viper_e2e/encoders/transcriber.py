"""transcriber.py: sound -> what is said in it, and when, by a whole Whisper of transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

from viper_e2e.clip import Cue
from viper_e2e.encoders.building import quiet_transformers
from viper_e2e.encoders.weights import SMALL_FILES, read_json
from viper_e2e.errors import ViperError
from viper_e2e.runtime import HubError, fetch_folder

SAMPLE_RATE = 16_000
SILENCE = 1e-4
"""No sample is larger: nothing is said, whatever a model makes of it."""
_NEEDED = (
    *SMALL_FILES,
    "generation_config.json",
    "normalizer.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
)


class Transcriber:
    """A Whisper with its decoder: the most probable words, with the times of each phrase."""

    def __init__(self, source: str, language: str | None = None, device: str | None = None):
        """``source``: a folder or a hub id. ``language``: a code or an English name; ``None``: as it is heard.

        `ViperError` for what is no whole Whisper, and for a language that it does not know.
        """
        folder = _folder_of(source)
        kind = (
            read_json(folder / "config.json").get("model_type") if (folder / "config.json").is_file() else None
        )
        if kind != "whisper":
            raise ViperError(
                f"--transcribe {source}: is not a Whisper ({kind or 'without config.json'}); name one"
            )
        self.source, self.language = source, language
        model = self._load(folder)
        how = model.generation_config
        no_times = getattr(how, "no_timestamps_token_id", None)
        if no_times is None:
            raise ViperError(f"--transcribe {source}: has no generation_config.json with timestamps; fetch it")
        self._last_word = int(no_times)
        """Tokens after it are times."""
        self._options = {}
        if getattr(how, "is_multilingual", False):
            self._options = {"language": language, "task": "transcribe"}
        elif language not in (None, "en", "english"):
            raise ViperError(f"--language {language}: {source} knows only English")
        self._model = model.to(device or "cpu").eval()

    def _load(self, folder: Path) -> WhisperForConditionalGeneration:
        """The model; its extractor and tokenizer are kept."""
        try:
            with quiet_transformers():
                model, report = WhisperForConditionalGeneration.from_pretrained(
                    folder,
                    local_files_only=True,
                    use_safetensors=True,
                    dtype=torch.float32,
                    output_loading_info=True,
                )
                self._extractor = WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True)
                self._tokenizer = AutoTokenizer.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False
                )
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ViperError(
                f"--transcribe {self.source}: cannot be read ({reason}); fetch the whole model"
            ) from error
        if report["missing_keys"]:
            raise ViperError(
                f"--transcribe {self.source}: lacks {len(report['missing_keys'])} weights (was only "
                "the encoder saved?); fetch the whole model"
            )
        return model

    @torch.no_grad()
    def __call__(self, samples: np.ndarray) -> tuple[Cue, ...]:
        """Mono sound at 16 kHz, of any length -> phrases in order; `ViperError` for an unknown language."""
        if not len(samples) or np.abs(samples).max() <= SILENCE:
            return ()
        is_long = len(samples) > self._extractor.n_samples
        padding = {"padding": "longest", "truncation": False} if is_long else {"padding": "max_length"}
        inputs = self._extractor(
            samples, sampling_rate=SAMPLE_RATE, return_tensors="pt", return_attention_mask=True, **padding
        )
        device = self._model.device
        how = {"return_timestamps": True, "return_segments": True, "do_sample": False, "num_beams": 1}
        features, mask = inputs.input_features.to(device), inputs.attention_mask.to(device)
        try:
            with quiet_transformers():
                made = self._model.generate(features, attention_mask=mask, **how, **self._options)
        except ValueError as error:
            raise ViperError(f"--language {self.language}: {str(error).splitlines()[0]}") from error
        lasts = len(samples) / SAMPLE_RATE
        cues = (self._cue(segment, lasts) for segment in made["segments"][0])
        return tuple(cue for cue in cues if cue is not None)

    def _cue(self, segment: dict[str, object], lasts: float) -> Cue | None:
        tokens = [int(token) for token in torch.as_tensor(segment["tokens"]).tolist()]
        spoken = [token for token in tokens if token <= self._last_word]
        text = " ".join(self._tokenizer.decode(spoken, skip_special_tokens=True).split())
        start, end = (min(float(torch.as_tensor(segment[name])), lasts) for name in ("start", "end"))
        is_said = any(letter.isprintable() and letter != " " for letter in text)
        return Cue(text, start, end) if is_said and end > start else None


def _folder_of(source: str) -> Path:
    local = Path(source).expanduser()
    if local.is_dir():
        return local
    try:
        return fetch_folder(source, revision=None, patterns=_NEEDED)
    except HubError as error:
        raise ViperError(
            f"--transcribe {source}: no such folder, and it cannot be fetched from the hub: {error}"
        ) from error
