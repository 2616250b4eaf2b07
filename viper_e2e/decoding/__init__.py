"""decoding: clip bytes -> frames and sound, as NumPy arrays; loads no torch."""

from .container import ClipInfo, probe, sniff
from .decoder import ClipDecoder

__all__ = ["ClipDecoder", "ClipInfo", "probe", "sniff"]
