"""words.py: words of a clip -> a token for each moment, by any text encoder of transformers."""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from viper_e2e.clip import Cue
from viper_e2e.config import ModelConfig, WordsConfig
from viper_e2e.encoders.backbone import Backbone, at_least_float32, contains_any
from viper_e2e.encoders.base import Account, Encoder, Stream
from viper_e2e.encoders.building import build_model, find_blocks, pooler_off, read_architecture
from viper_e2e.encoders.clip_view import ClipView
from viper_e2e.encoders.layers import joined, layers_read, means_of
from viper_e2e.encoders.tokenization import Tokenizer, byte_tokenizer, tokenizer_of
from viper_e2e.encoders.weights import NOWHERE, Found, Search, find
from viper_e2e.errors import ViperError

EXAMPLE = "what a surprise"


class ClipWords(NamedTuple):
    """Words of one clip, as the encoder reads them."""

    pieces: list[Int[Tensor, " _"]]
    """Token ids, the special ones included, of a text in pieces that a model takes; none: nothing is said."""
    token_seconds: list[float]
    """When each token of all pieces, without the special ones, is said; NaN: at a time that nobody noted."""
    frame_seconds: Float[Tensor, " N"]
    frame: Int[Tensor, " T"]
    """Number of the frame that each slot shows."""
    used: Bool[Tensor, " T"]


class WordsEncoder(Encoder[ClipWords]):
    """BERT, RoBERTa, XLM-RoBERTa, DistilBERT, DeBERTa, …

    A text is encoded as a whole, so that each word is read with those around it. What is said at a known time
    belongs to the frame nearest to it, and a frame's token is the mean of what belongs to it; what is said at a
    time that nobody noted belongs to all frames. Slots and their times are those of the frames whatever is
    said, so that a clip whose words are hidden is one without words.
    """

    name = "words"

    def __init__(self, config: WordsConfig, backbone: Backbone, tokenizer: Tokenizer):
        super().__init__()
        self.backbone, self.tokenizer, self.max_tokens = backbone, tokenizer, config.max_tokens
        self._layers = layers_read(config.layers, len(backbone.blocks()), "words")
        self.embed_dim = len(self._layers) * backbone.model.config.hidden_size
        room = _num_positions(backbone.model) - len(tokenizer.before) - len(tokenizer.after)
        self._piece_tokens = min(config.piece_tokens, room)
        if self._piece_tokens < 1:
            raise ViperError(f"words: {backbone.origin.spec} has room for special tokens only")

    @classmethod
    def of_model(cls, config: ModelConfig, search: Search) -> WordsEncoder:
        return cls.build(config.words, search)

    @classmethod
    def build(cls, config: WordsConfig, search: Search = NOWHERE) -> WordsEncoder:
        """Build from settings, and for a saved checkpoint from its folder of assets and records."""
        found = find("words", config.backbone, search)
        architecture = read_architecture(found, config.backbone)
        model_class = _model_class(architecture, found)
        tokenizer = byte_tokenizer() if found.spec == "random" else tokenizer_of(found)
        model, origin = build_model(found, search, architecture, model_class, **pooler_off(model_class))
        num_embeddings = model.get_input_embeddings().weight.shape[0]
        if tokenizer.size > num_embeddings:
            raise ViperError(
                f"words: the tokenizer of {found.spec} knows {tokenizer.size} tokens, its model "
                f"{num_embeddings}; do they belong together?"
            )
        idle = contains_any("pooler.")
        backbone = Backbone("words", model, origin, config.backbone, blocks=find_blocks(model), idle=idle)
        return cls(config, backbone, tokenizer)

    def inputs(self, clip: ClipView) -> ClipWords:
        return self._inputs(clip.words, clip.frame_seconds, clip.frame, clip.used)

    def example_input(self) -> ClipWords:
        first = torch.zeros(1, dtype=torch.long, device=next(self.parameters()).device)
        return self._inputs([Cue(EXAMPLE)], first.float(), first, first == 0)

    def account(self, clip: ClipView) -> Account:
        text, read = _text_of(clip.words), self._read(clip.words)
        if read.num_tokens <= self.max_tokens:
            return Account(text)
        most = f"the first {self.max_tokens:,} are read (words.max_tokens)"
        return Account(text[: read.num_letters], (f"of its words, {read.num_tokens:,} tokens, {most}",))

    def forward(self, inputs: Sequence[ClipWords]) -> Stream:
        if self.is_frozen:
            # Alone and unpadded, so that no clip's tokens depend on other clips.
            states = [[self._encode([piece])[0] for piece in clip.pieces] for clip in inputs]
        else:
            together = iter(self._encode([piece for clip in inputs for piece in clip.pieces]))
            states = [[next(together) for _ in clip.pieces] for clip in inputs]
        made = [self._by_frame(clip, of_clip) for clip, of_clip in zip(inputs, states, strict=True)]
        tokens, present, used, seconds = (
            torch.stack(list(column))
            for column in zip(
                *(
                    (of_frames[clip.frame], there[clip.frame], clip.used, clip.frame_seconds[clip.frame])
                    for clip, (of_frames, there) in zip(inputs, made, strict=True)
                ),
                strict=True,
            )
        )
        is_learning = self.training and torch.is_grad_enabled() and not self.is_frozen
        if is_learning and not any(clip.pieces for clip in inputs):
            # No words anywhere: the parameters stay in the graph, for processes that wait for their gradients.
            tokens = tokens + 0.0 * self._encode(self.example_input().pieces)[0].sum()
        return Stream(tokens, present, used, seconds)

    # --- text to tokens ---------------------------------------------------------------------------

    def _inputs(
        self,
        cues: Sequence[Cue],
        frame_seconds: Float[Tensor, " N"],
        frame: Int[Tensor, " T"],
        used: Bool[Tensor, " T"],
    ) -> ClipWords:
        read, own = self._read(cues), self.tokenizer
        pieces = [
            torch.tensor(
                [*own.before, *read.ids[first : first + self._piece_tokens], *own.after], device=frame.device
            )
            for first in range(0, len(read.ids), self._piece_tokens)
        ]
        return ClipWords(pieces, read.seconds, frame_seconds, frame, used)

    def _read(self, cues: Sequence[Cue]) -> _Read:
        if not cues:
            return _Read([], [], 0, 0)
        starts = list(accumulate((len(cue.text) + 1 for cue in cues), initial=0))
        made = self.tokenizer.tokens(_text_of(cues))
        ids, spans = made.ids[: self.max_tokens], made.spans[: self.max_tokens]
        seconds = []
        for first, last in spans:
            middle = (first + last) / 2
            number = min(bisect_right(starts, middle), len(cues)) - 1
            seconds.append(_moment(cues[number], (middle - starts[number]) / max(1, len(cues[number].text))))
        return _Read(ids, seconds, len(made.ids), spans[-1][1] if spans else 0)

    # --- tokens to hidden states ------------------------------------------------------------------

    def _encode(self, pieces: list[Int[Tensor, " _"]]) -> list[Float[Tensor, "_ D"]]:
        """Hidden states of each piece without those of its special tokens; all pieces in one pass."""
        if not pieces:
            return []
        backbone, several = self.backbone, len(self._layers) > 1
        lengths = torch.tensor([len(piece) for piece in pieces], device=pieces[0].device)
        ids = nn.utils.rnn.pad_sequence(pieces, batch_first=True, padding_value=self.tokenizer.pad)
        mask = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        with backbone.computing(ids.device):
            output = backbone.model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=several)
        hidden = output.hidden_states if several else None
        states = at_least_float32(joined(output.last_hidden_state, hidden, self._layers))
        first, after = len(self.tokenizer.before), len(self.tokenizer.after)
        return [row[first : len(piece) - after] for row, piece in zip(states, pieces, strict=True)]

    def _by_frame(
        self, clip: ClipWords, states: list[Float[Tensor, "_ D"]]
    ) -> tuple[Float[Tensor, "N D"], Bool[Tensor, " N"]]:
        """The mean of the words at each frame, and whether there are any."""
        like, count = next(self.backbone.parameters()), len(clip.frame_seconds)
        if not states:
            dtype = torch.promote_types(like.dtype, torch.float32)
            return like.new_zeros(count, self.embed_dim, dtype=dtype), like.new_zeros(count, dtype=torch.bool)
        said = torch.tensor(clip.token_seconds, dtype=torch.float64)
        apart = (clip.frame_seconds.cpu().double()[:, None] - said).abs()
        belongs = (torch.arange(count)[:, None] == apart.nan_to_num(0.0).argmin(0)) | said.isnan()
        return means_of(torch.cat(states), belongs)


