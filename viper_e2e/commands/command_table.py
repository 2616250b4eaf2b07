"""command_table.py: every command: its options, what runs it, and what it does in a few words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from viper_e2e.commands.command_line import parse
from viper_e2e.config import (
    AblateConfig,
    BenchConfig,
    CalibrateConfig,
    CheckConfig,
    CompareConfig,
    CompletionConfig,
    CrossValConfig,
    EnvConfig,
    EvalConfig,
    ExportConfig,
    ImportConfig,
    IndexConfig,
    InferConfig,
    PackConfig,
    SweepConfig,
    TrainOptions,
)
from viper_e2e.runtime import without_collecting


@dataclass(frozen=True)
class Command:
    """A row of the table."""

    options: type
    """Its dataclass of options, of which the parser, `--help`, completion and the pages are made."""
    runs: str
    """The function that gets the options, ``module:function`` of `commands`, imported once they are read."""
    summary: str
    reads_settings: bool = False
    """It understands the settings of `viper train`, too: its function reads the words itself."""

    def run(self, name: str, words: Sequence[str]) -> int:
        """Exit code. ``words``: what stands behind ``viper NAME``."""
        options = words if self.reads_settings else parse(self.options, words, f"viper {name}")
        module, _, function = self.runs.partition(":")
        with without_collecting():
            run = getattr(import_module(f"viper_e2e.commands.{module}"), function)
        return run(options)


COMMANDS = {
    "pack": Command(PackConfig, "packing:run_pack", "pack clips and labels into shards"),
    "check": Command(
        CheckConfig, "checking:run_check", "report what is in a set of shards, and what is wrong with it"
    ),
    "index": Command(IndexConfig, "indexing:run_index", "write the index of shards that another program made"),
    "train": Command(
        TrainOptions, "train_commands:train_once", "train from raw video shards", reads_settings=True
    ),
    "sweep": Command(
        SweepConfig,
        "train_commands:sweep",
        "train with many settings on one pass over the clips, keep the best",
        reads_settings=True,
    ),
    "cv": Command(
        CrossValConfig,
        "train_commands:cross_validate",
        "cross-validate: train once per fold, predict every clip once",
        reads_settings=True,
    ),
    "eval": Command(EvalConfig, "evaluation:run_eval", "score a set of shards: metrics, predictions and plots"),
    "infer": Command(InferConfig, "inference:run_infer", "score clips with a trained model"),
    "calibrate": Command(
        CalibrateConfig,
        "calibration:run_calibrate",
        "calibrate probabilities and numbers, with intervals",
    ),
    "ablate": Command(
        AblateConfig, "train_commands:ablate", "score what each modality contributes", reads_settings=True
    ),
    "compare": Command(
        CompareConfig,
        "comparison:run_compare",
        "compare runs on the same clips: differences with intervals and p",
    ),
    "export": Command(ExportConfig, "common:run_export", "write a model with all its backbones inside"),
    "bench": Command(
        BenchConfig,
        "train_commands:bench",
        "measure what limits training on your shards, and say what to change",
        reads_settings=True,
    ),
    "import-published": Command(
        ImportConfig, "common:run_import", "convert the authors' released checkpoints into our format"
    ),
    "env": Command(EnvConfig, "env:run_env", "print versions, devices and decoders of this installation"),
    "completion": Command(
        CompletionConfig,
        "completion:run_completion",
        "print a script for bash, zsh or fish that completes commands and options",
    ),
}
"""In the order in which `viper --help` lists them."""
