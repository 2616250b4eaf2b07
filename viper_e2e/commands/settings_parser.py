"""settings_parser.py: jsonargparse's parser of all settings of a run and of its model."""

from __future__ import annotations

from argparse import SUPPRESS
from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from typing import NoReturn, get_type_hints

import jsonargparse
from jsonargparse.typing import register_type

from viper_e2e.commands.command_line import how_to_read
from viper_e2e.commands.usage import usage_error
from viper_e2e.config import (
    PRESETS,
    TRAIN_DEFAULTS,
    TRAIN_GROUPS,
    WORDED,
    ModelConfig,
    SettingsFile,
    TrainOptions,
)

for _kind in WORDED:
    register_type(_kind, str, _kind.parse)


class SettingsParser(jsonargparse.ArgumentParser):
    """It reads words and files; what `--help` says comes from `train_help`."""

    files: Sequence[SettingsFile] = ()
    """Those of ``--config``, for messages about them."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        usage_error(self.prog, message, self._option_string_actions, self.files)


@cache
def settings_parser(preset: str, prog: str, *, is_new: bool) -> SettingsParser:
    """Kept, since a sweep parses its words again for each trial and to make one takes four times as long as to
    parse with it. Names are written with underscores."""
    parser = SettingsParser(prog=prog, allow_abbrev=False, print_config=None)
    parser.add_argument("--config", action="config")
    hints = get_type_hints(TrainOptions)
    for field in fields(TrainOptions):
        parser.add_argument(f"--{field.name}", **how_to_read(field, hints[field.name]))
    for taken_before in ("--print_config", "--help_all"):
        parser.add_argument(taken_before, action="store_true", default=SUPPRESS)  # messages know them
    for group in TRAIN_GROUPS:
        parser.add_class_arguments(group)
    parser.set_defaults(TRAIN_DEFAULTS[preset])
    # What a saved run does not name was added to the package since: it had the default, whatever presets
    # have made of it by now.
    model = PRESETS[preset]() if is_new else ModelConfig()
    parser.add_argument("--model", type=ModelConfig, default=model)
    return parser
