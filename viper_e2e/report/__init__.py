"""report: output for people: tables, figures, rendered clips, the HTML page; nothing heavy is imported."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
