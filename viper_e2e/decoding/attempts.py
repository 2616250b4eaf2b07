"""attempts.py: attempts to read a clip, each with what the one before has found."""

from __future__ import annotations

from dataclasses import dataclass, replace

from viper_e2e.errors import ClipError


class ReadAgain(Exception):
    """A clip is not as it was taken for: `Attempt.after` tells how to read it from its beginning."""


class FieldsFound(ReadAgain):
    """A wanted frame is of two fields: it needs its neighbours, which are not being decoded."""


class TornEnd(ReadAgain):
    """The last frame of a recording that breaks off anywhere, as cameras split them, is not whole."""


class RescanNeeded(ReadAgain):
    """A file goes on unlike its packets say: no frame for one that shows one, or another after a seek."""


@dataclass(frozen=True)
class Attempt:
    """One reading of a clip; the first takes it for what its packets say."""

    by_decoding: bool = False
    """The decoder is asked which frames there are, as some packets have no picture of their own (placeholders,
    intra refresh)."""
    has_fields: bool = False
    """Frames may be interlaced, and are decoded with those beside them."""
    is_torn: bool = False
    """The last frame is none."""

    def after(self, reason: ReadAgain, clip: str) -> Attempt:
        """The next one; `ClipError` where none would end otherwise."""
        if isinstance(reason, FieldsFound):
            return replace(self, has_fields=True)
        if isinstance(reason, TornEnd):
            return replace(self, is_torn=True)
        if self.by_decoding:
            message = "decodes to different frames each time; copy the file again"
            raise ClipError(message, stage="decode", clip=clip) from None
        return replace(self, by_decoding=True)
