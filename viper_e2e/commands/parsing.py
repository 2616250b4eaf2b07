"""parsing.py: command lines and YAML files <-> settings; an unknown name is told the nearest one."""

from __future__ import annotations

import difflib
import re
import sys
from argparse import SUPPRESS, Action, ArgumentParser, HelpFormatter
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

import jsonargparse
import yaml

from viper_e2e.commands.reading_options import add_reading_options, apply_reading_options
from viper_e2e.config.bounds import check_options, check_settings
from viper_e2e.config.presets import PRESETS, TRAIN_DEFAULTS
from viper_e2e.config.schema import BackboneConfig, FusionConfig, ModelConfig, TrainConfig, backbones_of
from viper_e2e.config.settings import Settings, flat
from viper_e2e.errors import ViperError

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)


class Parser(ArgumentParser):
    """argparse whose mistakes cost one line: what was wrong, the nearest name, exit code 1."""

    def error(self, message: str) -> NoReturn:
        _usage_error(self.prog, message, self._option_string_actions)

    def parse_known_args(self, *given: Any, **more: Any) -> tuple[Any, list[str]]:
        options, rest = super().parse_known_args(*given, **more)
        check_options(options)
        return options, rest


class _SettingsParser(jsonargparse.ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        _usage_error(self.prog, message, self._option_string_actions)

    def format_help(self) -> str:
        # Settings are written with dashes on the command line; underscores are understood as well.
        return re.sub(r"--[a-z][\w.]*", lambda match: match[0].replace("_", "-"), super().format_help())


class _Help(HelpFormatter):
    """Shows a default where there is one to speak of."""

    def _get_help_string(self, action: Action) -> str:
        text = (action.help or "").replace("%", "%%")  # they are our docstrings, not templates
        return text if action.default in (None, "", False, SUPPRESS) else f"{text} (default: %(default)s)"


def _usage_error(prog: str, message: str, options: Iterable[str]) -> NoReturn:
    """One line on stderr, and exit code 1."""
    message = " ".join(message.split())
    on_command_line = re.search(r"unrecognized arguments: --([\w.-]+)", message)
    in_file = re.search(r"(?:Group '([\w.]+)' does not )?accept option '([\w.]+)'", message)
    if on_command_line or in_file:
        word = on_command_line[1] if on_command_line else ".".join(filter(None, in_file.groups()))
        word = word.replace("-", "_").lower()
        near = _nearest(word, [option.lstrip("-") for option in options if option.startswith("--")])
        if near and on_command_line:
            near = "--" + near.replace("_", "-")
        message += f"; did you mean {near}?" if near else f"; {TOLD[word]}" if word in TOLD else ""
    print(f"{prog}: {message} (see {prog} --help)", file=sys.stderr)
    raise SystemExit(1)


SYNONYMS = {
    "lr": "learning_rate learningrate rate step_size",
    "backbone_lr": "encoder_lr lr_backbone finetune_lr",
    "epochs": "epoch num_epochs n_epochs max_epochs num_train_epochs",
    "max_steps": "steps num_steps iterations max_iterations",
    "batch_size": "bs batch batchsize per_device_train_batch_size train_batch_size",
    "num_workers": "workers n_workers num_proc num_processes jobs threads num_threads dataloader_num_workers",
    "accumulation": "gradient_accumulation_steps gradient_accumulation grad_accum accumulate accum",
    "clip_norm": "max_grad_norm grad_clip gradient_clip gradient_clip_val clip_grad",
    "weight_decay": "wd decay l2",
    "schedule": "scheduler lr_scheduler lr_schedule lr_scheduler_type",
    "warmup_fraction": "warmup warmup_ratio warmup_steps warmup_epochs",
    "mixed_precision": "precision amp fp16 bf16 half dtype autocast",
    "device": "gpu gpus cuda cpu mps use_cuda no_cuda",
    "checkpoint": "ckpt model weights model_path checkpoint_path pretrained resume_from_checkpoint",
    "run_dir": "output_dir out_dir outdir save_dir logdir log_dir logging_dir run_folder project output out",
    "output": "out outfile output_file save csv json out_file save_csv results",
    "out": "output output_dir out_dir outdir folder save_dir",
    "train_shards": "train data dataset train_data train_dir data_dir shards",
    "val_shards": "val valid validation dev val_data validation_data eval_data eval_shards",
    "shards": "data dataset data_dir tars",
    "resume": "resume_from continue go_on",
    "seed": "random_seed manual_seed",
    "window_seconds": "window window_size win window_length chunk_seconds",
    "hop_seconds": "hop stride step overlap hop_size",
    "render": "video overlay draw annotate save_video",
    "plot": "figure curves timeline",
    "report": "html",
    "videos": "video input clips video_dir input_dir",
    "labels": "label csv table annotations annotation targets",
    "ema_decay": "ema average",
    "save_every_steps": "save_steps save_every checkpoint_every",
    "augment": "augmentations data_augmentation",
    "loss": "criterion objective loss_fn",
    "freeze": "frozen freeze_backbone freeze_backbones freeze_encoder",
    "unfreeze": "finetune fine_tune train_backbone train_backbones",
    "lora": "adapters peft lora_rank lora_r",
}
"""Our option → what other programs call it."""
TOLD = dict.fromkeys(
    [
        "wandb",
        "report_to",
        "tracker",
        "logger",
        "log_with",
        "mlflow",
        "tensorboard",
        "trackio",
        "comet",
        "neptune",
        "use_wandb",
    ],
    "every run writes TensorBoard logs and metrics.jsonl; there are no other trackers",
)
"""Options that many programs have and this one does without."""
NEVER_MEANT = ("print_shtab", "print_completion")
"""Options of the parser that do nothing for a person."""


def _nearest(word: str, names: Sequence[str]) -> str | None:
    """What others call so, one that ends in this word (``dim`` → ``model.fusion.dim``), or the most alike."""
    by_key = {name.replace("-", "_"): name for name in names if name not in NEVER_MEANT}
    near = [key for key, others in SYNONYMS.items() if key in by_key and word in others.split()]
    near = near or [key for key in by_key if key.endswith(f".{word}")]
    near = near or ([] if word in TOLD else difflib.get_close_matches(word, by_key, n=1, cutoff=0.75))
    return by_key[near[0]] if near else None


# --- training settings ----------------------------------------------------------------------------


def parse_train(argv: Sequence[str], prog: str) -> Settings:
    """Settings of a training run: preset, then ``--config FILE.yaml``, then the command line.

    A run that goes on begins with its own settings in place of a preset's.
    """
    words = tuple(argv)
    argv = _normal(argv)
    preset = _preset_of(argv, prog)
    saved = _saved_settings(argv, prog)
    if saved is not None:
        argv = ["--config", saved, *argv]
    _check_settings_files(argv)
    short = bool({"-h", "--help"} & set(argv))
    # What a saved run does not name was added to the package since: it had the default, whatever presets have
    # made of it by now.
    model = PRESETS[preset]() if saved is None else ModelConfig()
    parser = _train_parser(preset, prog, None if short else model)
    parsed = parser.instantiate(parser.parse_args(argv))
    train = TrainConfig(**{field.name: getattr(parsed, field.name) for field in fields(TrainConfig)})
    model = parsed.model
    given = {word[2:].partition("=")[0] for word in argv if word.startswith("--")}
    if saved is None:
        given |= _differing(Settings(train, model, parsed.preset))
    if parsed.modalities:
        model.modalities = tuple(parsed.modalities.split(","))
    if parsed.head:
        model.fusion.kind = parsed.head
    for backbone, source in _pairs(parsed.backbone or [], "--backbone", "visual=PATH"):
        _backbone(model, backbone).source = source
    # Of the model, so that evaluation and inference divide as training did.
    model.fusion.rescale = model.fusion.rescale or train.rescale
    _apply_depths(model, parsed.freeze, parsed.unfreeze)
    _apply_lora(model, parsed.lora)
    apply_reading_options(model.decoding, parsed)
    check_settings("--", {"": train, "model.": model})
    _need(train.train_shards, "--train-shards", prog)
    _need(train.run_dir, "--run-dir", prog)
    return Settings(train, model, parsed.preset, words, frozenset(given))


def _differing(settings: Settings) -> set[str]:
    """Names of settings that are not as their preset has them."""
    preset = settings.preset
    usual = flat(Settings(TrainConfig(**TRAIN_DEFAULTS[preset]), PRESETS[preset](), preset).to_dict())
    return {name for name, value in flat(settings.to_dict()).items() if value != usual.get(name)}


def _train_parser(preset: str, prog: str, model: ModelConfig | None) -> _SettingsParser:
    """``model``: the defaults of its settings; ``None``: without them, for a short help."""
    parser = _SettingsParser(
        prog=prog,
        usage=f"{prog} --train-shards PATTERN --run-dir DIR [--preset NAME] [any setting]",
        description="Train from raw video shards.",
        epilog=None if model is None else "Settings under --model are saved beside the weights.",
        formatter_class=lambda prog: _Help(prog, max_help_position=34, width=110),
    )
    if model is None:
        parser.epilog = (
            "The settings of the model itself (--model.fusion.num-latents 64, --model.faces.margin 0.1, …) are "
            "many: see them with their values by --print_config, or --help-all for what each means."
        )
    parser.add_argument("--preset", default="base", choices=sorted(PRESETS), help="where settings start from")
    parser.add_argument("--config", action="config", help="YAML file with any of these settings")
    parser.add_argument("--modalities", help="e.g. visual,audio,textual (default: the preset's)")
    parser.add_argument(
        "--head",
        choices=get_args(get_type_hints(FusionConfig)["kind"]),
        help="what reads the tokens: a Perceiver (tokens, or concat as published); ridge: one pass over the "
        "clips, closed form, nothing else is trained; ensemble: the mean of tokens and ridge (default: the "
        "preset's)",
    )
    parser.add_argument("--freeze", help="backbones that are not trained, e.g. all or visual,audio")
    parser.add_argument(
        "--unfreeze", help="backbones that are, e.g. visual,audio=4 (all, or the last n blocks)"
    )
    parser.add_argument(
        "--lora", metavar="NAME=RANK", help="backbones that train LoRA adapters alone, e.g. visual=8,audio=8"
    )
    parser.add_argument(
        "--backbone", action="append", metavar="NAME=SOURCE", help="hub id or folder, e.g. visual=PATH"
    )
    add_reading_options(parser, separator="_")
    parser.add_argument("--help_all", action="help", help="this help with the model's settings")
    parser.add_class_arguments(TrainConfig)
    parser.set_defaults(TRAIN_DEFAULTS[preset])
    if model is not None:
        parser.add_argument("--model", type=ModelConfig, default=model)
    return parser


def _preset_of(argv: Sequence[str], prog: str) -> str:
    first = Parser(prog=prog, add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="base", choices=sorted(PRESETS), help=SUPPRESS)
    return first.parse_known_args(argv)[0].preset


def _saved_settings(argv: Sequence[str], prog: str) -> str | None:
    """``config.yaml`` of the run that ``--resume --run-dir RUN`` names, if there is one."""
    first = Parser(prog=prog, add_help=False, allow_abbrev=False)
    first.add_argument("--run_dir", default="", help=SUPPRESS)
    first.add_argument("--resume", default="false", help=SUPPRESS)
    given = first.parse_known_args(argv)[0]
    path = Path(given.run_dir) / "config.yaml"
    return str(path) if given.run_dir and given.resume == "true" and path.is_file() else None


def _normal(argv: Sequence[str]) -> list[str]:
    """Dashes in names become underscores, and a bare ``--resume`` becomes ``--resume=true``."""
    flags = {f"--{field.name}" for field in fields(TrainConfig) if isinstance(field.default, bool)}
    words = []
    for word, following in zip(argv, [*argv, ""][1:], strict=True):
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            name = "--" + name[2:].replace("-", "_")
        if name in flags and not equals and following not in ("true", "false"):
            equals, value = "=", "true"
        words.append(name + equals + value)
    return words


def backbone_overrides(words: Sequence[str]) -> dict[str, str]:
    """``["visual=PATH"]`` → ``{"visual": "PATH"}``."""
    return dict(_pairs(words, "--backbone", "visual=PATH"))


def _pairs(words: Sequence[str], option: str, example: str) -> list[tuple[str, str]]:
    pairs = [word.partition("=") for word in words]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise ViperError(f"{option} {name}: write it as {example}")
    return [(name, value) for name, _, value in pairs]


def _backbone(model: ModelConfig, name: str) -> BackboneConfig:
    known = backbones_of(model)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; this model has {', '.join(known)}"
        raise ViperError(f"no backbone is called {name!r}{hint}")
    return known[name]


def _apply_depths(model: ModelConfig, freeze: str | None, unfreeze: str | None) -> None:
    """``freeze``: ``all`` or names. ``unfreeze``: names, each with ``=n`` for its last n blocks only."""
    known = backbones_of(model)
    for name in known if freeze == "all" else (freeze or "").split(",") if freeze else ():
        backbone = _backbone(model, name)
        backbone.train, backbone.lora_rank = "none", 0
    for word in (unfreeze or "").split(",") if unfreeze else ():
        name, equals, depth = word.partition("=")
        depth = depth if equals else "all"
        if depth not in ("all", "none") and not depth.isdigit():
            raise ViperError(f"--unfreeze {word}: after = stands all or a number of blocks")
        _backbone(model, name).train = depth


def _apply_lora(model: ModelConfig, lora: str | None) -> None:
    """``lora``: names, each with the rank of its adapters."""
    for word in lora.split(",") if lora else ():
        name, _, rank = word.partition("=")
        if not rank.isdigit() or int(rank) < 1:
            raise ViperError(f"--lora {word}: write a backbone and the rank of its adapters, e.g. visual=8")
        _backbone(model, name).lora_rank = int(rank)


def _check_settings_files(argv: Sequence[str]) -> None:
    """Refuse a file without settings, and ``*name`` in one: thirty such lines unfold to a billion values."""
    for word, following in zip(argv, [*argv, ""][1:], strict=True):
        name, equals, value = word.partition("=")
        path = Path(value if equals else following)
        if name != "--config" or not path.is_file():
            continue
        try:
            events = list(yaml.parse(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader))
        except (yaml.YAMLError, UnicodeDecodeError):
            continue  # the parser says what is wrong with it
        root = next((event for event in events if isinstance(event, yaml.NodeEvent)), None)
        if not isinstance(root, yaml.MappingStartEvent):
            raise ViperError(
                f"{path}: holds no settings (lines such as `lr: 0.001`); was it emptied or cut short?"
            )
        if any(isinstance(event, yaml.AliasEvent) for event in events):
            raise ViperError(f"--config {path}: YAML aliases (*name) are not understood; write the values out")


def _need(value: str, option: str, prog: str) -> None:
    if not value:
        raise ViperError(f"{option} is missing (see {prog} --help)")
