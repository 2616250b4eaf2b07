"""parsers.py: the parser of `viper train`, made once: that takes four times as long as to parse with it."""

from __future__ import annotations

from viper_e2e.commands import parsing
from viper_e2e.config import ModelConfig

_PARSERS: dict[tuple[str, str, str], object] = {}
make_parser = parsing._train_parser


def kept_parser(preset: str, prog: str, model: ModelConfig | None) -> object:
    """As `make_parser`."""
    key = (preset, prog, repr(model))
    if key not in _PARSERS:
        _PARSERS[key] = make_parser(preset, prog, model)
    return _PARSERS[key]


def keep_parsers() -> None:
    """From here on, in this process."""
    parsing._train_parser = kept_parser
