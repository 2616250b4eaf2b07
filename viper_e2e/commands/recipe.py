"""recipe.py: common part of the recipes in datasets/: their options, and the way from rows to shards."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from rich.text import Text

from viper_e2e.commands.cli import set_volume
from viper_e2e.commands.command_line import parse
from viper_e2e.commands.findings import tell_findings
from viper_e2e.commands.packing import tell_next
from viper_e2e.config import FoldRecipeOptions, RecipeOptions
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.packing import Corpus, PackOptions, corpus_rows, differences, pack, shards_in_the_way
from viper_e2e.runtime import SteadyConsole, counting
from viper_e2e.tables import ColumnChoices, label_titles, write_labels

C = TypeVar("C", bound=RecipeOptions)
Rows = Sequence[Mapping[str, object]]
Fake = Callable[[Path], None]
"""Writes a made-up tree of a corpus into a folder."""


def recipe_options(kind: type[C]) -> C:
    """Options of a recipe's command line. ``kind``: `RecipeOptions`, or a dataclass that adds its own."""
    script, *words = set_volume(sys.argv)
    return parse(kind, words, Path(script).name)


def run_recipe(corpus: Corpus, fake: Fake) -> None:
    """All that a recipe of facts does: pack what it describes, tell what differs, exit as commands do."""

    def pack_it() -> int:
        if not corpus.folds:
            return pack_known(recipe_options(RecipeOptions), corpus)
        given = recipe_options(FoldRecipeOptions)
        return pack_known(given, corpus, given.fold)

    run_chosen(corpus, fake, pack_it)


def run_chosen(corpus: Corpus, fake: Fake, pack_it: Callable[[], int]) -> None:
    """The same for a recipe with options of its own, which ``pack_it`` reads."""

    def main() -> int:
        done = instead_of_packing(corpus, fake)
        return pack_it() if done is None else done

    run(main)


def instead_of_packing(corpus: Corpus, fake: Fake) -> int | None:
    """Carry out ``--facts`` and ``--make-fake DIR``; ``None`` if a corpus is to be packed."""
    words = [part for word in sys.argv[1:] for part in word.split("=", 1)]
    if "--facts" in words:
        print(facts_of(corpus))
        return ExitCode.OK
    if "--make-fake" not in words:
        return None
    (folder,) = words[words.index("--make-fake") + 1 :][:1] or [""]
    if not folder or Path(folder).exists():
        raise ViperError(f"--make-fake {folder}: name a folder that is not there yet")
    fake(Path(folder))
    print(f"{folder}: a made-up tree of {corpus.name}, none of whose clips is real")
    return ExitCode.OK


def facts_of(corpus: Corpus) -> str:
    """Facts about a corpus, for people."""
    counts = [f"{n:,}{'' if split == 'all' else f' {split}'}" for split, n in corpus.rows.items()]
    tasks = [f"{task.name} ({task.kind})" for task in corpus.tasks]
    lines = {
        "what": corpus.about,
        "link": corpus.link,
        "licence": corpus.licence,
        "learned": ", ".join(tasks),
        "reported": corpus.measure,
        "split": corpus.split,
        "rows": ", ".join(counts) or "not known",
        "not checked": "; ".join(corpus.unverified) or "nothing",
    }
    return "\n".join([corpus.name, *(f"  {title}: {text}" for title, text in lines.items())])


def pack_known(given: RecipeOptions, corpus: Corpus, fold: str = "") -> int:
    """Pack a corpus that is described by facts, and tell where its folder differs from them."""
    if fold and fold not in corpus.folds:
        raise ViperError(f"--fold {fold}: {corpus.name} has the folds {', '.join(corpus.folds)}")
    found = corpus_rows(corpus, given.corpus, fold)
    code = pack_corpus(given, found.rows, videos=given.corpus, choices=corpus.choices())
    _tell(found.notes)
    return code


def pack_corpus(
    given: RecipeOptions,
    rows: Rows,
    *,
    videos: Path,
    audio: Path | None = None,
    fau: Path | None = None,
    choices: ColumnChoices | None = None,
    expected: Corpus | None = None,
) -> int:
    """Write ``OUT/labels.csv`` from a recipe's rows, pack, print the report; returns the exit code.

    Without ``choices``, all columns but those with names of their own are intensities. Counts that are not
    those of ``expected`` are reported.
    """
    if not rows:
        raise ViperError(
            f"{videos}: no clips of this corpus found; --corpus is the folder as it is distributed"
        )
    shards_in_the_way(given.out, given.overwrite)  # before labels.csv of that run is replaced
    labels = given.out / "labels.csv"
    write_labels(labels, rows)
    how = PackOptions(
        choices=choices or ColumnChoices(labels=label_titles(rows)),
        audio=audio,
        fau=fau,
        shard_size=given.shard_size.num_bytes,
        seed=given.seed,
        overwrite=given.overwrite,
    )
    with counting("packing") as progress:
        report = pack(videos, labels, given.out, how, progress=progress)
    tell_findings(report, None)
    if expected is not None:
        _tell(f"{expected.name}: {line}" for line in differences(expected, rows))
    tell_next(report)
    return report.exit_code


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        SteadyConsole().print(Text(f"note: {line}", style="yellow"))


def run(main: Callable[[], int]) -> None:
    """Exit as commands do: 0 all packed, 2 some clips left out, 1 nothing done, with one line that says why."""
    try:
        sys.exit(main())
    except ViperError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(ExitCode.NOTHING_DONE)
