"""dfew.py: DFEW (Jiang et al. 2020), clips of films -> shards; one of seven emotions.

    python datasets/dfew.py --corpus DFEW --out shards/dfew [--fold 2]

Expects the clips as videos (`1.mp4` …, at any depth) and `EmoLabel_DataSplit`. Names are five digits in one
place and bare numbers in another: the number counts. Folders of pictures (`Clip/jpg_256`) are not read.
"""

from __future__ import annotations

from pathlib import Path

from made_up import Tree

from viper_e2e.commands import run_recipe
from viper_e2e.packing import Corpus, Table
from viper_e2e.tables import TaskColumns

EMOTIONS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
CODES = {"0": "", **{str(code): word for code, word in enumerate(EMOTIONS, start=1)}}
"""0 stands for a clip without a single label."""
FOLDS = ("1", "2", "3", "4", "5")


def listed(kind: str, fold: str) -> Table:
    return Table(
        table=f"EmoLabel_DataSplit/{kind}(single-labeled)/set_{fold}.csv",
        row={"Path": "{video_name}", "Fold": fold, "Emotion": "{label}"},
        words={"label": CODES},
        by_number=True,
    )


CORPUS = Corpus(
    name="DFEW",
    about="16,372 clips of films, of which those with a single label are used here",
    link="https://dfew-dataset.github.io",
    licence="agreement with its owners: research only",
    measure="UAR and WAR of the seven emotions, means over five folds",
    split="five folds as given, each with its own lists",
    tasks=(TaskColumns("emotion", "class", ("Emotion",), EMOTIONS),),
    sources=tuple(listed("test", fold) for fold in FOLDS),
    folds=FOLDS,
    trained={fold: listed("train", fold) for fold in FOLDS},
    rows={"train": 9356},
    unverified=(
        "the folder of its videos (the recipe searches all folders by number)",
        "the licence and the link",
    ),
)


def fake(folder: Path) -> None:
    tree = Tree(folder)
    labels = {n: n % 3 + 1 for n in range(1, 11)} | {12: 0}
    for fold in FOLDS:
        test = [n for n in labels if str(n % 5 + 1) == fold]
        for kind, numbers in (("test", test), ("train", [n for n in labels if n not in test])):
            names = [f"{n:05d}" if kind == "test" or n % 2 else str(n) for n in numbers]
            cells = [{"video_name": name, "label": labels[int(name)]} for name in names]
            tree.table(f"EmoLabel_DataSplit/{kind}(single-labeled)/set_{fold}.csv", cells)
    tree.clips(f"Clip/original/{n}.mp4" for n in labels if n != 9)
    tree.data("Clip/jpg_256/00001/00001.jpg", b"\xff\xd8\xff")


if __name__ == "__main__":
    run_recipe(CORPUS, fake)
