"""moved.py: former names of modules, so that scripts which import them still work."""

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
        "ridge_training run_folder saving trainer training>many_trainings training_state>state validation",
    ),
    ("engine", "training", "yardstick"),
    ("", "training", "losses"),
    ("", "commands", "cli parsing reading_options"),
    ("packing", "commands", "recipe"),
    ("config", "", "schema>config"),
    ("engine", "commands", "commands>common evaluation_commands>evaluation inference bench pictures scratch"),
    ("published", "published", "inert>safe_pickle"),
    ("shards", "shards", "foreign>unindexed"),
    ("decoding", "decoding", "foreign>external"),
    ("loading", "loading", "reuse>clip_cache"),
    ("training", "training", "run>many_trainings"),
    ("encoders", "encoders", "stream>base cache>prepared"),
    ("fusion", "fusion", "outputs>head hiding>head"),
    ("decoding", "decoding", "sound_tracks>tracks sound_notes>plan lengths>headers mp4_tables>headers"),
    ("decoding", "decoding", "again>close_up_frames unseen>blank_frames hearing>audible_track"),
    ("shards", "shards", "kept_shards>shard_cache far_reading>remote_reading"),
    ("loading", "loading", "held_shards>read_ahead_buffer words_beside>sidecar_text"),
    ("encoders", "encoders", "tokens_of_text>tokenization"),
    ("packing", "packing", "slips>bad_cells oddities>likely_mistakes rehearsal>dry_run"),
    ("scoring", "scoring", "further_measures>corpus_measures"),
    ("report", "report", "said>prediction_bars"),
    ("training", "training", "one_pass>many_trainings endings>closing_lines joining>ensembling"),
    ("training", "training", "lacking>absent_modalities pooled_rows>pooled_features"),
    ("commands", "commands", "train_words>train_arguments backbone_words>backbone_arguments"),
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
