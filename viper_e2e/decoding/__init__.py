"""decoding: clip bytes -> frames and sound, as NumPy arrays; loads no torch."""

from viper_e2e.clip import AgainFrom
from viper_e2e.decoding.again import close_up
from viper_e2e.decoding.decoder import ClipDecoder
from viper_e2e.decoding.magic import sniff
from viper_e2e.decoding.probe import ClipInfo, probe

__all__ = ["AgainFrom", "ClipDecoder", "ClipInfo", "close_up", "probe", "sniff"]
