"""cache.py: tokens that frozen encoders made of clips, so that no clip is encoded twice by the same weights."""

from __future__ import annotations

from dataclasses import replace

from viper_e2e.encoders.prepared import ClipTokens, Prefix, PreparedClip, WeightsId
from viper_e2e.errors import ViperError


class TokenCache:
    """Tokens by clip and modality, for as long as its owner keeps it: a step, or several looks at a batch.

    Whoever wants tokens to be used again passes one along; without it a pass leaves nothing behind. A clip is
    the very object that was encoded, kept here so that no other takes its place.
    """

    def __init__(self) -> None:
        self._made: dict[int, PreparedClip] = {}
        """By the identity of each clip: the clip, with its tokens."""
        self._clips: list[PreparedClip] = []

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
        """What these weights made of the clip before the first trained block; otherwise as `find`."""
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
