"""base.py: the contract of a modality: what an encoder reads of a clip, and a batch of it -> tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, ItemsView, Iterable, Sequence, ValuesView
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from viper_e2e.clip import CropSpec
from viper_e2e.config import ModelConfig, modality
from viper_e2e.encoders.backbone import Backbone
from viper_e2e.encoders.clip_view import ClipView
from viper_e2e.encoders.lora import without_untrained
from viper_e2e.encoders.parameter_budget import BUILDING_ERRORS, reason_of
from viper_e2e.encoders.prepared import ClipTokens, TokenCache, WeightsId
from viper_e2e.encoders.weights import Search, tensors_sha256
from viper_e2e.errors import ViperError
from viper_e2e.loading import TIME_LIMIT_SECONDS
from viper_e2e.runtime import digest

Input = TypeVar("Input")
"""Input of an encoder for one clip."""


class Stream(NamedTuple):
    """Tokens of one modality. Absence is a mask, never a branch."""

    tokens: Float[Tensor, "B T D"]
    """Zeros where nothing is present."""
    present: Bool[Tensor, "B T"]
    """Something was seen or heard here; elsewhere fusion puts a learned missing token."""
    used: Bool[Tensor, "B T"]
    """The slot exists; a clip with fewer distinct frames than T leaves the rest unused (masked out)."""
    seconds: Float[Tensor, "B T"]
    """Presentation time of each slot on the clip's clock, float32."""


class Account(NamedTuple):
    """Notes for people on what an encoder read of a clip."""

    words: str | None = None
    """The words that were read."""
    notes: tuple[str, ...] = ()
    """See `DecodedClip.notes`."""


class Encoders(nn.ModuleDict):
    """Encoders by modality."""

    if TYPE_CHECKING:
        # torch takes them for modules alone.
        def __getitem__(self, key: str) -> Encoder[Any]: ...
        def items(self) -> ItemsView[str, Encoder[Any]]: ...
        def values(self) -> ValuesView[Encoder[Any]]: ...

    @classmethod
    def of_model(cls, config: ModelConfig, modalities: Iterable[str], search: Search) -> Encoders:
        """Build the encoders of a model's settings, with the weights that a search finds.

        `ViperError` for files and settings that make no encoder: they come from strangers, and libraries raise
        all kinds of errors when they read them.
        """
        return cls({name: cls._one(config, name, search) for name in modalities})

    @staticmethod
    def _one(config: ModelConfig, name: str, search: Search) -> Encoder[Any]:
        try:
            return modality(name).encoder_class().of_model(config, search)
        except ViperError:
            raise
        except BUILDING_ERRORS as error:
            raise ViperError(
                f"{name}: cannot be built from the files and settings of its backbone ({reason_of(error)}); "
                "fetch them again, or use those that the model was published with"
            ) from error

    def account(self, clip: ClipView) -> Account:
        """Notes on a clip beside its numbers, from all of them."""
        told = [encoder.account(clip) for encoder in self.values()]
        words = next((one.words for one in told if one.words is not None), None)
        return Account(words, tuple(note for one in told for note in one.notes))


