"""prepared.py: a clip after decoding and face finding, and the tokens that frozen encoders made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from viper_e2e.clip import Cue
from viper_e2e.errors import ViperError
from viper_e2e.faces import FaceCropper, FaceRegions, FaceTrack

WeightsId = tuple[object, ...]
"""Equal as long as an encoder has the weights it has now; see `Encoder.weights_id`."""


class ClipTokens(NamedTuple):
    """Tokens of one clip by a frozen encoder: a row of its `Stream`."""

    tokens: Float[Tensor, "T D"]
    present: Bool[Tensor, " T"]
    used: Bool[Tensor, " T"]
    seconds: Float[Tensor, " T"]


class Prefix(NamedTuple):
    """Output of the frozen front of a partly trained backbone for one clip: see `prefix.py`."""

    made_by: WeightsId
    hidden: tuple[Float[Tensor, "N L D"], ...]
    """Input of the first trained block, for each part of the clip that runs by itself."""
    earlier: tuple[Float[Tensor, "N ..."], ...]
    """Earlier layers that the encoder reads, for each part; the last dimension is empty if it reads none."""

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.hidden, *self.earlier))


@dataclass(frozen=True, eq=False)
class PreparedClip:
    """One clip on the module's device, between the detector and the encoders. No pass changes it."""

    name: str
    seconds: Float[Tensor, " N"]
    """Presentation time of each distinct frame."""
    duration_seconds: float
    track: FaceTrack
    pixels: UInt8[Tensor, "N H W 3"] | FaceRegions | None
    """Whole frames; the parts around the face, of a cached clip; a small face decoded again; or nothing."""
    sound: list[tuple[float, Float[Tensor, " _"]]]
    """Runs: start in seconds, samples."""
    sound_seconds: float
    sound_instants: Float[Tensor, " T"] | None
    """When the tokens of sound are; ``None``: at the frames."""
    units: Float[Tensor, "R U"] | None
    """Precomputed action units, spread evenly over the clip."""
    display_size: tuple[int, int]
    frame_size: tuple[int, int]
    """Width, height of the decoded frames; the boxes are in these pixels."""
    unheard_seconds: float = 0.0
    """See `DecodedClip`."""
    notes: tuple[str, ...] = ()
    """See `DecodedClip`."""
    words: tuple[Cue, ...] = ()
    """The words said in it, in order."""
    frames: UInt8[Tensor, "N H W 3"] | None = None
    """Whole frames beside the parts in `pixels`, where something looks at them."""
    tokens: Mapping[str, ClipTokens] = field(default_factory=dict)
    """Tokens by frozen encoders, by modality; `TokenCache.with_tokens` puts them here."""
    made_by: Mapping[str, WeightsId] = field(default_factory=dict)
    """Whose tokens they are, as `Encoder.weights_id` tells it: no other encoder takes them over."""
    prefixes: Mapping[str, Prefix] = field(default_factory=dict)
    """Prefixes for partly trained encoders, by modality; `TokenCache.with_tokens` puts them here."""
    is_reduced: bool = False
    """Whether it was reduced to the least, from which nothing can be encoded again."""

    def reduced(self, faces: FaceCropper, *, pixels: bool, sound: bool, aligned: bool = False) -> PreparedClip:
        """The least that makes a later pass bitwise equal: regions instead of frames, or none at all.

        ``aligned``: whether crops follow the eyes.
        """
        regions = self.pixels
        if not pixels:
            regions = None
        elif isinstance(regions, Tensor):
            regions = faces.regions(regions, self.track, aligned=aligned)
        return replace(
            self,
            pixels=regions,
            frames=None,
            sound=self.sound if sound else [],
            is_reduced=True,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors, and a letter's worth for each letter."""
        total = self.seconds.nbytes + sum(t.nbytes for t in self.track if isinstance(t, Tensor))
        total += sum(samples.nbytes for _, samples in self.sound)
        total += sum(len(cue.text) for cue in self.words)
        total += 0 if self.sound_instants is None else self.sound_instants.nbytes
        total += sum(t.nbytes for kept in self.tokens.values() for t in kept)
        total += sum(prefix.nbytes for prefix in self.prefixes.values())
        if self.pixels is not None:
            total += self.pixels.nbytes if isinstance(self.pixels, Tensor) else self.pixels.num_bytes
        total += 0 if self.frames is None else self.frames.nbytes
        return total + (0 if self.units is None else self.units.nbytes)


class TokenCache:
    """Tokens by clip and modality, for as long as its owner keeps it: a step, or several looks at a batch.

    Pass one along to use tokens again; without it a pass leaves nothing behind. A clip is
    the very object that was encoded, kept here so that no other takes its place.
    """

    def __init__(self) -> None:
        self._made: dict[int, PreparedClip] = {}
        """Clips with their tokens, by the identity of each clip."""
        self._clips: list[PreparedClip] = []

    def tokens(
        self, clip: PreparedClip, modality: str, made_by: WeightsId, make: Callable[[], ClipTokens]
    ) -> ClipTokens:
        """Tokens that these weights made of the clip; else they are made now, and kept."""
        tokens = self.find(clip, modality, made_by)
        if tokens is None:
            self.keep(clip, modality, made_by, tokens := make())
        return tokens

    def prefix(
        self, clip: PreparedClip, modality: str, made_by: WeightsId, make: Callable[[], Prefix]
    ) -> Prefix:
        """The prefix that these weights made of the clip; else it is made now, and kept."""
        prefix = self.find_prefix(clip, modality, made_by)
        if prefix is None:
            self.keep_prefix(clip, modality, prefix := make())
        return prefix

    def find(self, clip: PreparedClip, modality: str, made_by: WeightsId) -> ClipTokens | None:
        """Tokens that these weights made of the clip, here or before it was cached.

        `ViperError` for a cached clip whose tokens are of other weights: nothing of it is left to encode.
        """
        kept = self.with_tokens(clip)
        if modality not in kept.tokens:
            return None
        if kept.made_by[modality] == made_by:
            return kept.tokens[modality]
        if clip.is_reduced:
            raise _of_other_weights(clip)
        return None

    def find_prefix(self, clip: PreparedClip, modality: str, made_by: WeightsId) -> Prefix | None:
        """Find the prefix that these weights made of the clip; otherwise as `find`."""
        prefix = self.with_tokens(clip).prefixes.get(modality)
        if prefix is None or prefix.made_by == made_by:
            return prefix
        if clip.is_reduced:
            raise _of_other_weights(clip)
        return None

    def keep(self, clip: PreparedClip, modality: str, made_by: WeightsId, tokens: ClipTokens) -> None:
        kept = self.with_tokens(clip)
        self._keep(
            clip,
            replace(
                kept, tokens={**kept.tokens, modality: tokens}, made_by={**kept.made_by, modality: made_by}
            ),
        )

    def keep_prefix(self, clip: PreparedClip, modality: str, prefix: Prefix) -> None:
        kept = self.with_tokens(clip)
        self._keep(clip, replace(kept, prefixes={**kept.prefixes, modality: prefix}))

    def _keep(self, clip: PreparedClip, more: PreparedClip) -> None:
        if id(clip) not in self._made:
            self._clips.append(clip)
        self._made[id(clip)] = more

    def with_tokens(self, clip: PreparedClip) -> PreparedClip:
        """The clip with its tokens, those that it came with and those that were made of it since."""
        return self._made.get(id(clip), clip)


def _of_other_weights(clip: PreparedClip) -> ViperError:
    return ViperError(f"{clip.name}: was cached for another model, or for other weights; prepare it again")
