"""shared_clips.py: clips that all trainings of one command hold in common, so that each is encoded once."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from viper_e2e.encoders import ClipTokens, PreparedClip, WeightsId, prefix_encoders
from viper_e2e.errors import ViperError
from viper_e2e.loading import Cacheable, ClipCache, ClipKey, Split
from viper_e2e.model import ClipContent, ViPER
from viper_e2e.runtime import TellOnce, free_bytes
from viper_e2e.shards import ShardSet

FREE_SHARE = 0.5
"""Share of the device's free memory for clips, unless `--reuse-memory` states a size."""


class _Place(NamedTuple):
    """Key of a cached clip: what it depends on besides itself, and the clip, both by content."""

    prepared: str
    clip: str


@dataclass(frozen=True)
class _Held:
    """One clip without its tokens, and these, each with the identity of what made them."""

    clip: PreparedClip
    tokens: dict[str, tuple[str, ClipTokens]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return self.clip.nbytes + sum(t.nbytes for _, tokens in self.tokens.values() for t in tokens)


class SharedClips:
    """One process's clips, for any number of trainings, one after the other.

    A clip is known by its content and by all that what is kept of it depends on (`ClipContent`), so that
    neither other shards with the same keys nor other weights or settings are ever taken for each other. Where
    trainings agree, the later ones find what the first has made; where they do not, each makes its own. What
    other trainings have left is dropped once room is short.
    """

    def __init__(
        self,
        budget_bytes: int | None = None,
        *,
        notes: TellOnce | None = None,
        speaks: bool = True,
        num_trainings: int = 1,
    ):
        """``budget_bytes``: `None`: half of what the device has free when the first training begins.
        ``notes``: what these trainings have reported. ``speaks``: whether to report what cannot be shared.
        ``num_trainings``: there will be, as far as is known, for messages."""
        self.notes = notes or TellOnce()
        self._budget_bytes, self.speaks, self.num_trainings = budget_bytes, speaks, num_trainings
        self._store: ClipCache | None = None
        self._ids: dict[tuple[str, str], str] = {}
        """Shard and key → the clip's identity."""
        self._tokens: dict[str, str] = {}
        """Identity of the tokens wanted last, by modality."""
        self._is_used = False

    def of(self, train: ShardSet, val: ShardSet | None = None) -> HeldClips:
        """The clips of one training on these shards."""
        return HeldClips(self, train, val)

    def store(self, model: ViPER) -> ClipCache:
        if self._store is None:
            budget = self._budget_bytes
            if budget is None:
                budget = int(FREE_SHARE * free_bytes(model.device))
            self._store = ClipCache(budget)
        return self._store

    def clip_id(self, shards: ShardSet, i: int) -> str:
        """`ShardSet.clip_id`, asked once: for a foreign shard it reads the file."""
        where = shards.shard_of(i).path_or_url, shards.entry(i).key
        if where not in self._ids:
            self._ids[where] = shards.clip_id(i)
        return self._ids[where]

    def compare(self, content: ClipContent, trained: list[str]) -> None:
        """Tell what this training cannot take over from the one before."""
        other = [name for name, made in content.tokens.items() if self._tokens.get(name, made) != made]
        self._tokens |= content.tokens
        if other:
            self.tell(
                f"{', '.join(other)}: tokens are not shared with the training before, since weights (random "
                "ones depend on the seed) or settings that they depend on differ; clips are encoded again"
            )
        if trained:
            self.tell(
                f"{', '.join(trained)}: trained, so that clips are encoded in every epoch of every training, "
                "by all blocks or the trained ones; the rest is shared"
            )

    def is_first(self) -> bool:
        """Asked by each training once it holds clips: whether none did before."""
        is_first, self._is_used = not self._is_used, True
        return is_first

    def tell(self, line: str) -> None:
        """Once."""
        if self.speaks:
            self.notes.line(line)


class HeldClips:
    """One training's part of `SharedClips`, under its own keys; a `ClipStore`.

    ``begin`` comes before all else.
    """

    def __init__(self, shared: SharedClips, train: ShardSet, val: ShardSet | None):
        self._shared = shared
        self._shards: dict[Split, ShardSet] = {"train": train}
        if val is not None:
            self._shards["val"] = val
        self._indices = {
            ClipKey(split, shards.entry(i).key): i
            for split, shards in self._shards.items()
            for i in range(len(shards))
        }
        self._model: ViPER | None = None
        self._store = ClipCache(0)
        self._content: ClipContent | None = None
        self._made_by: dict[str, WeightsId] = {}
        self._useless: deque[_Place] = deque()

    def begin(self, model: ViPER, *, is_compiled: bool = False) -> None:
        """Begin with the model as it is trained or scored, in its precision and with its augmentation."""
        self._model, self._is_compiled = model, is_compiled
        frozen = [name for name, encoder in model.encoders.items() if encoder.is_frozen]
        if model.augment is not None:
            try:
                model.augment.check_holding(frozen, model.config.faces.hold_margin)
            except ViperError:
                self._shared.tell(
                    "--augment changes what is read of each clip in every epoch: nothing is shared, and every "
                    "training encodes its clips"
                )
                return
        self._store = self._shared.store(model)

    @property
    def budget_bytes(self) -> int:
        return self._store.budget_bytes

    @property
    def num_cached(self) -> int:
        return self._store.num_cached

    @property
    def nbytes(self) -> int:
        return self._store.nbytes

    def __contains__(self, key: ClipKey) -> bool:
        return self.get(key) is not None

    def get(self, key: ClipKey) -> PreparedClip | None:
        """The clip with the tokens of all frozen encoders, as if they had made them; else `None`."""
        content = self._settled()
        held = self._store.get(self._place(content, key))
        if not isinstance(held, _Held):
            return None
        tokens = {}
        for name, made in content.tokens.items():
            kept, of_clip = held.tokens.get(name, (None, None))
            if kept != made or of_clip is None:
                return None
            tokens[name] = of_clip
        assert self._model is not None
        encoders = prefix_encoders(self._model.encoders)
        # By content it is what this training's own encoders make.
        prefixes = {
            name: prefix._replace(made_by=encoders[name].prefix_id())
            for name, prefix in held.clip.prefixes.items()
        }
        return replace(held.clip, name=key.key, tokens=tokens, made_by=self._made_by, prefixes=prefixes)

    def offer(self, key: ClipKey, clip: Cacheable) -> bool:
        """Keep a clip that was made `cacheable`, beside what others have kept of it, if there is room."""
        content = self._settled()
        assert isinstance(clip, PreparedClip), "what a model made cacheable"
        assert clip.made_by == self._made_by, "made by the weights of now"
        place = self._place(content, key)
        known = self._store.get(place)
        held = known if isinstance(known, _Held) else _Held(replace(clip, tokens={}, made_by={}))
        own = {name: (made, clip.tokens[name]) for name, made in content.tokens.items()}
        held = replace(held, tokens={**held.tokens, **own})
        more = held.nbytes - (0 if known is None else known.nbytes)
        while self._useless and not self._store.has_room(more):
            self._store.drop(self._useless.popleft())
        return self._store.put(place, held)

    def clear(self) -> None:
        """Weights, or what of them trains, have changed: what is kept is looked at again."""
        self._content = None

    def _settled(self) -> ClipContent:
        if self._content is None:
            assert self._model is not None, "begin() comes first"
            model = self._model
            self._content = ClipContent.of(model, is_compiled=self._is_compiled)
            self._made_by = {name: model.encoders[name].weights_id() for name in self._content.tokens}
            places = [place for place in self._store.keys() if isinstance(place, _Place)]  # noqa: SIM118
            self._useless = deque(place for place in places if place.prepared != self._content.prepared)
            self._shared.compare(self._content, sorted(set(model.modalities) - self._content.tokens.keys()))
        return self._content

    def _place(self, content: ClipContent, key: ClipKey) -> _Place:
        return _Place(content.prepared, self._shared.clip_id(self._shards[key.split], self._indices[key]))
