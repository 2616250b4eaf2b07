"""decoding: clip bytes -> frames and sound, as NumPy arrays; loads no torch."""

from .again import AgainFrom, close_up
from .decoder import ClipDecoder
from .magic import sniff
from .probe import ClipInfo, probe

__all__ = ["AgainFrom", "ClipDecoder", "ClipInfo", "close_up", "probe", "sniff"]
