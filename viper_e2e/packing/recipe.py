"""packing/recipe.py: facts about a published corpus, and its folder -> rows of a table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from viper_e2e.errors import ViperError
from viper_e2e.loading import find_files
from viper_e2e.packing.recipe_sources import Fields, Folder, Source, Table, some
from viper_e2e.runtime import count_of
from viper_e2e.tables import ColumnChoices, TaskColumns
from viper_e2e.tasks import combined_from_json


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A published corpus: where it is from, what is learned from it, and what its folder should hold."""

    name: str
    about: str
    link: str
    licence: str
    measure: str
    """The measure that papers report on it."""
    split: str
    """The split that they report it for."""
    tasks: tuple[TaskColumns, ...]
    combined: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Measures of papers that combine several tasks: name → ``TASK.MEASURE`` → its weight in a sum."""
    sources: tuple[Source, ...]
    meta: tuple[str, ...] = ()
    """Columns kept with each clip, to score groups by, beside those that are always kept (Fold, Session, …)."""
    missing: tuple[str, ...] = ()
    """Cells that mean "no label" in its tables."""
    folds: tuple[str, ...] = ()
    """Values of the column ``Fold``; one of them is held out, the first where nobody says which."""
    held_out: str = "test"
    """Split that its clips become; those of other folds are train, those without a fold stay as they are."""
    trained: Mapping[str, Table] = field(default_factory=dict)
    """Fold → the corpus's own list of what is trained on, which should be all clips of the others."""
    rows: Mapping[str, int] = field(default_factory=dict)
    """How many rows a split (or ``all``) should have."""
    classes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """How many rows of a split (or ``all``) should be of a class of the first task."""
    rows_unverified: bool = False
    """Whether these numbers are from memory."""
    known: Mapping[str, str] = field(default_factory=dict)
    """Path of a clip → what is known to be wrong with it; reported if the clip is there."""
    unverified: tuple[str, ...] = ()
    """Facts that nobody has compared with the corpus or with public code that reads it."""

    def choices(self) -> ColumnChoices:
        combined = combined_from_json(self.combined)
        return ColumnChoices(tasks=self.tasks, meta=self.meta, missing=self.missing, combined=combined)


@dataclass(frozen=True)
class CorpusRows:
    """Rows made of a corpus's folder."""

    rows: list[Fields]
    notes: list[str]
    """Differences from the facts about the corpus, and what was left out."""


def corpus_rows(corpus: Corpus, folder: Path, fold: str = "") -> CorpusRows:
    """The rows of labels.csv for a corpus in ``folder``, with ``fold`` held out.

    Differences from what is expected are reported, never refused. Raises ``ViperError`` if the
    folder holds no such corpus.
    """
    if not folder.is_dir():
        raise ViperError(f"{folder}: no such folder; --corpus is the folder as it is distributed")
    files = tuple(path.relative_to(folder).as_posix() for path in find_files(folder).files)
    notes: list[str] = []
    there = Folder(folder, files, notes)
    rows = [row for source in corpus.sources for row in source.rows(there)]
    if not rows:
        raise ViperError(
            f"{folder}: no clips of this corpus found; --corpus is the folder as it is distributed"
        )
    if corpus.folds and any(row.get("Fold") for row in rows):
        notes += _in_several_folds(rows)
        fold = fold or corpus.folds[0]
        split = {fold: corpus.held_out}
        rows = [{**row, "Split": split.get(row["Fold"], "train")} if row["Fold"] else row for row in rows]
        notes.append(f"fold {fold} is {corpus.held_out}, the others are train; all are in the column Fold")
        notes += _lists_of_folds(corpus, there, rows)
    columns = dict.fromkeys(column for row in rows for column in row)
    rows = [{column: row.get(column, "") for column in columns} for row in rows]
    hidden = sorted(path.name for path in folder.rglob("._*"))
    if hidden:
        one, many = (
            "file that macOS leaves behind is not a clip",
            "files that macOS leaves behind are not clips",
        )
        notes.append(f"{count_of(len(hidden), one, many)}: {some(hidden)}")
    notes += [f"{path}: {what}" for path, what in corpus.known.items() if (folder / path).exists()]
    notes += differences(corpus, rows, fold)
    notes += [f"not checked against the corpus: {fact}" for fact in corpus.unverified]
    return CorpusRows(rows, [f"{corpus.name}: {line}" for line in notes])


def _in_several_folds(rows: Sequence[Fields]) -> list[str]:
    """Clips that are in the test list of two folds."""
    folds = defaultdict(set)
    for row in rows:
        folds[row["Path"]].add(row["Fold"])
    twice = sorted(path for path, found in folds.items() if len(found) > 1)
    return (
        [f"{count_of(len(twice), 'clip is', 'clips are')} in the test lists of several folds: {some(twice)}"]
        if twice
        else []
    )


def _lists_of_folds(corpus: Corpus, folder: Folder, rows: Sequence[Fields]) -> list[str]:
    """Folds whose training list is not everything outside their test list."""
    notes = []
    for fold, table in corpus.trained.items():
        listed = {row["Path"] for row in table.rows(folder)}
        expected = {row["Path"] for row in rows if row["Fold"] != fold}
        for differ, text in ((expected - listed, "not in"), (listed - expected, "only in")):
            if differ:
                named = some(sorted(differ))
                notes.append(
                    f"{count_of(len(differ), 'clip is', 'clips are')} {text} the training "
                    f"list of fold {fold}: {named}"
                )
    return notes


def differences(corpus: Corpus, rows: Sequence[Mapping[str, object]], fold: str = "") -> list[str]:
    """Counts that are not those expected; of splits that folds make, for the first fold alone."""
    notes = []
    about = "about " if corpus.rows_unverified else ""
    for split, expected in corpus.rows.items():
        found = len(_of_split(rows, split))
        if found != expected and (split == "all" or fold in ("", *corpus.folds[:1])):
            where = "" if split == "all" else f" of {split}"
            notes.append(
                f"expected {about}{count_of(expected, 'row')}{where}, found {found:,}: see {corpus.link}"
            )
    titles = [title for task in corpus.tasks if task.is_words for title in task.titles]
    for split, wanted in corpus.classes.items():
        counts = Counter(row[titles[0]] for row in _of_split(rows, split))
        wrong = [f"{name} {counts[name]:,} (expected {n:,})" for name, n in wanted.items() if counts[name] != n]
        if wrong:
            notes.append(f"numbers of clips by class in {split}: {', '.join(wrong)}")
    return notes


def _of_split(rows: Sequence[Mapping[str, object]], split: str) -> list[Mapping[str, object]]:
    return [row for row in rows if split in ("all", row.get("Split"))]
