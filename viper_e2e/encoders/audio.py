"""audio.py: runs of sound -> one embedding per instant, by wav2vec 2.0's family, Whisper or x-vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import WhisperConfig

from viper_e2e.config import AudioConfig, ModelConfig
from viper_e2e.encoders.audio_backbone import audio_backbone
from viper_e2e.encoders.backbone import Backbone, at_least_float32
from viper_e2e.encoders.base import Stream
from viper_e2e.encoders.clip_view import ClipView
from viper_e2e.encoders.layers import joined, layers_read, means_of, normalised
from viper_e2e.encoders.prefix import PrefixEncoder, run_from_prefix, run_prefix
from viper_e2e.encoders.prepared import Prefix
from viper_e2e.encoders.sound import ClipSound, Frames, PiecePlan, Pieces, padded
from viper_e2e.encoders.weights import NOWHERE, Search

if TYPE_CHECKING:
    from viper_e2e.encoders.whisper import LogMel


class AudioEncoder(PrefixEncoder[ClipSound]):
    """wav2vec 2.0, HuBERT, WavLM, … , Whisper's encoder, or an x-vector head."""

    name = "audio"

    def __init__(
        self,
        config: AudioConfig,
        backbone: Backbone,
        preprocessor: Mapping[str, Any],
        *,
        sound: str,
        span_seconds: float,
        sample_rate: int,
    ):
        super().__init__()
        self.backbone = backbone
        self.is_xvector = config.head == "xvector"
        architecture = backbone.model.config
        self._layers = layers_read(config.layers, len(backbone.blocks()), "audio")
        width = len(self._layers) * architecture.hidden_size
        self.embed_dim = architecture.xvector_output_dim if self.is_xvector else width
        if isinstance(architecture, WhisperConfig):
            from viper_e2e.encoders.whisper import LogMel  # loads Whisper's model

            self.log_mel: LogMel | None = LogMel(preprocessor, architecture, config.padding)
            frames = Frames(stride=320, first=0, minimum=1)
            normalises = False
        else:
            self.log_mel = None
            frames = Frames.of(architecture.conv_kernel, architecture.conv_stride)
            normalises = bool(preprocessor.get("do_normalize", True))
        limit = round(config.max_piece_seconds * sample_rate)
        longest = limit if self.log_mel is None else min(limit, self.log_mel.num_samples)
        self.pieces = Pieces(sound, span_seconds, sample_rate, longest, frames, normalises)

    @classmethod
    def of_model(cls, config: ModelConfig, search: Search) -> AudioEncoder:
        decoding = config.decoding
        return cls.build(config.audio, decoding.sound, decoding.span_seconds, decoding.sample_rate, search)

    @classmethod
    def build(
        cls,
        config: AudioConfig,
        sound: str,
        span_seconds: float,
        sample_rate: int,
        search: Search = NOWHERE,
    ) -> AudioEncoder:
        """``sound``, ``span_seconds``, ``sample_rate`` as in ``DecodingConfig``."""
        backbone, preprocessor = audio_backbone(config, sound, sample_rate, search)
        return cls(
            config, backbone, preprocessor, sound=sound, span_seconds=span_seconds, sample_rate=sample_rate
        )

    def compile_targets(self, device: torch.device) -> list[nn.Module]:
        # Pieces of few lengths: Whisper's padded ones, or windows of one second; else waveforms of any length.
        return [self.backbone.model] if self.log_mel is not None or self.pieces.sound == "windows" else []

    def example_input(self) -> ClipSound:
        """The sound around an instant."""
        seconds = self.pieces.span_seconds if self.pieces.sound == "spans" else 1.0
        generator = torch.Generator().manual_seed(0)
        device = next(self.parameters()).device
        sound = torch.randn(round(seconds * self.pieces.sample_rate), generator=generator).to(device)
        return ClipSound([(0.0, sound)], torch.tensor([seconds / 2], device=device), seconds)

    def inputs(self, clip: ClipView) -> ClipSound:
        instants = clip.sound_instants
        # Its own instants all exist, whatever the number of frames; so do windows, and what is not there.
        is_by_frame = clip.is_readable and instants is None and self.pieces.sound == "spans"
        seconds = clip.seconds if instants is None else instants
        return ClipSound(clip.sound(), seconds, clip.sound_seconds, clip.used if is_by_frame else None)

    def forward(self, inputs: Sequence[ClipSound]) -> Stream:
        """A token per instant and clip, not present where nothing was heard; clips with fewer than T instants
        end in such tokens. Their times are the instants (``spans``) or the centres of the windows.

        Frozen: one clip at a time, unpadded, so that a clip's tokens never depend on other clips. Trained: the
        pieces of all clips together, those of equal length in one pass.
        """
        plans = [self.pieces.plan(clip) for clip in inputs]
        if self.is_frozen:
            encoded = [self._encode(p.pieces) for p in plans]
        else:
            together = iter(self._together(plans, inputs))
            encoded = [[next(together) for _ in p.pieces] for p in plans]
        made = [self._tokens(p, hidden) for p, hidden in zip(plans, encoded, strict=True)]
        length = max((len(p.seconds) for p in plans), default=0)
        device = next(self.backbone.parameters()).device
        tokens, present, used, seconds = (
            torch.stack([padded(x, length) for x in column]).to(device)
            for column in (
                [t for t, _ in made],
                [p for _, p in made],
                [_used(clip) for clip in inputs],
                [p.seconds.float() for p in plans],
            )
        )
        is_learning = self.training and torch.is_grad_enabled() and not self.is_frozen
        if is_learning and not any(p.pieces for p in plans):
            # No sound anywhere: the parameters stay in the graph, for processes that wait for their gradients.
            # A tone, since the deviation of pure silence, which x-vectors hold, has no gradient.
            length = self.pieces.sample_rate if self.pieces.sound == "windows" else self.pieces.frames.minimum
            tone = torch.sin(0.2 * torch.arange(length, device=device))
            tokens = tokens + 0.0 * sum(x.sum() for x in self._encode([tone]))
        return Stream(tokens, present, used, seconds)

    # --- partly trained ---------------------------------------------------------------------------

    @property
    def has_prefix(self) -> bool:
        return not self.is_xvector and super().has_prefix

    def encode_prefix(self, inputs: ClipSound) -> Prefix:
        pieces = self.pieces.plan(inputs).pieces
        made = [run_prefix(self.backbone, self._batch([piece]), self._layers) for piece in pieces]
        earlier = [self._side_by_side(read, hidden) for hidden, read in made]
        return Prefix(self.prefix_id(), tuple(hidden for hidden, _ in made), tuple(earlier))

    def inputs_from_prefix(self, clip: ClipView, prefix: Prefix) -> ClipSound:
        return self.inputs(clip)._replace(prefix=prefix)

    def _together(self, plans: list[PiecePlan], inputs: Sequence[ClipSound]) -> list[Float[Tensor, "_ D"]]:
        """Hidden states of all pieces of all clips."""
        pieces = [piece for plan in plans for piece in plan.pieces]
        kept = [clip.prefix for clip in inputs if clip.prefix is not None]
        if not kept:
            return self._encode(pieces)
        hidden = [one for prefix in kept for one in prefix.hidden]
        earlier = [one for prefix in kept for one in prefix.earlier]
        return self._in_passes(
            pieces,
            [one.shape[1] for one in hidden],
            lambda members: self._pass_from_prefix([hidden[i] for i in members], [earlier[i] for i in members]),
        )

    def _pass_from_prefix(
        self, hidden: list[Float[Tensor, "1 F D"]], earlier: list[Float[Tensor, "1 F E"]]
    ) -> Float[Tensor, "N F K"]:
        least = torch.zeros(1, device=hidden[0].device)
        last, later = run_from_prefix(self.backbone, torch.cat(hidden), self._batch([least]), self._layers)
        states = [torch.cat(earlier), self._side_by_side(later, last), at_least_float32(last)]
        return torch.cat(states, -1)

    def _side_by_side(
        self, states: Sequence[Float[Tensor, "N F D"]], like: Float[Tensor, "N F D"]
    ) -> Float[Tensor, "N F E"]:
        """Layers before the last, E = D × their number; ``like``: of none."""
        return torch.cat([normalised(state) for state in states], -1) if states else like.float()[..., :0]

    def _tokens(
        self, plan: PiecePlan, hidden: list[Float[Tensor, "_ D"]]
    ) -> tuple[Float[Tensor, "T D"], Bool[Tensor, "T"]]:
        count = len(plan.seconds)
        like = next(self.backbone.parameters())
        if not hidden:
            dtype = torch.promote_types(like.dtype, torch.float32)
            return like.new_zeros(count, self.embed_dim, dtype=dtype), like.new_zeros(count, dtype=torch.bool)
        return means_of(torch.cat(hidden), self.pieces.belongs(plan, [len(one) for one in hidden]))

    # --- samples to hidden states ---------------------------------------------------------------

    def _encode(self, pieces: list[Float[Tensor, "_"]]) -> list[Float[Tensor, "_ D"]]:
        """Hidden states (or one x-vector) per piece; pieces of equal length share a pass."""
        whole = self.log_mel
        lengths = [len(piece) if whole is None else whole.padded_length(len(piece)) for piece in pieces]
        return self._in_passes(pieces, lengths, lambda members: self._pass([pieces[i] for i in members]))

    def _in_passes(
        self,
        pieces: list[Float[Tensor, "_"]],
        lengths: list[int],
        run: Callable[[list[int]], Float[Tensor, "N F D"]],
    ) -> list[Float[Tensor, "_ D"]]:
        """``run`` gets the numbers of pieces of one length."""
        groups: dict[int, list[int]] = {}
        for i, length in enumerate(lengths):
            groups.setdefault(length, []).append(i)
        hidden: dict[int, Float[Tensor, "_ D"]] = {}
        for members in groups.values():
            batch = run(members)
            for i, states in zip(members, batch, strict=True):
                heard = self.pieces.frames.number(len(pieces[i])) if self.log_mel is not None else len(states)
                hidden[i] = states[:heard]
        return [hidden[i] for i in range(len(pieces))]

    def _pass(self, pieces: list[Float[Tensor, "_"]]) -> Float[Tensor, "N F D"]:
        backbone, model, several = self.backbone, self.backbone.model, len(self._layers) > 1
        inputs = self._batch(pieces)
        with backbone.computing(inputs.device):
            if self.is_xvector:
                return at_least_float32(model(backbone.as_input(inputs)).embeddings[:, None])
            return self._joined(model(backbone.as_input(inputs), output_hidden_states=several))

    def _batch(self, pieces: list[Float[Tensor, "_"]]) -> Float[Tensor, "N ..."]:
        """Input of the backbone for pieces of one length."""
        device = next(self.backbone.model.parameters()).device
        if self.log_mel is not None:
            return self.log_mel([piece.to(device) for piece in pieces])
        inputs = torch.stack(pieces).to(device)
        return nn.functional.pad(inputs, (0, max(0, self.pieces.frames.minimum - inputs.shape[1])))

    # A model's own output, whose fields differ from family to family.
    def _joined(self, output: Any) -> Float[Tensor, "N F D"]:
        hidden = output.hidden_states if len(self._layers) > 1 else None
        return at_least_float32(joined(output.last_hidden_state, hidden, self._layers))


def _used(clip: ClipSound) -> Bool[Tensor, "T"]:
    return torch.ones_like(clip.seconds, dtype=torch.bool) if clip.used is None else clip.used
