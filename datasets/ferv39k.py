"""ferv39k.py: FERV39k (Wang et al. 2022), clips of 22 kinds of scenes -> shards; one of seven emotions.

    python datasets/ferv39k.py --corpus FERV39k --out shards/ferv39k

Expects `4_setups/All_scenes/train_All.csv` and `test_All.csv`, and clips `SCENE/EMOTION/0063.*` in any folder.
Public code reads `2_ClipsforFaceCrop` as folders of pictures; those are no clips and are not read.
"""

from __future__ import annotations

from pathlib import Path

from made_up import Tree

from viper_e2e.commands import run_recipe
from viper_e2e.packing import Corpus, Table
from viper_e2e.tables import TaskColumns

EMOTIONS = ("Angry", "Disgust", "Fear", "Happy", "Neutral", "Sad", "Surprise")
CORPUS = Corpus(
    name="FERV39k",
    about="38,935 clips of 22 kinds of scenes",
    link="https://wangyanckxx.github.io/Proj_CVPR2022_FERV39k.html",
    licence="agreement with its owners: research only",
    measure="WAR and UAR of the seven emotions",
    split="train and test as given, over all scenes",
    tasks=(TaskColumns("emotion", "class", ("Emotion",), EMOTIONS),),
    sources=tuple(
        Table(
            table=f"4_setups/All_scenes/{split}_All.csv",
            columns=("clip", "emotion"),
            separator=" ",
            row={"Path": "{clip}", "Split": split, "Scene": "{scene}", "Emotion": "{emotion}"},
            change=lambda fields: {**fields, "scene": fields["clip"].partition("/")[0]},
        )
        for split in ("train", "test")
    ),
    meta=("Scene",),
    rows={"train": 31_088, "test": 7_847},
    rows_unverified=True,
    unverified=(
        "whether its clips come as videos, and with sound",
        "the row counts (from memory)",
        "the licence and the link",
    ),
)


def fake(folder: Path) -> None:
    tree = Tree(folder)
    clips = {
        "train": ("Action/Angry/0001", "Action/Happy/0001", "DailyLife/Sad/0063", "DailyLife/Angry/0002"),
        "test": ("Action/Sad/0010", "Crime/Happy/0003", "Crime/Sad/0004"),
    }
    for split, names in clips.items():
        text = "".join(f"{name} {name.split('/')[1]}\n" for name in names)
        tree.text(f"4_setups/All_scenes/{split}_All.csv", text)
        tree.clips(f"0_Clips/{name}.mp4" for name in names if name != "Crime/Sad/0004")
    tree.data("2_ClipsforFaceCrop/Crime/Sad/0004/0001.jpg", b"\xff\xd8\xff")


if __name__ == "__main__":
    run_recipe(CORPUS, fake)
