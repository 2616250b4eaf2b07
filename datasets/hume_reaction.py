"""hume_reaction.py: Hume-Reaction (MuSe 2022, ABAW 2023) -> shards, from the challenge's folders.

    python datasets/hume_reaction.py --corpus c2_muse_reaction --out shards/hume [--videos DIR] [--audio DIR]

Labels come in one of two forms: `data_info.csv` (File_ID, Split, the seven), or the MuSe 2022 baseline's pair
`labels.csv` (File_ID, the seven) and `partition.csv` (the id first, `train`/`devel`/`test` last). Clips are
looked for in `mp4`, `raw`, `videos` or the corpus folder itself; sound kept apart in `wav`, action units in
`feats/fau`, each used if it is there.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from made_up import Tree

from viper_e2e.commands import pack_corpus, recipe_options, run_chosen
from viper_e2e.config import RecipeOptions, option
from viper_e2e.errors import ViperError
from viper_e2e.labels import HUME_REACTION
from viper_e2e.packing import Corpus
from viper_e2e.tables import TaskColumns

SPLITS = {"train": "train", "val": "val", "valid": "val", "devel": "val", "dev": "val", "test": "test"}
EMPTY = {"", "nan", "none", "-"}
CORPUS = Corpus(
    name="Hume-Reaction",
    about="25,067 clips of people who react to videos, with seven self-reported intensities",
    link="https://www.muse-challenge.org",
    licence="agreement: non-commercial research only, no redistribution",
    measure="mean Pearson of the seven intensities",
    split="train, val and test as given; the test labels were never released",
    tasks=(TaskColumns("reactions", "intensities", HUME_REACTION.columns, span=(0.0, 1.0)),),
    sources=(),
    rows={"train": 15_806, "val": 4_657, "test": 4_604},
    unverified=("the link",),
)


def read_csv(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise ViperError(
            f"{path}: cannot be read ({error.strerror}); --corpus is the challenge's folder"
        ) from error


def rows_of(corpus: Path) -> list[dict[str, object]]:
    """The lines of our labels.csv; clips without labels (the challenge's test set) have empty cells."""
    whole = (corpus / "data_info.csv").exists()
    source = corpus / ("data_info.csv" if whole else "labels.csv")
    records = read_csv(source)
    for column in ("File_ID", *HUME_REACTION.columns, *(["Split"] if whole else [])):
        if not records or column not in records[0]:
            raise ViperError(f"{source}: no column {column!r}; is this the label file of Hume-Reaction?")
    if whole:
        splits = [(record["File_ID"], record["Split"]) for record in records]
    else:
        partition = [list(record.values()) for record in read_csv(corpus / "partition.csv")]
        splits = [(values[0], values[-1]) for values in partition]
    labels = {record["File_ID"]: record for record in records}
    return [row(corpus, file_id, split, labels.get(file_id, {})) for file_id, split in splits]


def row(corpus: Path, file_id: str, split: str, record: dict[str, str]) -> dict[str, object]:
    if split.strip().lower() not in SPLITS:
        raise ViperError(f"{corpus}: split {split!r} of {file_id!r}; known are {', '.join(SPLITS)}")
    cells = {column: (record.get(column) or "").strip() for column in HUME_REACTION.columns}
    values = {column: "" if cell.lower() in EMPTY else cell for column, cell in cells.items()}
    subject = record.get("Subject") or ""
    return {"File_ID": file_id, "Split": SPLITS[split.strip().lower()], "Subject": subject, **values}


def first_folder(corpus: Path, names: tuple[str, ...]) -> Path | None:
    return next((corpus / name for name in names if (corpus / name).is_dir()), None)


@dataclass(kw_only=True)
class Options(RecipeOptions):
    """Pack Hume-Reaction into shards."""

    videos: Path | None = option(
        None, metavar="DIR", help="folder of the clips (default: mp4, raw or videos in --corpus)"
    )
    audio: Path | None = option(
        None, metavar="DIR", help="folder of wav files kept apart (default: wav in --corpus)"
    )
    fau: Path | None = option(
        None, metavar="DIR", help="folder of action units (default: feats/fau in --corpus)"
    )


def fake(folder: Path) -> None:
    tree = Tree(folder)
    rows = []
    for n, split in enumerate(("Train", "Train", "Train", "Val", "Val", "Test", "Test")):
        values = dict.fromkeys(HUME_REACTION.columns, "" if split == "Test" else 0)
        if split != "Test":
            values |= {HUME_REACTION.columns[n % 7]: 1, HUME_REACTION.columns[(n + 2) % 7]: 0.5}
        rows.append({"File_ID": f"[{n:05d}]", "Split": split, **values})
    tree.table("data_info.csv", rows)
    tree.clips(f"mp4/{n:05d}.mp4" for n in range(len(rows) - 1))


def pack_it() -> int:
    given = recipe_options(Options)
    return pack_corpus(
        given,
        rows_of(given.corpus),
        videos=given.videos or first_folder(given.corpus, ("mp4", "raw", "videos")) or given.corpus,
        audio=given.audio or first_folder(given.corpus, ("wav",)),
        fau=given.fau or first_folder(given.corpus, ("feats/fau", "feats/FAU", "feats/faus")),
        expected=CORPUS,
    )


if __name__ == "__main__":
    run_chosen(CORPUS, fake, pack_it)
