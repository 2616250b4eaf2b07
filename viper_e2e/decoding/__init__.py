"""decoding: clip bytes -> frames and sound, as NumPy arrays; loads no torch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
