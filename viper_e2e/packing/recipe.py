"""packing/recipe.py: what every recipe in datasets/ shares: its arguments, and the way from rows to shards."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from viper_e2e.config import Size
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.packing.columns import ColumnChoices
from viper_e2e.packing.pack import pack, shards_in_the_way
from viper_e2e.packing.table import label_titles, write_labels
from viper_e2e.runtime import counting

Rows = Sequence[Mapping[str, object]]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # As in `viper`: 2 means that some clips were left out.
        self.exit(1, f"{self.prog}: {message} (see --help)\n")


def recipe_arguments(description: str) -> argparse.ArgumentParser:
    """The arguments that all recipes have; a recipe adds its own."""
    parser = _Parser(description=description)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the corpus as it is distributed")
    parser.add_argument("--out", type=Path, required=True, help="folder for the shards and labels.csv")
    parser.add_argument("--shard-size", default="256MB", help="a shard is closed before it grows over this")
    parser.add_argument("--seed", type=int, default=0, help="order of the samples in the shards")
    parser.add_argument("--overwrite", action="store_true", help="replace the shards of an earlier run")
    return parser


def pack_corpus(
    given: argparse.Namespace, rows: Rows, *, videos: Path, audio: Path | None = None, fau: Path | None = None
) -> int:
    """Write ``OUT/labels.csv`` from a recipe's rows, pack, print the report; returns the exit code."""
    if not rows:
        raise ViperError(
            f"{videos}: no clips of this corpus found; --corpus is the folder as it is distributed"
        )
    shards_in_the_way(given.out, given.overwrite)  # before labels.csv of that run is replaced
    labels = given.out / "labels.csv"
    write_labels(labels, rows)
    with counting("packing") as progress:
        report = pack(
            videos,
            labels,
            given.out,
            choices=ColumnChoices(labels=label_titles(rows)),
            audio=audio,
            fau=fau,
            shard_size=Size.parse(given.shard_size).num_bytes,
            seed=given.seed,
            overwrite=given.overwrite,
            progress=progress,
        )
    Console().print(report)
    return report.exit_code


def run(main: Callable[[], int]) -> None:
    """Exit as commands do: 0 all packed, 2 some clips left out, 1 nothing done, with one line that says why."""
    try:
        sys.exit(main())
    except ViperError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(ExitCode.NOTHING_DONE)
