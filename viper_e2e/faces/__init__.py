"""faces: frames -> boxes -> crops; the detector, the track of one face, the pixels an encoder sees."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
