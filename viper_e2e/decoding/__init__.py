"""decoding: clip bytes -> frames and sound, as NumPy arrays; loads no torch."""

from .decoder import ClipDecoder
from .magic import sniff
from .probe import ClipInfo, probe

__all__ = ["ClipDecoder", "ClipInfo", "probe", "sniff"]
