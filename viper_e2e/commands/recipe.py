"""recipe.py: what every recipe in datasets/ shares: its options, and the way from rows to shards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from viper_e2e.commands.cli import set_volume
from viper_e2e.commands.command_line import parse
from viper_e2e.config import RecipeOptions
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.packing import ColumnChoices, label_titles, pack, shards_in_the_way, write_labels
from viper_e2e.runtime import counting

C = TypeVar("C", bound=RecipeOptions)
Rows = Sequence[Mapping[str, object]]


def recipe_options(kind: type[C]) -> C:
    """What the command line of a recipe says. ``kind``: `RecipeOptions`, or a dataclass that adds its own."""
    script, *words = set_volume(sys.argv)
    return parse(kind, words, Path(script).name)


def pack_corpus(
    given: RecipeOptions, rows: Rows, *, videos: Path, audio: Path | None = None, fau: Path | None = None
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
            shard_size=given.shard_size.num_bytes,
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
