"""mafw.py: MAFW (Liu et al. 2022), clips of films, series and the web -> shards; one of eleven emotions.

    python datasets/mafw.py --corpus MAFW --out shards/mafw [--fold 2]

Expects `data/clips` and the lists of the single-labelled set, `Train & Test Set/single/no_caption/set_1` to 5.
"""

from __future__ import annotations

from pathlib import Path

from made_up import Tree

from viper_e2e.commands import run_recipe
from viper_e2e.packing import Corpus, Table
from viper_e2e.tables import TaskColumns

EMOTIONS = (
    *("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
    *("contempt", "anxiety", "helplessness", "disappointment"),
)
FOLDS = ("1", "2", "3", "4", "5")
LISTS = "Train*Test*Set/single/no_caption"
"""`Train & Test Set` as distributed, `Train_Test_Set` in copies."""


def listed(kind: str, fold: str) -> Table:
    return Table(
        table=f"{LISTS}/set_{fold}/{kind}.txt",
        columns=("clip", "emotion"),
        separator=" ",
        row={"Path": "data/clips/{clip}", "Fold": fold, "Emotion": "{emotion}"},
    )


CORPUS = Corpus(
    name="MAFW",
    about="10,045 clips of films, series and the web (21 without sound); here those with a single label",
    link="https://github.com/MAFW-database/MAFW",
    licence="agreement with its owners: research only",
    measure="UAR and WAR of the eleven emotions, means over five folds",
    split="five folds as given, each with its own lists",
    tasks=(TaskColumns("emotion", "class", ("Emotion",), EMOTIONS),),
    sources=tuple(listed("test", fold) for fold in FOLDS),
    folds=FOLDS,
    trained={fold: listed("train", fold) for fold in FOLDS},
    rows={"all": 9172},
    rows_unverified=True,
    unverified=("the number of clips with a single label (from memory: 9,172)", "the licence and the link"),
)


def fake(folder: Path) -> None:
    tree = Tree(folder)
    clips = {f"{n:05d}.mp4": EMOTIONS[n % 3] for n in range(1, 11)}
    for fold in FOLDS:
        test = [name for n, name in enumerate(clips) if str(n % 5 + 1) == fold]
        train = [name for name in clips if name not in test]
        if fold == "3":
            train.remove("00001.mp4")
        for kind, names in (("test", test), ("train", train)):
            text = "".join(f"{name} {clips[name]}\n" for name in names)
            tree.text(f"Train & Test Set/single/no_caption/set_{fold}/{kind}.txt", text)
    tree.clip("data/clips/00002.mp4", sound=None)
    tree.clips(f"data/clips/{name}" for name in [*clips, "09999.mp4"] if name not in ("00002.mp4", "00010.mp4"))
    tree.data("data/frames/00001/00001.jpg", b"\xff\xd8\xff")
    tree.clip("data/audio_16k/00001.wav")


if __name__ == "__main__":
    run_recipe(CORPUS, fake)
