"""cli.py: the command `viper`: the table of its commands; errors as one line and an exit code."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from viper_e2e.commands.command_line import VOLUME, parse
from viper_e2e.commands.ending import EndAtOnce
from viper_e2e.commands.stopping import stopping, what_is_kept
from viper_e2e.commands.usage import overview, unknown_command
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
    Settings,
    SweepConfig,
    TrainOptions,
)
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.runtime import (
    end_without_collecting,
    show_notes,
    tolerate_terminal_encodings,
    without_collecting,
)

QUIET, VERBOSE = VOLUME


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
    "train": Command(TrainOptions, "cli:train_once", "train from raw video shards", reads_settings=True),
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
"""Commands, in the order of `viper --help`."""


def _refuse_a_deleted_folder() -> None:
    """Torch's libraries end a process that stands in one, with a line that says nothing of it."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise ViperError("the folder that you are in was deleted; change to another one (cd)") from error


def run(argv: Sequence[str] | None = None) -> NoReturn:
    """`main` for a script, which ends with its exit code: `viper`, `python -m viper_e2e`, `train.py`."""
    end = EndAtOnce()
    end.code = main(argv)
    sys.exit(end.code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 all fine, 1 nothing done or misuse, 2 some clips failed."""
    argv = list(sys.argv[1:] if argv is None else argv)
    tolerate_terminal_encodings()
    argv = set_volume(argv)
    end_without_collecting()
    command = argv[0] if argv else "--help"
    if command in ("-h", "--help"):
        print(overview({name: row.summary for name, row in COMMANDS.items()}))
        return ExitCode.OK if argv else ExitCode.NOTHING_DONE
    if command == "--version":
        from viper_e2e import __version__

        print(f"viper_e2e {__version__}")
        return ExitCode.OK
    if command not in COMMANDS:
        return unknown_command(command, COMMANDS)
    try:
        with stopping():
            _refuse_a_deleted_folder()
            return COMMANDS[command].run(command, argv[1:])
    except ViperError as error:
        print(f"viper {command}{_which_process()}: {error}", file=sys.stderr)
        return ExitCode.NOTHING_DONE
    except KeyboardInterrupt as stopped:
        print(f"\nviper {command}: stopped; {what_is_kept(command, argv)}", file=sys.stderr)
        return stopped.args[0] if stopped.args else ExitCode.STOPPED
    except BrokenPipeError:
        # The reader of our output went away (`| head`); say nothing more, also not at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except OSError as error:
        # What the machine refuses (a full disk, a file without permission) is no fault of ours to be traced.
        from viper_e2e.runtime import explain

        print(f"viper {command}{_which_process()}: {explain(error)}", file=sys.stderr)
        return ExitCode.NOTHING_DONE


def train_once(words: Sequence[str]) -> int:
    """`viper train`."""
    from viper_e2e.commands.parsing import parse_train
    from viper_e2e.commands.scratch import keep_scratch_in_memory

    settings = parse_train(words, "viper train")
    keep_scratch_in_memory()
    return train(settings)


def train(settings: Settings) -> int:
    """Train once, or once per seed; returns the exit code."""
    with without_collecting():
        from viper_e2e.experiments import train_alone, train_seeds

    is_one = max(settings.train.seeds, settings.train.ensemble) == 1
    return train_alone(settings) if is_one else train_seeds(settings)


def set_volume(argv: list[str]) -> list[str]:
    """Apply the options of every command: ``-q`` shows only results and errors, ``-v`` every note."""
    end = argv.index("--") if "--" in argv else len(argv)
    given = {word for word in argv[1:end] if word in (*QUIET, *VERBOSE)}
    level = logging.DEBUG if given & {*VERBOSE} else logging.WARNING if given else logging.INFO
    show_notes(level)
    if level == logging.WARNING:
        from viper_e2e.runtime import console

        console.quiet = True
    return [word for place, word in enumerate(argv) if place >= end or word not in given]


def _which_process() -> str:
    """Whose error it is, where torchrun or `accelerate launch` started several processes."""
    count = os.environ.get("WORLD_SIZE", "1")
    return f" (process {os.environ.get('RANK', '0')} of {count})" if count != "1" else ""


if __name__ == "__main__":
    sys.exit(main())
