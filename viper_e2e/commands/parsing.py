"""parsing.py: the command line and YAML files of `viper train` -> settings of a run."""

from __future__ import annotations

from argparse import SUPPRESS, Action, HelpFormatter
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cache, reduce
from pathlib import Path
from typing import NoReturn, get_args, get_type_hints

import jsonargparse
from jsonargparse.typing import register_type

from viper_e2e.commands.backbone_arguments import (
    apply_lora,
    backbone_of,
    depths_of,
    frozen_by,
    named_values,
)
from viper_e2e.commands.command_line import print_settings, take_files
from viper_e2e.commands.reading_options import add_reading_options, apply_reading_options, reading_options
from viper_e2e.commands.train_arguments import normal_words, without_unfreeze, words_of_files
from viper_e2e.commands.usage import Parser, usage_error
from viper_e2e.config import (
    PRESETS,
    TRAIN_DEFAULTS,
    TRAIN_GROUPS,
    WORDED,
    Depths,
    FusionConfig,
    ModelConfig,
    Settings,
    SettingsFile,
    TrainConfig,
    check_settings,
    flat,
    plain,
    recipe_words,
    with_dashes,
)
from viper_e2e.errors import ViperError

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
for _kind in WORDED:
    register_type(_kind, str, _kind.parse)


class _SettingsParser(jsonargparse.ArgumentParser):
    files: Sequence[SettingsFile] = ()
    """Those of ``--config``, for messages about them."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        usage_error(self.prog, message, self._option_string_actions, self.files)

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        # Settings are written with dashes on the command line; underscores are understood as well.
        return with_dashes(super().format_help(formatter))


class _Help(HelpFormatter):
    """Shows a default where there is one to speak of."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34, width=110)

    def _get_help_string(self, action: Action) -> str:
        text = (action.help or "").replace("%", "%%")  # they are our docstrings, not templates
        return text if action.default in (None, "", False, SUPPRESS) else f"{text} (default: %(default)s)"


# --- training settings ----------------------------------------------------------------------------


def parse_train(
    argv: Sequence[str], prog: str, beside: object = None, files: Sequence[SettingsFile] = ()
) -> Settings:
    """Settings of a training run: preset, then ``--config FILE.yaml``, then the command line.

    A resumed run begins with its own settings in place of a preset's. ``beside``, ``files``: the options of
    another command that trains, and the files that it has read, which may hold both (`parse_beside_train`).
    With ``--print-config`` the settings are checked and printed as such a file, and `SystemExit` (0) is raised.
    """
    words = tuple(argv)
    own = {} if beside is None else plain(beside)
    more, argv = take_files(argv, prog)
    argv = normal_words(argv)
    is_shown = "--print_config" in argv
    argv = [word for word in argv if word != "--print_config"]
    preset = _preset_of(argv, prog)
    saved = _saved_settings(argv, prog)
    files = [*([] if saved is None else [SettingsFile.read(saved)]), *files, *more]
    told_by_files, in_files = words_of_files(file.without(own) for file in files)
    argv, typed = without_unfreeze(argv)
    argv = [*told_by_files, *argv]
    # What the words and the files add to is what the preset trains; a resumed run has its own.
    depths = Depths() if saved is not None else TRAIN_DEFAULTS[preset].get("unfreeze", Depths())
    depths = reduce(Depths.updated, in_files, depths)
    if saved is None and any("recipe" in word for word in argv):
        # Its words depend on others, and stand before them all.
        first, told = _settings(argv, prog, preset, depths, typed, files, is_new=True)
        if first.train.recipe != "none":
            argv = [*recipe_words(first, told), *argv]
    settings, _ = _settings(argv, prog, preset, depths, typed, files, is_new=saved is None)
    check_settings("--", {"": settings.train, "model.": settings.model})
    if is_shown:
        # A name that both have means the command's own.
        print_settings({**own, **{k: v for k, v in settings.to_dict().items() if k not in own}})
    _need(settings.train.train_shards, "--train-shards", prog)
    _need(settings.train.run_dir, "--run-dir", prog)
    return replace(settings, words=words)


