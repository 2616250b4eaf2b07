"""mer2024.py: MER 2024 (Lian et al.) -> shards; the labelled clips.

    python datasets/mer2024.py --corpus MER2024 --out shards/mer2024

Expects `video-labeled` beside `label-disdim.csv`.
"""

from __future__ import annotations

from pathlib import Path

from made_up import Tree

from viper_e2e.commands import run_recipe
from viper_e2e.packing import Beside, Corpus, Table
from viper_e2e.tables import TaskColumns

EMOTIONS = ("neutral", "angry", "happy", "sad", "worried", "surprise")
CORPUS = Corpus(
    name="MER2024",
    about="labelled clips of Chinese series and films; the candidates that come with them have no labels",
    link="https://huggingface.co/datasets/MERChallenge/MER2024",
    licence="agreement of the challenge: academic research only",
    measure="weighted F1 of the six emotions",
    split="none is published: all labelled clips are train, for viper cv; its test labels are not included",
    tasks=(TaskColumns("emotion", "class", ("Emotion",), EMOTIONS),),
    sources=(
        Table(
            table="label-disdim.csv",
            row={
                "Path": "video-labeled/{name}",
                "Split": "train",
                "Emotion": "{discrete}",
                "Text": "{chinese}",
            },
            beside=(
                Beside(
                    table="label-transcription.csv", key="{name}", on="{name}", columns={"chinese": "chinese"}
                ),
            ),
        ),
    ),
    rows={"train": 5030},
    rows_unverified=True,
    unverified=(
        "the row count (from memory: 5,030)",
        "that label-transcription.csv has the transcripts, in the columns name and chinese",
        "the link and the licence",
    ),
)


def fake(folder: Path) -> None:
    tree = Tree(folder)
    names = [f"samplenew_{n:08d}" for n in range(6)]
    cells = [{"name": name, "discrete": EMOTIONS[n % 3]} for n, name in enumerate(names)]
    tree.table("label-disdim.csv", cells)
    tree.table("label-transcription.csv", [{"name": names[0], "chinese": "好，走吧。"}])
    tree.clips(f"video-labeled/{name}.mp4" for name in names)
    tree.clip("video-unlabeled/samplenew3_00000001.mp4")


if __name__ == "__main__":
    run_recipe(CORPUS, fake)
