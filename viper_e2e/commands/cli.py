"""cli.py: the command `viper`: one function a command, heavy imports after the arguments are read."""

from __future__ import annotations

import atexit
import codecs
import gc
import io
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from viper_e2e.errors import ExitCode, ViperError

MODELS = """none is taken by default; give --checkpoint one of these:
  VaianiLorenzo/ViPER-VA     one of the authors' eight, trained on Hume-Reaction (ViPER: validation r .3025)
  demo/run/checkpoints/best  what `make demo` trains on generated people; says nothing about real ones
  RUN/checkpoints/best       your own, by `viper train` on labelled clips; `viper eval` tells how good it is"""
TABLES = (".csv", ".tsv", ".txt", ".xlsx", ".xlsm", ".xls")
TABLE_WORDS = ("id_column", "split_column", "subject_column", "split", "encoding", "sheet")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 all fine, 1 nothing done or usage, 2 some clips failed."""
    argv = list(sys.argv[1:] if argv is None else argv)
    _spare_terminals()
    # Python looks for cycles among all that was imported once more before it ends: two seconds for nothing.
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
    command = argv[0] if argv else "--help"
    if command in ("-h", "--help"):
        print(_overview())
        return ExitCode.OK if argv else ExitCode.NOTHING_DONE
    if command == "--version":
        from viper_e2e import __version__

        print(f"viper_e2e {__version__}")
        return ExitCode.OK
    if command not in COMMANDS:
        return _unknown(command)
    try:
        with _stopping(command):
            return COMMANDS[command][0](argv[1:])
    except ViperError as error:
        print(f"viper {command}{_which_process()}: {error}", file=sys.stderr)
        return ExitCode.NOTHING_DONE
    except KeyboardInterrupt as stopped:
        print(f"\nviper {command}: stopped; {_what_is_kept(command, argv)}", file=sys.stderr)
        return stopped.args[0] if stopped.args else ExitCode.STOPPED
    except BrokenPipeError:
        # The reader of our output went away (`| head`); say nothing more, also not at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except OSError as error:
        # What the machine refuses (a full disk, a file without permission) is no fault of ours to be traced.
        from viper_e2e.runtime.environment import explain

        print(f"viper {command}{_which_process()}: {explain(error)}", file=sys.stderr)
        return ExitCode.NOTHING_DONE


@contextmanager
def _stopping(command: str) -> Iterator[None]:
    """SIGTERM and a lost terminal end a command as Ctrl-C does: it tidies up. `train` listens itself."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    own = threading.current_thread() is threading.main_thread() and command != "train"
    heard = [number for number in numbers if own and signal.getsignal(number) is signal.SIG_DFL]
    for number in heard:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, signal.SIG_DFL)


def _what_is_kept(command: str, argv: Sequence[str]) -> str:
    """Of a command that was stopped, and the line that goes on with it."""
    again = shlex.join(["viper", *argv])
    given = {word.partition("=")[0] for word in argv}
    if command == "infer" and not {"--output", "--out"} & given:
        return "nothing is kept (with --output FILE what is scored would be)"
    if command in ("infer", "eval", "ablate"):
        return f"what is scored is kept; go on with the rest by the same command: {again}"
    if command == "train":
        return f"training had not begun; begin by: {again}"
    return f"nothing was written; begin anew by: {again}"


_INSTEAD = {**dict.fromkeys("▏▎▍▌▋▊▉█━╸╺", "#"), "·": ".", "–": "-", "−": "-", "…": "~", "×": "x", "’": "'"}
"""What is drawn where a terminal has no such letter."""


def _spare_terminals() -> None:
    """Let a terminal that is not UTF-8 (cron, old containers) show what it can instead of ending a run."""

    def replaced(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        return "".join(_INSTEAD.get(c, "?") for c in error.object[error.start : error.end]), error.end

    codecs.register_error("viper_plain", replaced)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="viper_plain")


