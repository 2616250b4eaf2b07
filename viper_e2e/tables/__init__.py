"""tables: a person's table of clips and labels -> rows and a label set; what is odd in it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
