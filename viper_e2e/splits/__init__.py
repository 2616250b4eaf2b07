"""splits: which clips train and which are held out: folds that share no people, and what two sets share."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
