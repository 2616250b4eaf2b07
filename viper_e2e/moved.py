"""moved.py: former names of modules and of what wings show, so that scripts which import them still work.

A former name works, with a warning, in the version that has the new one and in the two minor versions after it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

_TABLE = (
    ("0.4", "encoders", "encoders", "cache>prepared stream>base"),
    ("0.4", "fusion", "fusion", "outputs>head hiding>head"),
    ("0.4", "decoding", "decoding", "sound_tracks>tracks sound_notes>plan lengths>headers mp4_tables>headers"),
    ("0.4", "training", "experiments", "run>many_trainings"),
    ("0.5", "decoding", "decoding", "again>close_up_frames unseen>blank_frames hearing>audible_track"),
    ("0.5", "decoding", "decoding", "fields>deinterlacing"),
    ("0.5", "runtime", "runtime", "letters>terminal_encoding"),
    ("0.5", "shards", "shards", "kept_shards>shard_cache far_reading>remote_reading"),
    ("0.5", "loading", "loading", "held_shards>read_ahead_buffer words_beside>sidecar_text"),
    ("0.5", "encoders", "encoders", "tokens_of_text>tokenization"),
    ("0.5", "packing", "packing", "rehearsal>dry_run"),
    ("0.5", "packing", "tables", "slips>bad_cells oddities>likely_mistakes"),
    ("0.5", "scoring", "scoring", "further_measures>corpus_measures"),
    ("0.5", "report", "report", "said>prediction_bars"),
    ("0.5", "training", "experiments", "one_pass>many_trainings endings>closing_lines joining>ensembling"),
    ("0.5", "training", "training", "lacking>absent_modalities pooled_rows>pooled_features"),
    ("0.5", "training", "model", "precision"),
    ("0.5", "packing", "runtime", "spellings"),
    ("0.5", "packing", "tables", "sheet workbook workbook_layout values times titles bad_cells rows table"),
    ("0.5", "packing", "tables", "column_choices columns label_columns task_columns likely_mistakes"),
    ("0.5", "commands", "commands", "train_words>train_arguments backbone_words>backbone_arguments"),
    ("0.6", "training", "training", "ridge_training>ridge_learner"),
    ("0.6", "decoding", "decoding", "sampling>plan cropping>headers"),
    ("0.6", "training", "experiments", "many_trainings axes proposals trials trial_record seeds ensembling"),
    ("0.6", "training", "experiments", "folding cross_validation closing_lines"),
    ("0.6", "scoring", "scoring", "metrics>bootstrap"),
    ("0.6", "decoding", "cutting", "cutting>long_file remuxing stretches frame_log pcm"),
    ("0.6", "training", "splits", "folds stratifying train_val_overlap"),
    ("0.6", "shards", "shards", "mixture>corpus"),
)
"""The version that has the new names, where modules were and are, and which: the old name, or the old
and the new one."""

_SHOWN = (
    ("0.5", "packing", "tables", "ColumnChoices LabelTable Row TaskColumns label_titles read_labels"),
    ("0.5", "packing", "tables", "read_tasks write_labels"),
    ("0.5", "shards", "shards", "FarReading>RemoteReading KeptShards>ShardCache"),
    ("0.5", "training", "model", "compute_dtype fastest_precision resolve_precision"),
    ("0.6", "report", "tasks", "measure_title"),
    ("0.6", "training", "experiments", "CrossValidation Folding ManyTrainings Outcome Proposals Trial"),
    ("0.6", "training", "experiments", "cross_validate drawn grid join ranked read_axes read_plan"),
    ("0.6", "training", "experiments", "run_trials settled_plan train_alone train_seeds without_effect"),
    ("0.6", "training", "splits", "folds_from"),
    ("0.6", "decoding", "cutting", "LongFile Stretch TAIL_SECONDS cut sound_as_wav"),
    ("0.6", "decoding", "model.records", "seconds_counted_once"),
)
"""Like `_TABLE`, for names that a wing shows in its `__init__.pyi`."""

REPLACED = {
    "viper_e2e.scoring.Intervals": "intervals of viper_e2e.scoring.TaskScores",
    "viper_e2e.scoring.measure": "viper_e2e.scoring.scores_of(predictions)",
    "viper_e2e.shards.Mixture": "viper_e2e.shards.ShardSet.mixed(corpora, option)",
    "viper_e2e.training.RidgeTrainer": "viper_e2e.training.open_trainer(settings, accelerator)",
    "viper_e2e.training.num_trials": "num_trials of viper_e2e.experiments.read_plan(path)",
}
"""Names that wings showed in 0.5 and no object has now, and what a script writes instead; until 0.8."""

Attached = tuple[Callable[[str], object], Callable[[], list[str]], list[str]]


class Move(NamedTuple):
    now: str
    since: str
    """The version: major and minor."""


def _moves(table: tuple[tuple[str, str, str, str], ...]) -> dict[str, Move]:
    return {
        f"viper_e2e.{wing}.{old}": Move(f"viper_e2e.{wing_now}.{new or old}", since)
        for since, wing, wing_now, words in table
        for old, _, new in (word.partition(">") for word in words.split())
    }


MOVED = _moves(_TABLE)
SHOWN = _moves(_SHOWN)


def with_former_names(wing: str, attached: Attached) -> Attached:
    """Names that a wing shows (`attached`, by lazy_loader), or another shows now (with a warning).

    `ImportError`, whose message an import shows, for one in whose place something else is written.
    """
    attribute, listed, names = attached

    def __getattr__(name: str) -> object:
        if replaced := REPLACED.get(f"{wing}.{name}"):
            raise ImportError(f"{wing}.{name} is no longer there; write {replaced}")
        move = SHOWN.get(f"{wing}.{name}")
        if move is None:
            return attribute(name)
        _warn(f"{wing}.{name}", move, stacklevel=3)
        wing_now, _, name_now = move.now.rpartition(".")
        return getattr(import_module(wing_now), name_now)

    return __getattr__, listed, names


def _warn(before: str, move: Move, stacklevel: int) -> None:
    warnings.warn(f"{before} is {move.now} now", DeprecationWarning, stacklevel=stacklevel + 1)


if TYPE_CHECKING:
    from importlib.abc import Loader
else:
    Loader = object  # what it does makes it one; importing the class would take as long as all else here


class Finder(Loader):
    """Imports a moved module from where it is; it is one module under both names."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave the making of the module to Python."""

    def exec_module(self, module: ModuleType) -> None:
        move = MOVED[module.__name__]
        _warn(module.__name__, move, stacklevel=2)
        # The import gives what is there after this.
        sys.modules[module.__name__] = import_module(move.now)


def install() -> None:
    """Once per interpreter, after the finders that know what is really there."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.append(Finder())
