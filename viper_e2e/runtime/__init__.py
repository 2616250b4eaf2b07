"""runtime: the base of all commands: terminal, console, files, processes, devices."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
