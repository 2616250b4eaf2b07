"""ch_sims.py: CH-SIMS (Yu et al. 2020), Chinese films and shows -> shards; sentiment from −1 to 1.

    python datasets/ch_sims.py --corpus CH-SIMS --out shards/ch_sims

Expects `Raw/VIDEO/0001.mp4` and `metadata`. Tables have clips as numbers, which have lost their zeros.
"""

from __future__ import annotations

from pathlib import Path

from made_up import Tree

from viper_e2e.commands import run_recipe
from viper_e2e.packing import Beside, Corpus, Table
from viper_e2e.tables import TaskColumns

SPLITS = ("train", "val", "test")
MEASURES = ("acc2_steps", "f1_steps", "acc3_steps", "acc5_steps")


def placed(fields: dict[str, str]) -> dict[str, str]:
    """The split whose index lists this row of the labels, and the clip with its zeros."""
    splits = [split for split in SPLITS if fields[f"in_{split}"]]
    if len(splits) != 1:
        raise ValueError(f"is in the indexes of {' and '.join(splits) or 'no split'}")
    return {**fields, "split": splits[0], "clip": f"{int(fields['clip_id']):04d}"}


CORPUS = Corpus(
    name="CH-SIMS",
    about="clips of Chinese films and shows with the sentiment of what is said, seen and heard together",
    link="https://github.com/thuiar/MMSA",
    licence="see the link",
    measure="accuracy of sentiment in two, three and five steps, F1 in two, MAE and Pearson",
    split="train, val and test as given",
    tasks=(TaskColumns("sentiment", "number", ("Sentiment",), span=(-1.0, 1.0), measures=MEASURES),),
    sources=(
        Table(
            table="metadata/sentiment/label_M.csv",
            row={
                "Path": "Raw/{video_id}/{clip}.mp4",
                "Split": "{split}",
                "Video": "{video_id}",
                "Sentiment": "{label}",
                "Text": "{words}",
            },
            beside=(
                *(
                    Beside(
                        table=f"metadata/{split}_index.csv",
                        key="{index}",
                        on="{row}",
                        columns={"index": f"in_{split}"},
                    )
                    for split in SPLITS
                ),
                Beside(
                    table="metadata/Translation.csv",
                    key="{video_id}/{clip_id}",
                    on="{video_id}/{clip_id}",
                    columns={"Chinese": "words"},
                ),
            ),
            change=placed,
        ),
    ),
    meta=("Video",),
    rows={"train": 1368, "val": 456, "test": 457},
    rows_unverified=True,
    unverified=("the row counts (from memory)", "the licence and the link"),
)


def fake(folder: Path) -> None:
    tree = Tree(folder)
    clips = [(video, clip) for video in ("video_0001", "aqgy3_0001") for clip in (1, 2, 10, 11)]
    values = (-0.8, 0.0, 1.0, 0.2)
    labels = [{"video_id": v, "clip_id": c, "label": values[n % 4]} for n, (v, c) in enumerate(clips)]
    tree.table("metadata/sentiment/label_M.csv", labels, encoding="utf-8-sig")
    indexes = {"train": (0, 1, 2, 3), "val": (4,), "test": (5, 6)}
    for split, rows in indexes.items():
        tree.table(f"metadata/{split}_index.csv", [{"index": row} for row in rows])
    words = [
        {"video_id": v, "clip_id": c, "Chinese": "今天又下雨了", "English": "It rains again"} for v, c in clips
    ]
    tree.table("metadata/Translation.csv", words)
    tree.clips(f"Raw/{video}/{clip:04d}.mp4" for video, clip in clips)


if __name__ == "__main__":
    run_recipe(CORPUS, fake)
