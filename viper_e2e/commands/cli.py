"""cli.py: the command `viper`: one function a command, heavy imports after the arguments are read."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from viper_e2e.commands.command_line import VOLUME, parse, parse_beside_train, with_values
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
)
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.runtime import (
    collect_again,
    end_without_collecting,
    put_off_collecting,
    show_notes,
    tolerate_terminal_encodings,
)

MODELS = """there is no default model; give --checkpoint one of these:
  VaianiLorenzo/ViPER-VA     one of the authors' eight, trained on Hume-Reaction (ViPER: validation r .3025)
  demo/run/checkpoints/best  what `make demo` trains on generated people; says nothing about real ones
  RUN/checkpoints/best       your own, by `viper train` on labelled clips; `viper eval` tells how good it is"""

QUIET, VERBOSE = VOLUME


def _refuse_a_deleted_folder() -> None:
    """Torch's libraries end a process that stands in one, with a line that says nothing of it."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise ViperError("the folder that you are in was deleted; change to another one (cd)") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 all fine, 1 nothing done or misuse, 2 some clips failed."""
    argv = list(sys.argv[1:] if argv is None else argv)
    tolerate_terminal_encodings()
    argv = set_volume(argv)
    end_without_collecting()
    command = argv[0] if argv else "--help"
    if command in ("-h", "--help"):
        print(overview({name: text for name, (_, text) in COMMANDS.items()}))
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
            return COMMANDS[command][0](argv[1:])
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
    finally:
        collect_again()


def set_volume(argv: list[str]) -> list[str]:
    """What every command understands: ``-q`` shows results and errors alone, ``-v`` all that is noted."""
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


# --- commands -------------------------------------------------------------------------------------


def _train(argv: Sequence[str]) -> int:
    from viper_e2e.commands.parsing import parse_train
    from viper_e2e.commands.scratch import keep_scratch_in_memory

    settings = parse_train(argv, "viper train")
    keep_scratch_in_memory()
    return train(settings)


def train(settings: Settings) -> int:
    """Train once, or once per seed; returns the exit code."""
    from viper_e2e.experiments import train_alone, train_seeds

    is_one = max(settings.train.seeds, settings.train.ensemble) == 1
    return train_alone(settings) if is_one else train_seeds(settings)


def _sweep(argv: Sequence[str]) -> int:
    from viper_e2e.commands.sweeping import parse_sweep, run_sweep

    options, files, others = parse_sweep(argv)
    from viper_e2e.commands.scratch import keep_scratch_in_memory

    keep_scratch_in_memory()
    return run_sweep(options, files, others, ["viper", "sweep", *argv])


def _cv(argv: Sequence[str]) -> int:
    more = "Every option of viper train works too: --train-shards, --run-dir, --resume, --epochs, …"
    options, files, others = parse_beside_train(CrossValConfig, argv, "viper cv", more)
    from viper_e2e.commands.parsing import parse_train

    settings = parse_train(others, "viper cv", options, files)
    from viper_e2e.commands.scratch import keep_scratch_in_memory

    keep_scratch_in_memory()
    from viper_e2e.commands.cross_validation import run_cv

    return run_cv(options, settings, argv)


def _infer(argv: Sequence[str]) -> int:
    options = parse(InferConfig, _without_names(argv), "viper infer")
    if not options.checkpoint:
        raise ViperError(MODELS)
    put_off_collecting()
    from viper_e2e.commands.inference import run_infer

    return run_infer(options)


def _without_names(argv: Sequence[str]) -> list[str]:
    """``--render CLIP`` beside ``--out``: what follows is a clip, never the name of a video to be written."""
    has_folder = any(word == "--out" or word.startswith("--out=") for word in argv)
    bare = ("--render", "--plot") if has_folder else ()
    return [f"{word}=" if word in bare else word for word in argv]


def _eval(argv: Sequence[str]) -> int:
    options = parse(EvalConfig, argv, "viper eval")
    put_off_collecting()
    from viper_e2e.commands.evaluation import run_eval

    return run_eval(options)


