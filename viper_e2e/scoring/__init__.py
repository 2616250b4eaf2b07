"""scoring: every clip of a source scored once, and measures over all of them."""

import lazy_loader

from viper_e2e.moved import with_former_names

__getattr__, __dir__, __all__ = with_former_names(__name__, lazy_loader.attach_stub(__name__, __file__))