def _which_process() -> str:
    """Whose error it is, where torchrun or `accelerate launch` started several processes."""
    count = os.environ.get("WORLD_SIZE", "1")
    return f" (process {os.environ.get('RANK', '0')} of {count})" if count != "1" else ""


def _overview() -> str:
    lines = [
        "usage: viper COMMAND [options]",
        "",
        "Emotion recognition from raw video, end to end in one PyTorch module.",
        "",
        "commands:",
        *(f"  {name:<18}{text}" for name, (_, text) in COMMANDS.items()),
        "",
        "viper COMMAND --help tells the options of a command.",
        "exit codes: 0 all fine, 1 nothing done (also: a wrong option), 2 some clips failed, 130 stopped",
    ]
    return "\n".join(lines)


def _unknown(command: str) -> int:
    import difflib

    near = difflib.get_close_matches(command, COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else "see viper --help"
    print(f"viper: no command {command!r}; {hint}", file=sys.stderr)
    return ExitCode.NOTHING_DONE


# --- commands -------------------------------------------------------------------------------------


def _train(argv: Sequence[str]) -> int:
    from viper_e2e.commands.parsing import parse_train

    settings = parse_train(argv, "viper train")
    from viper_e2e.commands.scratch import keep_scratch_in_memory

    keep_scratch_in_memory()
    from viper_e2e.training.run import train

    return train(settings)


def _infer(argv: Sequence[str]) -> int:
    parser = _parser("infer", "Score clips, folders of clips or shards with a trained model.")
    parser.add_argument("inputs", nargs="+", metavar="CLIP", help="clip, folder of clips, or shards (*.tar)")
    _model_options(parser, required=False)
    parser.add_argument("--output", help="also write records: .csv, .xlsx, .parquet, .json or .jsonl")
    parser.add_argument(
        "--summary", metavar="FILE", help="whole clips of windows (default: beside --output, NAME.summary.csv)"
    )
    parser.add_argument("--bom", action="store_true", help="mark a CSV as UTF-8, for Excel")
    parser.add_argument("--faces", action="store_true", help="put the face's box of every frame in the records")
    parser.add_argument("--out", metavar="DIR", help="folder for all that is made: scores.csv, plots, videos")
    parser.add_argument(
        "--render",
        metavar="OUT.mp4",
        nargs="?",
        const="",
        help="write one clip (with --out: each) with box and bars over it",
    )
    parser.add_argument("--window-seconds", type=float, help="score a long clip in windows of this length")
    parser.add_argument("--hop-seconds", type=float, help="time between windows (default: half a window)")
    parser.add_argument(
        "--plot", metavar="OUT.png", nargs="?", const="", help="plot windows of one clip, or with --out of each"
    )
    _no_face_option(parser)
    _clip_options(parser)
    options = parser.parse_intermixed_args(_without_names(argv))
    if not options.checkpoint:
        raise ViperError(MODELS)
    from viper_e2e.commands.inference import run_infer

    return run_infer(options)


def _without_names(argv: Sequence[str]) -> list[str]:
    """``--render CLIP`` beside ``--out``: what follows is a clip, never the name of a video to be written."""
    has_folder = any(word == "--out" or word.startswith("--out=") for word in argv)
    bare = ("--render", "--plot") if has_folder else ()
    return [f"{word}=" if word in bare else word for word in argv]


def _eval(argv: Sequence[str]) -> int:
    parser = _parser("eval", "Score shards: metrics with intervals, predictions, plots.")
    parser.add_argument("--shards", required=True, help="path, glob, brace pattern or https:// URLs")
    parser.add_argument("--out", required=True, help="folder for metrics.json, predictions.csv and plots")
    parser.add_argument("--submission", action="store_true", help="also write the challenge's submission.csv")
    parser.add_argument("--report", action="store_true", help="also write one self-contained HTML page")
    parser.add_argument("--bom", action="store_true", help="mark predictions.csv as UTF-8, for Excel")
    _no_face_option(parser)
    _model_options(parser)
    _clip_options(parser)
    options = parser.parse_args(argv)
    from viper_e2e.commands.evaluation import run_eval

    return run_eval(options)


def _ablate(argv: Sequence[str]) -> int:
    parser = _parser("ablate", "Score every subset of the trained modalities from one pass of encoding.")
    parser.add_argument("--shards", required=True, help="path, glob, brace pattern or https:// URLs")
    parser.add_argument("--out", required=True, help="folder for ablation.json and ablation.png")
    _model_options(parser)
    _clip_options(parser)
    options = parser.parse_args(argv)
    from viper_e2e.commands.ablation import run_ablate

    return run_ablate(options)


def _export(argv: Sequence[str]) -> int:
    parser = _parser("export", "Write a model with all its backbones inside, to be moved anywhere.")
    parser.add_argument("--checkpoint", required=True, help="folder of a trained model, or a hub id")
    parser.add_argument("--out", required=True, help="new folder")
    _backbone_options(parser)
    options = parser.parse_args(argv)
    from viper_e2e.commands.common import run_export

    return run_export(options)


def _import_published(argv: Sequence[str]) -> int:
    parser = _parser("import-published", "Convert a released ViPER checkpoint into our folder format.")
    parser.add_argument("source", help="a .model file, or a hub id such as VaianiLorenzo/ViPER-VA")
    parser.add_argument("--out", required=True, help="new folder")
    _backbone_options(parser)
    options = parser.parse_args(argv)
    from viper_e2e.commands.common import run_import

    return run_import(options)


def _pack(argv: Sequence[str]) -> int:
    parser = _parser("pack", "Pack clips and labels into shards, one set per split.")
    parser.add_argument("--videos", required=True, help="folder of clips (mp4 mov mkv webm avi flv)")
    parser.add_argument(
        "--labels",
        required=True,
        action="append",
        help="table (csv, tsv, xlsx): File_ID, Split, one column per emotion; given again with titles, "
        "e.g. --labels Valence,Arousal: these columns alone are emotions",
    )
    parser.add_argument("--out", required=True, help="folder for the shards")
    parser.add_argument("--audio", help="folder of separately kept sound files (wav, flac, m4a, mp3, opus, …)")
    parser.add_argument("--fau", help="folder of precomputed action units (csv or npy per clip)")
    parser.add_argument("--shard-size", default="256MB", help="size of a shard (default: 256MB)")
    parser.add_argument("--max-bytes", metavar="SIZE", help="largest file of a clip, e.g. 4GB (default: 2 GiB)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of samples (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace the shards of an earlier run")
    parser.add_argument("--output", help="also write the report as JSON")
    _table_options(parser)
    options = parser.parse_args(_with_values(argv, "--missing", "--ignore"))
    import json

    from viper_e2e.packing import pack, parse_size, progress_bar
    from viper_e2e.runtime.outfiles import settle_file, written_whole
    from viper_e2e.runtime.terminal import SteadyConsole

    if options.output:
        settle_file(options.output, "--output")

    labels, choices = _table_of(options)
    with progress_bar("packing") as progress:
        report = pack(
            Path(options.videos),
            labels,
            Path(options.out),
            choices=choices,
            audio=Path(options.audio) if options.audio else None,
            fau=Path(options.fau) if options.fau else None,
            shard_size=parse_size(options.shard_size),
            seed=options.seed,
            overwrite=options.overwrite,
            progress=progress,
            **({"max_bytes": parse_size(options.max_bytes)} if options.max_bytes else {}),
        )
    if options.output:
        with written_whole(options.output) as partial:
            text = json.dumps(report.to_json(), indent=2) + "\n"
            partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    SteadyConsole(highlight=False).print(report)
    return report.exit_code


def _table_options(parser) -> None:
    """What a table's titles and values may leave open."""
    add = parser.add_argument_group("if the table leaves it open").add_argument
    add("--ignore", action="append", default=[], metavar="A,B", help="columns that are no emotions")
    add(
        "--missing",
        action="append",
        default=[],
        metavar="CODES",
        help="cells that stand for an empty one, e.g. -99,NA; none: there are no such codes",
    )
    add("--id-column", default="", metavar="TITLE", help="names the clips (default: File_ID, or Path)")
    add("--split-column", default="", metavar="TITLE", help="names the splits (default: Split)")
    add("--subject-column", default="", metavar="TITLE", help="tells who is seen (default: Subject)")
    add("--split", default="", metavar="NAME", help="of all rows, where no column tells it, e.g. train")
    add("--encoding", default="", help="of a text that is neither UTF-8, UTF-16 nor Windows-1252, e.g. gb18030")
    add("--sheet", default="", help="of an Excel workbook that has several")


def _with_values(argv: Sequence[str], *options: str) -> list[str]:
    """``--missing -99,NA`` → ``--missing=-99,NA``: argparse takes what begins with a dash for an option."""
    words = list(argv)
    for place in range(len(words) - 2, -1, -1):
        if words[place] in options and not words[place + 1].startswith("--"):
            words[place : place + 2] = [f"{words[place]}={words[place + 1]}"]
    return words


def _table_of(options):
    """The table that ``--labels`` names, and what was said of its columns."""
    from viper_e2e.packing import ColumnChoices

    def titles(given: list[str]) -> tuple[str, ...]:
        return tuple(title.strip() for words in given for title in words.split(",") if title.strip())

    tables = [word for word in options.labels if Path(word).suffix.lower() in TABLES or Path(word).is_file()]
    tables = tables or options.labels[:1]
    if len(tables) > 1:
        raise ViperError(f"--labels: one table is packed at a time, not {' and '.join(tables)}")
    choices = ColumnChoices(
        labels=titles([word for word in options.labels if word not in tables]),
        ignore=titles(options.ignore),
        missing=titles(options.missing),
        **{name: getattr(options, name) for name in TABLE_WORDS},
    )
    return Path(tables[0]), choices


def _check(argv: Sequence[str]) -> int:
    parser = _parser("check", "Read every clip of a set of shards and tell what is in it and what is wrong.")
    parser.add_argument("--shards", required=True, help="path, glob, brace pattern or https:// URLs")
    parser.add_argument("--faces", action="store_true", help="also look for faces (slower)")
    parser.add_argument("--output", help="also write the findings as JSON")
    parser.add_argument("--num-workers", type=int, help="decoding processes (default: one per CPU, at most 8)")
    _worker_options(parser)
    _clip_options(parser)
    options = parser.parse_args(argv)
    from viper_e2e.commands.reading_options import apply_reading_options, shard_limits
    from viper_e2e.config.schema import DecodingConfig
    from viper_e2e.packing import progress_bar
    from viper_e2e.runtime import plain_json
    from viper_e2e.runtime.outfiles import settle_file, written_whole
    from viper_e2e.runtime.terminal import SteadyConsole
    from viper_e2e.scoring.checking import check
    from viper_e2e.shards import ShardSet

    if options.output:
        settle_file(options.output, "--output")
    decoding = DecodingConfig()
    apply_reading_options(decoding, options)
    faces = None
    if options.faces:
        from viper_e2e.config.schema import FaceConfig
        from viper_e2e.faces import FaceCropper

        faces = FaceCropper(FaceConfig())
    with progress_bar("reading") as progress:
        shards = ShardSet(options.shards, limits=shard_limits(options), strict=False)
        report = check(
            shards,
            decoding=decoding,
            faces=faces,
            num_workers=options.num_workers,
            clip_timeout_seconds=options.clip_timeout_seconds,
            max_restarts=options.max_worker_restarts,
            progress=progress,
        )
    if options.output:
        with written_whole(options.output) as partial:
            partial.write_text(
                plain_json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8", errors="backslashreplace"
            )
    SteadyConsole(highlight=False).print(report)
    return report.exit_code


def _bench(argv: Sequence[str]) -> int:
    parser = _parser("bench", "Measure what limits training on given shards, and say which setting to change.")
    parser.add_argument("--shards", required=True, help="path, glob, brace pattern or https:// URLs")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long, about (default: 120)")
    parser.epilog = (
        "Every option of viper train is understood as well: --preset, --num-workers, --batch-size, …"
    )
    options, others = parser.parse_known_args(argv)
    if options.seconds <= 0:
        raise ViperError(f"--seconds {options.seconds:g}: give more than 0")
    from viper_e2e.commands.parsing import parse_train

    # Nothing is written, so no run folder is needed; a name stands in for it.
    settings = parse_train(["--train-shards", options.shards, "--run-dir", "none", *others], "viper bench")
    from viper_e2e.commands.bench import run_bench
    from viper_e2e.shards import ShardLimits, ShardSet

    limits = ShardLimits(max_clip_bytes=settings.model.decoding.limits.max_bytes_in_memory)
    return run_bench(settings, ShardSet(options.shards, limits=limits), options.seconds)


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "pack": (_pack, "clips and labels -> shards"),
    "check": (_check, "what is in a set of shards, and what is wrong with it"),
    "train": (_train, "train from raw video shards"),
    "eval": (_eval, "metrics, predictions and plots for a set of shards"),
    "infer": (_infer, "score clips with a trained model"),
    "ablate": (_ablate, "what each modality contributes"),
    "export": (_export, "a model with all its backbones inside"),
    "bench": (_bench, "what limits training on your shards, and what to change"),
    "import-published": (_import_published, "the authors' released checkpoints -> our format"),
}


