"""train_arguments.py: arguments of `viper train`, in any spelling -> as its parser reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import fields

from viper_e2e.commands.backbone_arguments import parsed_depths
from viper_e2e.config import (
    Depths,
    SettingsFile,
    TrainConfig,
    is_old_option,
    option_of_now,
    setting_of,
    settings_of_now,
)
from viper_e2e.errors import ViperError


def normal_words(argv: Sequence[str]) -> list[str]:
    """Dashes in names become underscores, and a bare ``--resume`` becomes ``--resume=true``."""
    flags = {f"--{field.name}" for field in fields(TrainConfig) if isinstance(field.default, bool)}
    words: list[str] = []
    for word, following in zip(argv, [*argv, ""][1:], strict=True):
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            name = f"--{setting_of(name)}"
        if name in flags and not equals and following not in ("true", "false"):
            equals, value = "=", "true"
        words.append(name + equals + value)
    return _in_words_of_now(_with_patterns_joined(words))


def _with_patterns_joined(argv: Sequence[str]) -> list[str]:
    """``--train_shards A B`` as one word, with a pattern to a line."""
    words: list[str] = []
    rest = [*argv]
    while rest:
        word = rest.pop(0)
        if word in ("--train_shards", "--val_shards"):
            end = next((i for i, following in enumerate(rest) if following.startswith("-")), len(rest))
            if end > 1:
                word = f"{word}=" + "\n".join(rest[:end])
                del rest[:end]
        words.append(word)
    return words


def _in_words_of_now(argv: Sequence[str]) -> list[str]:
    """Options that have another name by now, under this."""
    words, rest = [], iter(argv)
    for word in rest:
        name, equals, value = word.partition("=")
        if is_old_option(name):
            name, value = option_of_now(name, value if equals else next(rest, ""))
            equals = "="
        words.append(name + equals + value)
    return words


def words_of_files(files: Iterable[SettingsFile]) -> tuple[list[str], list[Depths]]:
    """``--config`` with the content of each in today's form, and what they say of ``unfreeze``."""
    import yaml

    words: list[str] = []
    depths: list[Depths] = []
    for file in files:
        data = settings_of_now(file.values, str(file.path))
        if "unfreeze" in data:
            depths.append(parsed_depths(data.pop("unfreeze"), f"{file.path}: unfreeze"))
        words.append(f"--config={yaml.safe_dump(data, default_flow_style=True, width=math.inf)}")
    return words, depths


def without_unfreeze(argv: Sequence[str]) -> tuple[list[str], Depths]:
    """Words but for those of ``--unfreeze``, which add up, and what these say."""
    words, typed, rest = [], Depths(), iter(argv)
    for word in rest:
        name, equals, value = word.partition("=")
        if name == "--unfreeze":
            if not equals and (value := next(rest, "--")).startswith("--"):
                raise ViperError("--unfreeze: name the backbones to train, e.g. --unfreeze visual=4,audio=all")
            typed = typed.updated(parsed_depths(value, name))
        else:
            words.append(word)
    return words, typed
