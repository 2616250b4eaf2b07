"""whisper.py: Whisper's spectrogram, and its encoder run on no more sound than there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.audio_utils import mel_filter_bank
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from viper_e2e.encoders.sound import padded

STEP_POSITIONS = 25
"""Pieces are padded to a multiple of half a second, so that lengths repeat: pieces that share a length share a
pass, and what is compiled sees few shapes."""


class LogMel(nn.Module):
    """Whisper's input: log-mel spectrograms, zero-padded (Radford et al. 2022, section 2.2)."""

    filters: Float[Tensor, "M K"]

    def __init__(self, preprocessor: Mapping[str, Any], architecture: WhisperConfig, padding: str = "full"):
        """``padding`` as in ``AudioConfig``."""
        super().__init__()
        self.num_fft = preprocessor.get("n_fft", 400)
        self.hop = preprocessor.get("hop_length", 160)
        rate = preprocessor.get("sampling_rate", 16_000)
        # The encoder halves the number of frames and has a position for no more than this many (30 s).
        self.num_samples = 2 * architecture.max_source_positions * self.hop
        self._step = self.num_samples if padding == "full" else 2 * STEP_POSITIONS * self.hop
        filters = mel_filter_bank(
            num_frequency_bins=1 + self.num_fft // 2,
            num_mel_filters=architecture.num_mel_bins,
            min_frequency=0.0,
            max_frequency=8000.0,
            sampling_rate=rate,
            norm="slaney",
            mel_scale="slaney",
        )
        self.register_buffer("filters", torch.from_numpy(filters.T.astype(np.float32)), persistent=False)

    def padded_length(self, num_samples: int) -> int:
        """Samples that a piece of so many is heard as: its own length alone decides."""
        return min(-(-num_samples // self._step) * self._step, self.num_samples)

    def forward(self, pieces: list[Float[Tensor, "_"]]) -> Float[Tensor, "N M F"]:
        """float32 sound, pieces of one ``padded_length`` -> its frames, float32 whatever autocast says.

        Frames of a short piece are the first of those that 30 s of padding would give.
        """
        length = self.padded_length(len(pieces[0]))
        # After 30 s Whisper sees its own sound mirrored; after less, the silence that would follow.
        behind = min(length + self.num_fft, self.num_samples)
        samples = torch.stack([padded(piece.float(), behind) for piece in pieces])
        with torch.autocast(samples.device.type, enabled=False):
            window = torch.hann_window(self.num_fft, device=samples.device)
            spectrum = torch.stft(samples, self.num_fft, self.hop, window=window, return_complex=True)
            mel = self.filters.float() @ spectrum[..., : length // self.hop].abs().square()
            log = mel.clamp_min(1e-10).log10()
            return (torch.maximum(log, log.amax((1, 2), keepdim=True) - 8.0) + 4.0) / 4.0


class AnyLengthWhisperEncoder(WhisperEncoder):
    """Whisper's encoder on spectrograms of any even length up to its own: positions are taken from the start.

    transformers' own refuses all but 30 s.
    """

    @classmethod
    def is_custom_code(cls) -> bool:
        """Not one of its own: transformers leaves sinusoidal positions out of a class of somebody else's."""
        return False

    def forward(
        self, input_features: Float[Tensor, "N M F"], output_hidden_states: bool = False
    ) -> BaseModelOutput:
        """``output_hidden_states``: also the input of each block, the first one first."""
        hidden = nn.functional.gelu(self.conv1(input_features))
        hidden = nn.functional.gelu(self.conv2(hidden)).permute(0, 2, 1)
        hidden = hidden + self.embed_positions.weight[: hidden.shape[1]]
        hidden = nn.functional.dropout(hidden, p=self.dropout, training=self.training)
        states = []
        for layer in self.layers:
            states.append(hidden)
            hidden = layer(hidden, None)
        hidden_states = tuple(states) if output_hidden_states else None
        return BaseModelOutput(last_hidden_state=self.layer_norm(hidden), hidden_states=hidden_states)


def encoder_class(padding: str) -> type[WhisperEncoder]:
    """``padding`` as in ``AudioConfig``."""
    return WhisperEncoder if padding == "full" else AnyLengthWhisperEncoder