def _parser(command: str, description: str):
    from viper_e2e.commands.parsing import Parser

    return Parser(prog=f"viper {command}", description=description, allow_abbrev=False)


def _model_options(parser, *, required: bool = True) -> None:
    parser.add_argument("--checkpoint", required=required, help="folder of a trained model, or a hub id")
    _backbone_options(parser)
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    parser.add_argument(
        "--mixed-precision",
        default="no",
        choices=("no", "bf16", "auto"),
        help="auto: the faster of no and bf16 on this device (default: no)",
    )
    parser.add_argument(
        "--compile", action="store_true", help="compile image towers, Whisper and the fusion (torch.compile)"
    )
    parser.add_argument("--batch-size", type=int, default=8, help="clips per forward pass (default: 8)")
    parser.add_argument("--num-workers", type=int, default=1, help="decoding processes (default: 1)")
    _worker_options(parser)


def _worker_options(parser) -> None:
    """What to do about clips that crash or hang their process; `train` has the same settings."""
    from viper_e2e.config.schema import TrainConfig

    parser.add_argument(
        "--clip-timeout-seconds",
        type=float,
        metavar="S",
        default=TrainConfig.clip_timeout_seconds,
        help="a clip that takes a process longer is left out (default: %(default)g)",
    )
    parser.add_argument(
        "--max-worker-restarts",
        type=int,
        metavar="N",
        default=TrainConfig.max_worker_restarts,
        help="lost processes that are replaced before the command ends (default: %(default)s)",
    )


def _no_face_option(parser) -> None:
    parser.add_argument(
        "--no-face",
        choices=("score", "nan"),
        default="score",
        help="a clip without any face: score its whole pictures and say so (default), or give no numbers",
    )


def _clip_options(parser) -> None:
    """How clips are read; `train` and `bench` get the same options in parsing.py."""
    from viper_e2e.commands.reading_options import add_reading_options

    add_reading_options(parser)


def _backbone_options(parser) -> None:
    parser.add_argument(
        "--backbone",
        action="append",
        default=[],
        metavar="NAME=SOURCE",
        help="where to load a backbone from, e.g. visual=PATH (may be repeated)",
    )
    parser.add_argument("--sentence-bank", help="file with the sentences that CLIP chooses among")


if __name__ == "__main__":
    sys.exit(main())
