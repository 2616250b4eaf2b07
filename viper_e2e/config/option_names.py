"""option_names.py: the name of a setting in Python and YAML <-> its option on the command line."""

from __future__ import annotations

import re


def option_of(setting: str) -> str:
    """``num_workers`` → ``--num-workers``."""
    return "--" + setting.replace("_", "-")


def setting_of(word: object) -> str:
    """``--num-workers`` or ``num-workers`` → ``num_workers``: dashes and underscores are both understood."""
    return str(word).removeprefix("--").replace("-", "_")


def with_dashes(text: str) -> str:
    """``--run_dir: a_b`` → ``--run-dir: a_b``: every option in a text as people type it, its value as it is."""
    return re.sub(r"(?<![\w./=-])--[a-z][\w.-]*", lambda match: option_of(setting_of(match[0])), text)
