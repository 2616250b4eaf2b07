"""savee.py: SAVEE (Haq & Jackson 2009), four English actors -> shards; one of seven emotions.

    python datasets/savee.py --corpus SAVEE --out shards/savee [--fold 2]

Expects the clips as videos, `JE_n23.avi` or `JE/n23.avi`, at any depth; the sound alone (`.wav`) is not packed.
"""

from __future__ import annotations

from pathlib import Path

from made_up import Tree

from viper_e2e.commands import run_recipe
from viper_e2e.packing import Corpus, Names
from viper_e2e.tables import TaskColumns

EMOTIONS = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}
ACTORS = ("DC", "JE", "JK", "KL")
CORPUS = Corpus(
    name="SAVEE",
    about="four actors who say sentences in seven emotions",
    link="http://kahlan.eps.surrey.ac.uk/savee",
    licence="free for research, on registration",
    measure="UAR and WAR of the seven emotions, one actor held out at a time",
    split="four folds, each an actor (1 DC, 2 JE, 3 JK, 4 KL)",
    tasks=(TaskColumns("emotion", "class", ("Emotion",), tuple(EMOTIONS.values())),),
    sources=(
        Names(
            pattern=r"(?:.*/)?(?P<actor>DC|JE|JK|KL)[/_](?P<emotion>a|d|f|h|n|sa|su)\d\d?\.(?:avi|mp4)",
            row={"Path": "{path}", "Fold": "{fold}", "Subject": "{actor}", "Emotion": "{emotion}"},
            words={"emotion": EMOTIONS},
            change=lambda fields: {**fields, "fold": str(ACTORS.index(fields["actor"]) + 1)},
        ),
    ),
    folds=("1", "2", "3", "4"),
    rows={"all": 480},
    rows_unverified=True,
    unverified=(
        "the names of its videos and their folder",
        "the row count (from memory: 480)",
        "the measure, the licence and the link",
    ),
)


def fake(folder: Path) -> None:
    tree = Tree(folder)
    for actor in ACTORS:
        tree.clips(f"AudioVisualClip/{actor}_{name}.avi" for name in ("a01", "sa01", "n23"))
    tree.clip("AudioData/JE_n23.wav")
    tree.clip("AudioVisualClip/JE_x01.avi")


if __name__ == "__main__":
    run_recipe(CORPUS, fake)