class Encoder(nn.Module, ABC, Generic[Input]):
    """Turns one modality into tokens. Subclasses hold their `Backbone`s as attributes.

    `config/modalities.py` says what it needs of a clip and where its settings are. The model that has them
    decodes, finds faces and lays out slots by these needs alone, calls `encode` of each, and knows
    nothing else of any of them.
    """

    name: str
    """Name of the modality."""
    embed_dim: int
    """D of the tokens."""
    crop_spec: CropSpec | None = None
    """How it wants faces cut, if it needs them."""
    clip_timeout_seconds: float = TIME_LIMIT_SECONDS
    """How long a clip may take in a worker; for encoders that measure in a process of their own."""

    @classmethod
    @abstractmethod
    def of_model(cls, config: ModelConfig, search: Search) -> Encoder:
        """Build the encoder of a model's settings, with the weights that a search finds."""

    @abstractmethod
    def inputs(self, clip: ClipView) -> Input:
        """Input for one clip. An unreadable clip has one blank frame and no sound."""

    @abstractmethod
    def forward(self, inputs: Sequence[Input]) -> Stream:
        """A token for each slot of each clip; those of a clip that cannot be read are not present.

        Trained, a batch of whatever is absent must run every parameter: processes wait for their gradients.
        """

    @property
    def reads_whole_frames(self) -> bool:
        """Whether they have to be kept beside the parts around the face that were decoded again, larger."""
        return False

    def account(self, clip: ClipView) -> Account:
        """Notes on a clip beside its numbers."""
        return Account()

    def example_input(self) -> Input:
        """Noise from which a token is made, to measure how long that takes; of encoders with a backbone."""
        raise NotImplementedError(f"{type(self).__name__}.example_input")

    def compile_targets(self, device: torch.device) -> list[nn.Module]:
        """Modules worth compiling, since their inputs keep their shapes."""
        return []

    def encode(self, clips: Sequence[ClipView], cache: TokenCache | None = None) -> Stream:
        """Tokens of a batch. Frozen: clip by clip, so that none depends on the others, and none is encoded
        again whose tokens are in the cache or came with the clip."""
        if not self.is_frozen:
            return self([self.inputs_to_train(clip, cache) for clip in clips])
        with torch.no_grad():
            rows = [self._tokens_of(clip, cache) for clip in clips]
        return Stream(*(torch.stack(column) for column in zip(*rows, strict=True)))

    def inputs_to_train(self, clip: ClipView, cache: TokenCache | None) -> Input:
        """Input for one clip while something in here trains; of a `PrefixEncoder` with what is frozen of it."""
        return self.inputs(clip)

    def _tokens_of(self, clip: ClipView, cache: TokenCache | None) -> ClipTokens:
        if clip.prepared is None:
            nothing = clip.seconds.new_zeros(len(clip.seconds), self.embed_dim)
            absent = torch.zeros_like(clip.used)
            return ClipTokens(nothing, absent, torch.ones_like(clip.used), clip.seconds)
        if clip.is_changed(self.name):
            # Of this pass alone: what is kept must be what an unchanged clip gives.
            return self._encode_one(clip)
        cache = TokenCache() if cache is None else cache
        return cache.tokens(clip.prepared, self.name, self.weights_id(), lambda: self._encode_one(clip))

    def _encode_one(self, clip: ClipView) -> ClipTokens:
        return ClipTokens(*(rows[0] for rows in self([self.inputs(clip)])))

    # --- weights ----------------------------------------------------------------------------------

    def weights_id(self) -> WeightsId:
        """Equal as long as this very encoder has the weights it has now: whose tokens a clip's are.

        Every change in place (loading, an optimizer) counts up a tensor's version; a change of dtype or device
        replaces tensors and is counted by itself.
        """
        stores = sum(backbone.num_stores for backbone in self.backbones().values())
        return self._owner(), stores, sum(parameter._version for parameter in self.parameters())

    def _owner(self) -> object:
        return self.__dict__.setdefault("_identity", object())

    def content_id(self) -> str:
        """Identity of its weights, as they are stored now: equal for another encoder of the
        same class with the same tensors, configurations and word lists, wherever these came from, and whatever
        adapters begin with that have not been trained yet."""
        small = {
            f"{name}/{file}": sha256(content).hexdigest()
            for name, backbone in self.backbones().items()
            for file, content in backbone.origin.small_files.items()
        }
        kind = type(self)
        tensors = without_untrained(self.state_dict())
        return digest([kind.__module__, kind.__qualname__, tensors_sha256(tensors), small])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Encoder:
        self.__dict__["_identity"] = object()
        return super()._apply(fn, recurse)

    def backbones(self) -> dict[str, Backbone]:
        """Backbones by name, the main one first."""
        return {child.name: child for child in self.children() if isinstance(child, Backbone)}

    @property
    def is_frozen(self) -> bool:
        """Nothing in here is trained: clips are encoded one by one, and never depend on one another."""
        return all(backbone.is_frozen for backbone in self.backbones().values())

    def to_compute_dtype(self, dtype: torch.dtype) -> None:
        """Store what is frozen in ``dtype`` and run the rest under autocast to it."""
        for backbone in self.backbones().values():
            backbone.to_compute_dtype(dtype)

    def records(self) -> dict[str, dict[str, Any]]:
        """Backbones that a checkpoint may leave out: never trained, and with a source to be found again."""
        records = {name: backbone.record() for name, backbone in self.backbones().items()}
        return {name: record for name, record in records.items() if record is not None}

    def save_assets(self, folder: Path) -> None:
        """Write config, preprocessor and tokenizer files to ``folder/<backbone>/``; no weights."""
        for name, backbone in self.backbones().items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            for file, content in backbone.origin.small_files.items():
                (folder / name / file).write_bytes(content)
