"""option_names.py: the name of a setting in Python and YAML <-> its option on the command line."""

from __future__ import annotations


def option_of(setting: str) -> str:
    """``num_workers`` → ``--num-workers``."""
    return "--" + setting.replace("_", "-")


def setting_of(word: object) -> str:
    """``--num-workers`` or ``num-workers`` → ``num_workers``: dashes and underscores are both understood."""
    return str(word).removeprefix("--").replace("-", "_")
