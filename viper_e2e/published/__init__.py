"""published: the authors' released checkpoints, read without running them -> our folder format."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
