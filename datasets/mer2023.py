"""mer2023.py: MER 2023 (Lian et al.), Chinese series and films -> shards; emotion and valence.

    python datasets/mer2023.py --corpus MER2023 --out shards/mer2023

Expects `train`, `test1`, `test2`, `test3` beside `train-label.csv`, `test1-label.csv` and so on.
"""

from __future__ import annotations

from pathlib import Path

from made_up import Tree

from viper_e2e.commands import run_recipe
from viper_e2e.packing import Beside, Corpus, Table
from viper_e2e.tables import TaskColumns

EMOTIONS = ("neutral", "angry", "happy", "sad", "worried", "surprise")
WORDS = Beside(
    table="transcription-engchi-polish.csv", key="{name}", on="{name}", columns={"chinese": "chinese"}
)
SPLITS = {"train": "train", "test1": "test", "test2": "noise", "test3": "semi"}
CORPUS = Corpus(
    name="MER2023",
    about="clips of Chinese series and films; test1 is the plain test set, test2 has noise, test3 no valence",
    link="https://huggingface.co/datasets/MERChallenge/MER2023",
    licence="agreement of the challenge: academic research only; samples must not be changed or uploaded",
    measure="weighted F1 of the six emotions; on test1 and test2 F1 − 0.25 · MSE of valence",
    split="train; test1 (test), test2 (noise), test3 (semi); five folds of train for validation",
    tasks=(
        TaskColumns("emotion", "class", ("Emotion",), EMOTIONS),
        TaskColumns("valence", "number", ("Valence",), span=(-10.0, 10.0)),
    ),
    combined={"f1_mse": {"emotion.weighted_f1": 1.0, "valence.mse": -0.25}},
    sources=tuple(
        Table(
            table=f"{folder}-label.csv",
            row={
                "Path": f"{folder}/{{name}}",
                "Split": split,
                "Emotion": "{discrete}",
                "Valence": "" if folder == "test3" else "{valence}",
                "Text": "{chinese}",
            },
            beside=(WORDS,),
            optional=folder != "train",
        )
        for folder, split in SPLITS.items()
    ),
    unverified=(
        "the row counts (from memory: 3,373, 411, 412 and 834)",
        "that valence is between −10 and 10",
        "that transcription-engchi-polish.csv has the transcripts, in the columns name, chinese, english",
    ),
    rows={"train": 3373, "test": 411, "noise": 412, "semi": 834},
    rows_unverified=True,
)


def fake(folder: Path) -> None:
    tree = Tree(folder)
    for place, (split, ending) in enumerate(zip(SPLITS, ("avi", "avi", "mp4", "avi"), strict=True)):
        names = [f"sample_{10 * place + n:08d}" for n in range(3)]
        cells = [{"name": name, "discrete": EMOTIONS[n], "valence": n - 1.5} for n, name in enumerate(names)]
        if split == "test3":
            cells = [{"name": one["name"], "discrete": one["discrete"]} for one in cells]
        tree.table(f"{split}-label.csv", cells, encoding="utf-8-sig" if place % 2 else "utf-8")
        tree.clips(f"{split}/{name}.{ending}" for name in names)
    words = {"name": "sample_00000000", "chinese": "你，怎么来了？", "english": "You, why are you here?"}
    tree.table("transcription-engchi-polish.csv", [words], encoding="utf-8-sig")


if __name__ == "__main__":
    run_recipe(CORPUS, fake)
