"""textual.py: face crops -> the sentences that fit them, embedded: CLIP weighs a bank of descriptions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from viper_e2e.config import BackboneConfig, ModelConfig, TextualConfig
from viper_e2e.encoders.backbone import Backbone, at_least_float32, contains_any
from viper_e2e.encoders.building import (
    build_model,
    check_align,
    find_blocks,
    pooler_off,
    read_architecture,
)
from viper_e2e.encoders.face_encoder import FaceEncoder
from viper_e2e.encoders.image_text import ImageTextModel, load_image_text
from viper_e2e.encoders.tokenization import read_tokenizer
from viper_e2e.encoders.weights import NOWHERE, Search, find
from viper_e2e.errors import ViperError
from viper_e2e.runtime import plain_json

MAX_SENTENCES = 4_096
MAX_CHARACTERS = 400
_BANK_FILE = "sentences.json"
_OURS = resources.files("viper_e2e").joinpath("sentences.txt")
_NO_GRADIENT = (
    "an argmax passes no gradient, so it cannot train under textual.choice hard; set it to soft, or leave "
    "image_text frozen"
)


class TextualEncoder(FaceEncoder):
    """CLIP weighs the sentences of a bank by how well they fit a crop; a text encoder embeds them.

    After Vaiani et al. 2022: `hard` is theirs, the best-fitting sentence. `soft` is its expectation under
    CLIP's own softmax, through which gradients reach CLIP.
    """

    name = "textual"
    _clip_tokens: Tensor
    _directions: Tensor | None
    _sentences: Tensor | None

    def __init__(
        self,
        config: TextualConfig,
        image_text: ImageTextModel,
        sentence_encoder: Backbone | None,
        tokenize: Callable[..., Mapping[str, Tensor]] | None,
        sentences: list[str],
    ):
        super().__init__()
        self.choice = config.choice
        self.sentences = sentences
        check_align("textual", config.crop, config.align)
        self.crop_spec = replace(image_text.crop_spec(is_paper=config.crop == "paper"), align=config.align)
        model = image_text.model
        self.image_text = Backbone(
            "image_text",
            model,
            image_text.origin,
            config.image_text,
            blocks=find_blocks(model.visual),
            top=contains_any("visual.proj", "logit_scale"),
            # Only the image tower and the logit scale train: the bank is fixed points to measure against.
            idle=lambda name: not name.startswith("visual.") and name != "logit_scale",
            never_trains=None if config.choice == "soft" else _NO_GRADIENT,
        )
        self.sentence_encoder = sentence_encoder
        self.num_text_passes = 0
        """How often the bank passed the text encoders; frozen ones see it once per load."""
        self.embed_dim = (
            sentence_encoder.model.config.hidden_size if sentence_encoder is not None else image_text.embed_dim
        )
        self.register_buffer("_clip_tokens", image_text.tokenize(sentences), persistent=False)
        for key, ids in (tokenize(sentences) if tokenize is not None else {}).items():
            self.register_buffer(f"_{key}", ids, persistent=False)
        self._token_keys = tuple(tokenize(sentences)) if tokenize is not None else ()
        self._forget_bank()
        self.register_load_state_dict_post_hook(lambda module, _: module._forget_bank())

    @classmethod
    def of_model(cls, config: ModelConfig, search: Search) -> TextualEncoder:
        return cls.build(config.textual, search)

    @classmethod
    def build(cls, config: TextualConfig, search: Search = NOWHERE) -> TextualEncoder:
        """See ``VisualEncoder.build``. ``overrides["sentence_bank"]`` replaces a checkpoint's own bank."""
        own_bank = search.small_files("image_text")
        bank = search.overrides.get("sentence_bank") or (own_bank / _BANK_FILE if own_bank else config.bank)
        sentences = read_bank(bank)
        image_text = load_image_text(config.image_text, search)
        image_text.origin.small_files[_BANK_FILE] = json.dumps(sentences, indent=1, ensure_ascii=False).encode()
        if config.sentence_encoder is None:
            return cls(config, image_text, None, None, sentences)
        encoder, tokenize = _sentence_encoder(config.sentence_encoder, config.max_sentence_tokens, search)
        return cls(config, image_text, encoder, tokenize, sentences)

    def to_compute_dtype(self, dtype: torch.dtype) -> None:
        """See `Encoder`. The bank is embedded again with the weights as they are stored then: what a resumed
        run or a loaded checkpoint has are these, so when it is embedded makes no difference."""
        super().to_compute_dtype(dtype)
        self._forget_bank()

    def embed(self, pixels: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N D"]:
        """Crops cut by ``crop_spec`` (normalised) -> embedding of what fits them; float32."""
        directions, tokens = self._embedded_bank()
        cosines = self._cosines(pixels, directions)
        if self.choice == "hard":
            return tokens[cosines.argmax(1)]
        with torch.autocast(pixels.device.type, enabled=False):
            weights = (self.image_text.model.logit_scale.exp().to(cosines.dtype) * cosines).softmax(1)
            return weights @ tokens.to(weights.dtype)

    def compile_targets(self, device: torch.device) -> list[nn.Module]:
        # On a CPU its own fused attention is faster (2.5 times in bfloat16: `benchmarks/RESULTS.md`). The text
        # encoders see the sentences once.
        return [] if device.type == "cpu" else [self.image_text.model.visual]

    @torch.no_grad()
    def choices(self, pixels: Float[Tensor, "N 3 S S"]) -> Int[Tensor, "N"]:
        """Index of the sentence that fits each crop best."""
        return self._cosines(pixels, self._embedded_bank()[0]).argmax(1)

    def _cosines(
        self, pixels: Float[Tensor, "N 3 S S"], directions: Float[Tensor, "K E"]
    ) -> Float[Tensor, "N K"]:
        backbone = self.image_text
        with backbone.computing(pixels.device):
            faces = at_least_float32(backbone.model.encode_image(backbone.as_input(pixels)))
        with torch.autocast(pixels.device.type, enabled=False):
            return F.normalize(faces, dim=-1) @ directions.to(faces.dtype).T

    # --- the bank -------------------------------------------------------------------------------

    def _forget_bank(self) -> None:
        """Weights have changed: whatever was embedded with the old ones is void."""
        self.register_buffer("_directions", None, persistent=False)
        self.register_buffer("_sentences", None, persistent=False)

    def _embedded_bank(self) -> tuple[Float[Tensor, "K E"], Float[Tensor, "K D"]]:
        """CLIP's unit vectors and the tokens of all sentences: once per load, or per forward where trained."""
        if self._directions is None:
            # Kept for later passes that may want gradients, so no inference tensors.
            with torch.inference_mode(False), torch.no_grad():
                clip_text = self._clip_pass()
                self._directions = F.normalize(clip_text, dim=-1)
                if self.sentence_encoder is None:
                    self._sentences = clip_text
                else:
                    self._sentences = self._sentence_pass(self.sentence_encoder)
        if self.sentence_encoder is not None and not self.sentence_encoder.is_frozen:
            self._sentences = None
            return self._directions, self._sentence_pass(self.sentence_encoder)
        if self._sentences is None:
            assert self.sentence_encoder is not None, "else CLIP's own stand there"
            self._sentences = self._sentence_pass(self.sentence_encoder)
        return self._directions, self._sentences

    def _clip_pass(self) -> Float[Tensor, "K E"]:
        self.num_text_passes += 1
        # In float32 whatever the weights are stored in: cosines are multiplied by a hundred before the softmax.
        with self.image_text.computing_exactly(self._clip_tokens.device, _is_of_text):
            return at_least_float32(self.image_text.model.encode_text(self._clip_tokens))

    def _sentence_pass(self, encoder: Backbone) -> Float[Tensor, "K D"]:
        self.num_text_passes += 1
        inputs = {key: getattr(self, f"_{key}") for key in self._token_keys}
        with encoder.computing(self._clip_tokens.device):
            return at_least_float32(encoder.model(**inputs).last_hidden_state[:, 0])


def _is_of_text(name: str) -> bool:
    return not name.startswith("visual.")


def _sentence_encoder(
    config: BackboneConfig, max_tokens: int, search: Search
) -> tuple[Backbone, Callable[[list[str]], Mapping[str, Tensor]]]:
    """A text encoder of the Hugging Face family (RoBERTa, BERT, …) and its tokeniser."""
    found = find("sentence_encoder", config, search)
    if found.small is None:
        raise ViperError(
            "sentence_encoder: random weights have no tokeniser; name a hub id or folder, or leave it out"
        )
    architecture = read_architecture(found, config)
    model_class = MODEL_MAPPING[type(architecture)]
    model, origin = build_model(found, search, architecture, model_class, **pooler_off(model_class))
    backbone = Backbone(
        "sentence_encoder", model, origin, config, blocks=find_blocks(model), idle=contains_any("pooler.")
    )
    tokenizer = read_tokenizer(found)

    def tokenize(sentences: list[str]) -> Mapping[str, Tensor]:
        return tokenizer(
            sentences, return_tensors="pt", padding="max_length", max_length=max_tokens, truncation=True
        )

    return backbone, tokenize


def read_bank(path: str | Path | None) -> list[str]:
    """Sentences of a bank: a JSON list, or text with one a line (``#`` begins a comment line). ``None``: ours.

    ``ViperError`` for a file that is not one, fewer than 2 or more than 4,096 sentences, an empty or repeated
    one, or one of more than 400 characters.
    """
    sentences = _lines(_OURS.read_text(encoding="utf-8")) if path is None else _listed(Path(path).expanduser())
    if not isinstance(sentences, list) or not all(isinstance(s, str) for s in sentences):
        raise ViperError(f"sentence bank {path}: a JSON list of strings is expected")
    if not 2 <= len(sentences) <= MAX_SENTENCES:
        raise ViperError(
            f"sentence bank {path}: has {len(sentences)} sentences; allowed are 2 to {MAX_SENTENCES}"
        )
    seen: set[str] = set()
    for number, sentence in enumerate(sentences, 1):
        if not sentence.strip() or len(sentence) > MAX_CHARACTERS:
            raise ViperError(
                f"sentence bank {path}: sentence {number} has {len(sentence)} characters; "
                f"allowed are 1 to {MAX_CHARACTERS}"
            )
        if sentence in seen:
            raise ViperError(f"sentence bank {path}: sentence {number} is listed twice: {sentence[:60]!r}")
        seen.add(sentence)
    return sentences


def _listed(path: Path) -> object:
    advice = "a sentence bank is a JSON list of strings, or text with a sentence a line"
    text = plain_json.read_text(path, advice=advice)
    is_json = path.suffix == ".json"
    return plain_json.parsed(text, str(path), error=ViperError, advice=advice) if is_json else _lines(text)


def _lines(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