def _settings(
    argv: Sequence[str],
    prog: str,
    preset: str,
    depths: Depths,
    typed: Depths,
    files: Sequence[SettingsFile],
    *,
    is_new: bool,
) -> tuple[Settings, frozenset[str]]:
    """And the backbones of which the command line says whether, or which of their blocks, train.

    ``depths``, ``typed``: of backbones, by preset and files, and by ``--unfreeze``. ``files``: for messages.
    """
    is_short = bool({"-h", "--help"} & set(argv))
    parser = _train_parser(preset, prog, is_new=is_new, is_short=is_short)
    parser.files = files
    parsed = parser.instantiate(parser.parse_args(argv))
    train = TrainConfig(**{field.name: getattr(parsed, field.name) for field in fields(TrainConfig)})
    model = parsed.model
    given = {word[2:].partition("=")[0] for word in argv if word.startswith("--")}
    if is_new:
        given |= _differing(Settings(train, model, parsed.preset))
    if parsed.modalities:
        model.modalities = tuple(parsed.modalities.split(","))
    if parsed.head:
        model.fusion.kind = parsed.head
    for backbone, source in named_values(parsed.backbone or [], "--backbone", "visual=PATH"):
        backbone_of(model, backbone).source = source
    # Of the model, so that evaluation and inference divide as training did.
    model.fusion.rescale = model.fusion.rescale or train.rescale
    frozen = frozen_by(model, parsed.freeze)
    train.unfreeze = depths_of(model, depths.updated(frozen), typed)
    apply_lora(model, parsed.lora)
    apply_reading_options(model.decoding, reading_options(parsed))
    told = frozenset(name for name, _ in (*frozen.rows, *typed.rows))
    return Settings(train, model, parsed.preset, given=frozenset(given)), told


def _differing(settings: Settings) -> set[str]:
    """Names of settings that are not as their preset has them."""
    preset = settings.preset
    usual = flat(Settings(TrainConfig(**TRAIN_DEFAULTS[preset]), PRESETS[preset](), preset).to_dict())
    return {name for name, value in flat(settings.to_dict()).items() if value != usual.get(name)}


@cache
def _train_parser(preset: str, prog: str, *, is_new: bool, is_short: bool) -> _SettingsParser:
    """Kept, since a sweep parses its words again for each trial and to make one takes four times as long as to
    parse with it. ``is_short``: without the settings of the model, for a short help."""
    parser = _SettingsParser(
        prog=prog,
        allow_abbrev=False,
        print_config=None,
        usage=f"{prog} --train-shards PATTERN --run-dir DIR [--preset NAME] [any setting]",
        description="Train from raw video shards.",
        epilog=None
        if is_short
        else "Settings under --model are saved with the weights. -q: quiet, -v: verbose.",
        formatter_class=_Help,
    )
    if is_short:
        parser.epilog = (
            "The model has many settings (--model.fusion.num-latents 64, --model.faces.margin 0.1, …): "
            "--print-config prints them with their values, --help-all says what each means. "
            "-q: quiet, -v: verbose."
        )
    parser.add_argument("--preset", default="base", choices=sorted(PRESETS), help="where settings start from")
    parser.add_argument("--config", action="config", help="YAML file with any of these settings")
    parser.add_argument("--modalities", help="e.g. visual,audio,textual (default: the preset's)")
    parser.add_argument(
        "--head",
        choices=get_args(get_type_hints(FusionConfig)["kind"]),
        help="what reads the tokens: a Perceiver (tokens, or concat as published); ridge: one pass over the "
        "clips, closed form, nothing else is trained; ensemble: half a ridge, half small networks "
        "(default: the preset's)",
    )
    parser.add_argument(
        "--freeze", help="backbones that are not trained, e.g. all or visual,audio; see --unfreeze"
    )
    parser.add_argument(
        "--lora", metavar="NAME=RANK", help="backbones that train only LoRA adapters, e.g. visual=8,audio=8"
    )
    parser.add_argument(
        "--backbone", action="append", metavar="NAME=SOURCE", help="hub id or folder, e.g. visual=PATH"
    )
    add_reading_options(parser)
    # `parse_train` takes it from the words: here it is for the help.
    parser.add_argument(
        "--print_config",
        action="store_true",
        default=SUPPRESS,
        help="print the settings as such a file and exit",
    )
    parser.add_argument("--help_all", action="help", help="this help with the model's settings")
    for group in TRAIN_GROUPS:
        parser.add_class_arguments(group)
    parser.set_defaults(TRAIN_DEFAULTS[preset])
    if not is_short:
        # What a saved run does not name was added to the package since: it had the default, whatever presets
        # have made of it by now.
        model = PRESETS[preset]() if is_new else ModelConfig()
        parser.add_argument("--model", type=ModelConfig, default=model)
    return parser


def _preset_of(argv: Sequence[str], prog: str) -> str:
    first = Parser(prog=prog, add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="base", choices=sorted(PRESETS), help=SUPPRESS)
    return first.parse_known_args(argv)[0].preset


def _saved_settings(argv: Sequence[str], prog: str) -> Path | None:
    """``config.yaml`` of the run that ``--resume --run-dir RUN`` names, if there is one."""
    first = Parser(prog=prog, add_help=False, allow_abbrev=False)
    first.add_argument("--run_dir", default="", help=SUPPRESS)
    first.add_argument("--resume", default="false", help=SUPPRESS)
    given = first.parse_known_args(argv)[0]
    path = Path(given.run_dir) / "config.yaml"
    return path if given.run_dir and given.resume == "true" and path.is_file() else None


def _need(value: str, option: str, prog: str) -> None:
    if not value:
        raise ViperError(f"{option} is missing (see {prog} --help)")
