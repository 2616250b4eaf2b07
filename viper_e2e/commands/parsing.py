"""parsing.py: the command line and YAML files of `viper train` -> settings of a run."""

from __future__ import annotations

from argparse import SUPPRESS
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import reduce
from pathlib import Path

from viper_e2e.commands.backbone_arguments import (
    depths_of,
    with_frozen,
    with_lora,
    with_sources,
)
from viper_e2e.commands.command_line import print_settings, take_files
from viper_e2e.commands.reading_options import with_reading_options
from viper_e2e.commands.train_arguments import normal_words, without_unfreeze, words_of_files
from viper_e2e.commands.train_help import is_help, train_help
from viper_e2e.commands.usage import Parser
from viper_e2e.config import (
    PRESETS,
    TRAIN_DEFAULTS,
    Depths,
    ModelConfig,
    Settings,
    SettingsFile,
    TrainConfig,
    TrainOptions,
    check_options,
    check_settings,
    flat,
    plain,
    recipe_words,
    with_own_settings,
    with_settings,
)
from viper_e2e.errors import ExitCode, ViperError


def parse_train(
    argv: Sequence[str], prog: str, beside: object = None, files: Sequence[SettingsFile] = ()
) -> Settings:
    """Settings of a training run: preset, then ``--config FILE.yaml``, then the command line.

    A resumed run begins with its own settings in place of a preset's. ``beside``, ``files``: the options of
    another command that trains, and the files that it has read, which may hold both (`parse_beside_train`).
    ``--print-config`` checks and prints the settings as such a file, ``--help`` prints what there is to set;
    both raise `SystemExit` (0).
    """
    words = tuple(argv)
    own = {} if beside is None else plain(beside)
    more, argv = take_files(argv, prog)
    argv = normal_words(argv)
    is_shown = "--print_config" in argv
    argv = [word for word in argv if word != "--print_config"]
    preset = _preset_of(argv, prog)
    if is_help(argv):
        print(train_help(argv, preset, prog), end="")
        raise SystemExit(ExitCode.OK)
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
    from viper_e2e.commands.settings_parser import settings_parser

    parser = settings_parser(preset, prog, is_new=is_new)
    parser.files = files
    parsed = parser.instantiate(parser.parse_args(argv))
    train = TrainConfig(**{field.name: getattr(parsed, field.name) for field in fields(TrainConfig)})
    options = TrainOptions(**{field.name: getattr(parsed, field.name) for field in fields(TrainOptions)})
    check_options(options)
    model: ModelConfig = parsed.model
    given = {word[2:].partition("=")[0] for word in argv if word.startswith("--")}
    if is_new:
        given |= _differing(Settings(train, model, options.preset))
    model, frozen = _with_short_words(model, options, train)
    train = replace(train, unfreeze=depths_of(model, depths.updated(frozen), typed))
    told = frozenset(name for name, _ in (*frozen.rows, *typed.rows))
    return Settings(train, model, options.preset, given=frozenset(given)), told


def _with_short_words(
    model: ModelConfig, options: TrainOptions, train: TrainConfig
) -> tuple[ModelConfig, Depths]:
    """Settings after options that stand for several, and the backbones that are frozen."""
    changes: dict[str, object] = {}
    if options.modalities:
        changes["modalities"] = tuple(options.modalities.split(","))
    if options.head:
        changes["fusion.kind"] = options.head
    # Of the model, so that evaluation and inference divide as training did.
    changes["fusion.rescale"] = model.fusion.rescale or train.rescale
    model = with_own_settings(with_settings(model, changes))
    model, frozen = with_frozen(with_sources(model, options.backbone), options.freeze)
    model = with_lora(model, options.lora)
    return replace(model, decoding=with_reading_options(model.decoding, options)), frozen


def _differing(settings: Settings) -> set[str]:
    """Names of settings that are not as their preset has them."""
    preset = settings.preset
    usual = flat(Settings(TrainConfig(**TRAIN_DEFAULTS[preset]), PRESETS[preset](), preset).to_dict())
    return {name for name, value in flat(settings.to_dict()).items() if value != usual.get(name)}


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
