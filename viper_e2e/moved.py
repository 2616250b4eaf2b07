"""moved.py: modules under the names they had before there were wings, for scripts that import them."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_TABLE = (
    ("", "config", "config_bounds>bounds presets"),
    ("", "runtime", "environment terminal progress running_time outfiles plain_json content names hub"),
    ("engine", "runtime", "locks processes devices display>console"),
    ("", "loading", "loader order workers handover clip_reader clip_files windows skips reuse>clip_cache"),
    ("", "fusion", "pooling ridge>closed_form scale"),
    (
        "",
        "model",
        "output transfer augment close_ups pretrained checkpoint records predictions",
    ),
    ("engine", "model", "compiling stages"),
    ("", "encoders", "inputs>clip_view prepared stream>base"),
    ("model", "encoders", "inputs>clip_view prepared"),
    ("fusion", "encoders", "stream>base"),
    ("", "scoring", "metrics tabular checking"),
    ("engine", "scoring", "evaluation>score prediction>score parts>journal sources"),
    (
        "engine",
        "training",
        "averaging>ema fine_tuning guarding labelled>data memory optimizer phases precision reporting resuming",
    ),
    (
        "engine",
        "training",
        "ridge_training run_folder saving trainer training>one_pass training_state>state validation yardstick",
    ),
    ("", "training", "losses"),
    ("", "commands", "cli parsing reading_options"),
    ("packing", "commands", "recipe"),
    ("config", "", "schema>config"),
    ("engine", "commands", "commands>common evaluation_commands>evaluation inference bench pictures scratch"),
    ("published", "published", "inert>safe_pickle"),
    ("shards", "shards", "foreign>unindexed"),
    ("decoding", "decoding", "foreign>external"),
    ("loading", "loading", "reuse>clip_cache"),
    ("training", "training", "run>one_pass"),
    ("encoders", "encoders", "stream>base cache>prepared"),
    ("fusion", "fusion", "outputs>head hiding>head"),
    ("decoding", "decoding", "sound_tracks>tracks sound_notes>plan lengths>headers mp4_tables>headers"),
)
"""Where modules were, where they are, and which: a name, or the old and the new one."""
MOVED = {
    f"viper_e2e.{before}.{word.partition('>')[0]}".replace(
        "..", "."
    ): f"viper_e2e.{now}.{word.rpartition('>')[2]}".replace("..", ".")
    for before, now, words in _TABLE
    for word in words.split()
}
FORMER_PACKAGES = ("viper_e2e.engine",)


class Finder(MetaPathFinder, Loader):
    """Imports a moved module from where it is; it is one module under both names."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname not in MOVED and fullname not in FORMER_PACKAGES:
            return None
        return ModuleSpec(fullname, self, is_package=fullname in FORMER_PACKAGES)

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ in FORMER_PACKAGES:
            return
        now = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} is {now} now", DeprecationWarning, stacklevel=2)
        # What stands there after this is what the import gives.
        sys.modules[module.__name__] = import_module(now)


def install() -> None:
    """Once per interpreter, behind the finders that know what is really there."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.append(Finder())
