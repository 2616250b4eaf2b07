"""command_line.py: a command's dataclass of options <-> its command line and its YAML file."""

from __future__ import annotations

import argparse
from argparse import SUPPRESS
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

from viper_e2e.commands.usage import Parser
from viper_e2e.config import GROUPS, WORDED, SettingsFile, check_options, option_of, plain, setting_of
from viper_e2e.errors import ExitCode, ViperError, did_you_mean, nearest

C = TypeVar("C")
VOLUME = {("-q", "--quiet"): "show only results and errors", ("-v", "--verbose"): "show every note"}
"""Options of every command; `cli.main` removes them before a command sees the words."""


def parse(kind: type[C], argv: Sequence[str], prog: str) -> C:
    """Options of a command: defaults, then ``--config FILE.yaml``, then the command line.

    Raises :class:`ViperError` for a file that cannot be read, ``SystemExit`` (1) for a wrong option.
    """
    files, argv = take_files(_as_declared(kind, with_dashed_names(argv)), prog)
    words = [word for file in files for word in _words_of(kind, file)]
    options, asked, rest = _parsed(kind, [*words, *argv], prog)
    if rest:
        parser_of(kind, prog).error(f"unrecognized arguments: {' '.join(rest)}")
    if asked.print_config:
        print_settings(plain(options))
    _refuse_missing(kind, options)
    return options


def _refuse_missing(kind: type, options: object) -> None:
    for field in fields(kind):
        if field.metadata["missing"] and not getattr(options, field.name):
            raise ViperError(field.metadata["missing"])


def parse_beside_train(
    kind: type[C], argv: Sequence[str], prog: str, epilog: str = ""
) -> tuple[C, list[SettingsFile], list[str]]:
    """Own options of a command that trains; the files of ``--config`` and the words that are for `parse_train`.

    A file may hold both: each takes what is its own.
    """
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # C is any dataclass
    files, argv = take_files(with_dashed_names(argv), prog)
    words = [word for file in files for word in _words_of(kind, file.only(names))]
    options, asked, rest = _parsed(kind, [*words, *argv], prog, epilog)
    shown = ["--print-config"] if asked.print_config else []
    return options, files, [*shown, *rest]


def _parsed(
    kind: type[C], words: Sequence[str], prog: str, epilog: str = ""
) -> tuple[C, argparse.Namespace, list[str]]:
    """Options, what was asked for beside them, and what is not understood."""
    parser = parser_of(kind, prog, epilog)
    parser.words = words
    own = fields(kind)  # type: ignore[arg-type]  # C is any dataclass
    is_mixed = any(field.metadata["positional"] for field in own)
    given, rest = (parser.parse_known_intermixed_args if is_mixed else parser.parse_known_args)(words)
    options: Any = kind(**{field.name: getattr(given, field.name) for field in own})
    check_options(options)
    return options, given, rest


def print_settings(settings: Mapping[str, Any]) -> NoReturn:
    """Print settings as a file for ``--config``, and exit."""
    import yaml

    print(yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True), end="")
    raise SystemExit(ExitCode.OK)


def parser_of(kind: type, prog: str, epilog: str = "") -> Parser:
    """argparse's parser of a dataclass of options; its docstring is the description."""
    parser = Parser(prog=prog, description=kind.__doc__, epilog=epilog or None, allow_abbrev=False)
    hints = get_type_hints(kind)
    groups = {name: parser.add_argument_group(title) for name, title in GROUPS.items()}
    for field in _own_first(kind):
        group = groups.get(field.metadata["group"], parser)
        _add(group, field, hints[field.name])
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="YAML file with any of these options"
    )
    parser.add_argument("--print-config", action="store_true", help="print the options as such a file and exit")
    for names, told in VOLUME.items():
        parser.add_argument(*names, action="store_true", default=SUPPRESS, help=told)
    return parser


def _own_first(kind: type) -> Iterator[Field]:
    """A command's own options before those that it shares with others."""
    by_name = {field.name: field for field in fields(kind)}
    for owner in kind.__mro__:
        for name in getattr(owner, "__annotations__", {}):
            if name in by_name:
                yield by_name.pop(name)


def _add(parser: argparse._ActionsContainer, field: Field, hint: object) -> None:
    how = how_to_read(field, hint)
    if how.get("type") in WORDED:
        how["type"] = _reader(how["type"].parse)
    parser.add_argument(field.name if field.metadata["positional"] else option_of(field.name), **how)