class _Read(NamedTuple):
    """Tokens of some cues."""

    ids: list[int]
    seconds: list[float]
    num_tokens: int
    """Tokens of all words."""
    num_letters: int
    """Letters that the ids stand for."""


def _text_of(cues: Sequence[Cue]) -> str:
    return " ".join(cue.text for cue in cues)


def _moment(cue: Cue, share: float) -> float:
    """When a word is said that stands at this share of a cue's letters, as if all took equally long."""
    if cue.start_seconds is None or cue.end_seconds is None:
        return math.nan
    return cue.start_seconds + min(max(share, 0.0), 1.0) * (cue.end_seconds - cue.start_seconds)


def _model_class(architecture: PretrainedConfig, found: Found) -> type[PreTrainedModel]:
    kind = architecture.model_type
    if not hasattr(architecture, "vocab_size") or type(architecture) not in MODEL_MAPPING:
        raise ViperError(
            f"words: {found.spec} is a {kind}, which does not read text; allowed are bert, roberta, …"
        )
    if architecture.is_encoder_decoder:
        raise ViperError(f"words: {found.spec} is a {kind}, which generates text; allowed are bert, roberta, …")
    return MODEL_MAPPING[type(architecture)]


def _num_positions(model: PreTrainedModel) -> int:
    """Number of tokens that a model takes at once."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa and its kin count from behind the padding's index.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - first
    return int(getattr(model.config, "max_position_embeddings", sys.maxsize))
