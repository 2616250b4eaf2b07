"""train_help.py: `viper train --help`: the settings of a run and of its model, as their dataclasses say."""

from __future__ import annotations

from argparse import ArgumentParser, HelpFormatter
from collections.abc import Collection
from dataclasses import fields, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args, get_origin, get_type_hints

from viper_e2e.commands.command_line import parser_of
from viper_e2e.config import (
    PRESETS,
    TRAIN_DEFAULTS,
    TRAIN_GROUPS,
    TrainConfig,
    TrainOptions,
    field_docs,
    option_of,
    plain,
    title_of,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SHORT = (
    "The model has many settings (--model.fusion.num-latents 64, --model.faces.margin 0.1, …): --print-config "
    "prints them with their values, --help-all says what each means."
)
ALL = "Settings under --model are saved with the weights."
WIDEST_NAME = 34
"""Letters of an option beside which there is room for what it means."""


def is_help(words: Collection[str]) -> bool:
    return not {"-h", "--help", "--help-all", "--help_all"}.isdisjoint(words)


def train_help(words: Collection[str], preset: str, prog: str) -> str:
    """Help text, with the model's settings if the words ask for all; defaults are those of a preset."""
    is_short = {"--help-all", "--help_all"}.isdisjoint(words)
    return help_parser(preset, prog, is_short=is_short).format_help()


def help_parser(preset: str, prog: str, *, is_short: bool) -> ArgumentParser:
    """It knows every option of `viper train` and what it means, but reads none: that takes jsonargparse, which
    needs longer to be imported than all of this. ``is_short``: without the settings of the model."""
    parser = parser_of(TrainOptions, prog, SHORT if is_short else ALL)
    parser.usage = f"{prog} --train-shards PATTERN --run-dir DIR [--preset NAME] [any setting]"
    parser.formatter_class = partial(HelpFormatter, max_help_position=WIDEST_NAME)
    parser.add_argument("--help-all", action="store_true", help="this help with the model's settings")
    settings = TrainConfig(**TRAIN_DEFAULTS[preset])
    for kind in TRAIN_GROUPS:
        _add_group(parser, title_of(kind), "", settings, kind)
    if not is_short:
        model = PRESETS[preset]()
        _add_group(parser, title_of(type(model)), "model.", model, type(model))
    return parser


def _add_group(
    parser: ArgumentParser, title: str, prefix: str, settings: DataclassInstance, kind: type
) -> None:
    """The fields that ``kind`` declares; below them those of the dataclasses among them."""
    group = parser.add_argument_group(title)
    hints, docs = get_type_hints(kind), field_docs(kind)
    inner: list[tuple[str, str, DataclassInstance]] = []
    for field in fields(kind):
        name, value, told = prefix + field.name, getattr(settings, field.name), docs[field.name]
        if is_dataclass(value) and not isinstance(value, type):
            inner.append((told.removesuffix(".") or title_of(type(value)), f"{name}.", value))
            continue
        metavar = _values_of(hints[field.name]) or field.name.upper()
        group.add_argument(option_of(name), metavar=metavar, help=_meaning(told, value))
    for title_inside, prefix_inside, value in inner:
        _add_group(parser, title_inside, prefix_inside, value, type(value))


def _values_of(hint: object) -> str:
    """Those there are to choose from, if so few that they can be named."""
    choices = ("true", "false") if hint is bool else get_args(hint) if get_origin(hint) is Literal else ()
    return f"{{{','.join(choices)}}}" if choices else ""


def _meaning(told: str, value: object) -> str:
    """Docstrings are no templates; a default is named where there is one to speak of, as it would be typed."""
    data = plain(value)
    written = f"[{','.join(map(str, data))}]" if isinstance(data, list) else str(data)
    default = f" (default: {'true' if value is True else written})" if data else ""
    return (told + default).replace("%", "%%").strip()
