"""loading: clips from shards and files to decoded batches, in the order of an epoch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