def how_to_read(field: Field, hint: object) -> dict[str, Any]:
    """Arguments of argparse's `add_argument` for a command's option. ``hint``: the field's type."""
    told = field.metadata
    how: dict[str, Any] = {"help": _help_of(field)}
    if told["metavar"]:
        how["metavar"] = told["metavar"]
    kind = _without_none(hint)
    if kind is bool:
        how["action"] = "store_true"
    elif get_origin(kind) is Literal:
        how["choices"] = get_args(kind)
    elif get_origin(kind) is list:
        how |= {"nargs": "+"} if told["positional"] else {"action": "append"}
    elif kind is not str:
        how["type"] = kind
    if told["bare"] is not None:
        how |= {"nargs": "?", "const": told["bare"]}
    if not told["positional"]:
        is_required = field.default is MISSING and field.default_factory is MISSING
        how |= {"required": True} if is_required else {"default": _default_of(field)}
    return how


def _reader(parse: Callable[[str], C]) -> Callable[[str], C]:
    """Parser of a word for argparse, which prints the message only of its own kind of error."""

    def read(word: str) -> C:
        try:
            return parse(word)
        except ViperError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _default_of(field: Field) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _help_of(field: Field) -> str:
    text = field.metadata["help"].replace("%", "%%")
    has_default = field.default not in (MISSING, None, "", False) and "(default" not in text
    if not has_default:
        return text
    shown = f"{field.default:g}" if isinstance(field.default, float) else field.default
    return f"{text} (default: {shown})"


def _without_none(hint: object) -> Any:
    if get_origin(hint) not in (Union, UnionType):
        return hint
    (kind,) = (part for part in get_args(hint) if part is not NoneType)
    return kind


def with_dashed_names(argv: Sequence[str]) -> list[str]:
    """``--batch_size=A_B`` → ``--batch-size=A_B``: both spellings are understood by every command."""
    words = []
    for word in argv:
        name, equals, value = word.partition("=")
        words.append(option_of(setting_of(name)) + equals + value if name.startswith("--") else word)
    return words


def _as_declared(kind: type, argv: Sequence[str]) -> list[str]:
    """``--missing -99,NA`` → ``--missing=-99,NA``: argparse takes what begins with a dash for an option.

    ``--render CLIP`` → ``--render= CLIP`` beside ``--out``: what follows is never the name of a video to write.
    """
    words = list(argv)
    for field in fields(kind):
        option, beside = option_of(field.name), option_of(field.metadata["bare_beside"] or "")
        if field.metadata["bare_beside"] and any(word.partition("=")[0] == beside for word in words):
            words = [f"{word}=" if word == option else word for word in words]
        if field.metadata["dashed"]:
            words = _with_values(words, option)
    return words


def _with_values(argv: Sequence[str], option: str) -> list[str]:
    words = list(argv)
    for place in range(len(words) - 2, -1, -1):
        if words[place] == option and not words[place + 1].startswith("--"):
            words[place : place + 2] = [f"{option}={words[place + 1]}"]
    return words


# --- YAML files -----------------------------------------------------------------------------------


def take_files(argv: Sequence[str], prog: str) -> tuple[list[SettingsFile], list[str]]:
    """Files of ``--config``, each read once, since it may be a pipe or change meanwhile; and the other words.

    Raises as `read_settings_file`.
    """
    first = Parser(prog=prog, add_help=False, allow_abbrev=False)
    first.add_argument("--config", action="append", default=[])
    given, rest = first.parse_known_args(argv)
    return [SettingsFile.read(Path(path)) for path in given.config], rest


def _words_of(kind: type, file: SettingsFile) -> Iterator[str]:
    """A file as words of a command line, so that both are checked alike."""
    path, by_name = file.path, {field.name: field for field in fields(kind)}
    for name, value in file.values.items():
        field = by_name.get(setting_of(name))
        if field is None:
            raise ViperError(f"{path}: has no option {name!r}{did_you_mean(nearest(str(name), by_name))}")
        option = option_of(field.name)
        for single in value if isinstance(value, list) else [value]:
            if isinstance(single, dict | list):
                raise ViperError(f"{path}: {name}: give one value or a list of values")
            if single is None or single is False:
                continue
            yield (
                str(single)
                if field.metadata["positional"]
                else option
                if single is True
                else f"{option}={single}"
            )
