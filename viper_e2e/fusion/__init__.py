"""fusion: token streams of all modalities -> intensities, by one of several heads."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
