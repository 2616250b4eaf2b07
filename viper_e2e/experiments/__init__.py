"""experiments: many runs of one command: seeds, ensembles, sweeps, cross-validation, in one encoding pass."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