def _calibrate(argv: Sequence[str]) -> int:
    options = parse(CalibrateConfig, argv, "viper calibrate")
    put_off_collecting()
    from viper_e2e.commands.calibration import run_calibrate

    return run_calibrate(options)


def _ablate(argv: Sequence[str]) -> int:
    if "--retrain" in argv:
        from viper_e2e.commands.retraining import run_retraining
        from viper_e2e.commands.scratch import keep_scratch_in_memory

        keep_scratch_in_memory()
        return run_retraining([word for word in argv if word != "--retrain"], ["viper", "ablate", *argv])
    options = parse(AblateConfig, argv, "viper ablate")
    put_off_collecting()
    from viper_e2e.commands.ablation import run_ablate

    return run_ablate(options)


def _compare(argv: Sequence[str]) -> int:
    options = parse(CompareConfig, argv, "viper compare")
    from viper_e2e.commands.comparison import run_compare

    return run_compare(options)


def _export(argv: Sequence[str]) -> int:
    options = parse(ExportConfig, argv, "viper export")
    from viper_e2e.commands.common import run_export

    return run_export(options)


def _import_published(argv: Sequence[str]) -> int:
    options = parse(ImportConfig, argv, "viper import-published")
    from viper_e2e.commands.common import run_import

    return run_import(options)


def _pack(argv: Sequence[str]) -> int:
    options = parse(PackConfig, with_values(argv, "--missing", "--ignore"), "viper pack")
    from viper_e2e.commands.packing import run_pack

    return run_pack(options)


def _check(argv: Sequence[str]) -> int:
    options = parse(CheckConfig, argv, "viper check")
    from viper_e2e.commands.checking import run_check

    return run_check(options)


def _index(argv: Sequence[str]) -> int:
    options = parse(IndexConfig, argv, "viper index")
    from viper_e2e.commands.indexing import run_index

    return run_index(options)


def _bench(argv: Sequence[str]) -> int:
    more = "Every option of viper train works too: --preset, --num-workers, --batch-size, …"
    options, files, others = parse_beside_train(BenchConfig, argv, "viper bench", more)
    from viper_e2e.commands.parsing import parse_train

    # Nothing is written, so no run folder is needed; a name stands in for it.
    own = ["--train-shards", options.shards, "--run-dir", "none"]
    settings = parse_train([*others, *own], "viper bench", options, files)
    from viper_e2e.commands.bench import run_bench
    from viper_e2e.shards import ShardSet
    from viper_e2e.training import limits_of

    return run_bench(settings, ShardSet(options.shards, limits=limits_of(settings)), options.seconds)


def _env(argv: Sequence[str]) -> int:
    parse(EnvConfig, argv, "viper env")
    from viper_e2e.commands.env import run_env

    return run_env()


def _completion(argv: Sequence[str]) -> int:
    options = parse(CompletionConfig, argv, "viper completion")
    from viper_e2e.commands.completion import script

    print(script(options.shell, COMMANDS), end="")
    return ExitCode.OK


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "pack": (_pack, "pack clips and labels into shards"),
    "check": (_check, "report what is in a set of shards, and what is wrong with it"),
    "index": (_index, "write the index of shards that another program made"),
    "train": (_train, "train from raw video shards"),
    "sweep": (_sweep, "train with many settings on one pass over the clips, keep the best"),
    "cv": (_cv, "cross-validate: train once per fold, predict every clip once"),
    "eval": (_eval, "score a set of shards: metrics, predictions and plots"),
    "infer": (_infer, "score clips with a trained model"),
    "calibrate": (_calibrate, "calibrate probabilities and numbers, with intervals"),
    "ablate": (_ablate, "score what each modality contributes"),
    "compare": (_compare, "compare runs on the same clips: differences with intervals and p"),
    "export": (_export, "write a model with all its backbones inside"),
    "bench": (_bench, "measure what limits training on your shards, and say what to change"),
    "import-published": (_import_published, "convert the authors' released checkpoints into our format"),
    "env": (_env, "print versions, devices and decoders of this installation"),
    "completion": (_completion, "print a script for bash or zsh that completes commands and options"),
}


if __name__ == "__main__":
    sys.exit(main())
