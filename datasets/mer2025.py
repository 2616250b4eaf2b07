"""mer2025.py: MER 2025 (Lian et al.), its first track -> shards; the candidates are packed without labels.

    python datasets/mer2025.py --corpus mer2025-dataset --out shards/mer2025

Expects `video` beside `track1_train_disdim.csv`, `track_all_candidates.csv` and `subtitle_chieng.csv`.
"""

from __future__ import annotations

from pathlib import Path

from made_up import Tree

from viper_e2e.commands import run_recipe
from viper_e2e.packing import Beside, Corpus, Table
from viper_e2e.tables import TaskColumns

EMOTIONS = ("neutral", "angry", "happy", "sad", "worried", "surprise")
WORDS = Beside(table="subtitle_chieng.csv", key="{name}", on="{name}", columns={"chinese": "chinese"})
CORPUS = Corpus(
    name="MER2025",
    about="labelled clips of Chinese series and films, and 20,000 candidates for the test set",
    link="https://huggingface.co/datasets/MERChallenge/MER2025",
    licence="agreement of the challenge: academic research only",
    measure="weighted F1 of the six emotions",
    split="train, for viper cv; the candidates, which include the test clips, have no labels",
    tasks=(
        TaskColumns("emotion", "class", ("Emotion",), EMOTIONS),
        TaskColumns("valence", "number", ("Valence",), span=(-10.0, 10.0)),
    ),
    sources=(
        Table(
            table="track1_train_disdim.csv",
            row={
                "Path": "video/{name}",
                "Split": "train",
                "Emotion": "{discrete}",
                "Valence": "{valence}",
                "Text": "{chinese}",
            },
            beside=(WORDS,),
        ),
        Table(
            table="track_all_candidates.csv",
            row={"Path": "video/{name}", "Split": "candidates", "Text": "{chinese}"},
            beside=(WORDS,),
            optional=True,
        ),
    ),
    rows={"candidates": 20_000},
    unverified=("how many clips are labelled", "that valence is between −10 and 10", "the licence"),
)


def fake(folder: Path) -> None:
    tree = Tree(folder)
    names = [f"samplenew_{n:08d}" for n in range(8)]
    cells = [{"name": name, "discrete": EMOTIONS[n % 3], "valence": n - 2} for n, name in enumerate(names[:6])]
    tree.table("track1_train_disdim.csv", cells, encoding="utf-8-sig")
    tree.table("track_all_candidates.csv", [{"name": name} for name in names[6:]])
    words = [{"name": names[n], "chinese": "啊？", "english": "What, again?"} for n in (0, 6)]
    tree.table("subtitle_chieng.csv", words, encoding="utf-8-sig")
    tree.clips(f"video/{name}.mp4" for name in names)
    tree.clip(f"audio/{names[0]}.wav")
    tree.data(f"openface_face/{names[0]}.npy", b"\x93NUMPY")


if __name__ == "__main__":
    run_recipe(CORPUS, fake)
