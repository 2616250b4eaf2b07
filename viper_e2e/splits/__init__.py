"""splits: parts of a corpus to train on and to hold out: folds that share no people, overlaps of two sets."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
