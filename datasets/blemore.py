"""blemore.py: BLEMORE (2025), clips of blended emotions with how salient each is -> shards.

    python datasets/blemore.py --corpus BlEmoRe --out shards/blemore [--fold 0]

The one corpus whose labels are intensities as this package learns them: 30 % disgust and 70 % happiness become
0.3 and 0.7. Tables are `train_metadata.csv` and `test_metadata.csv`, clips lie at any depth.
"""

from __future__ import annotations

from pathlib import Path

from made_up import Tree

from viper_e2e.commands import run_recipe
from viper_e2e.packing import Corpus, Table
from viper_e2e.tables import TaskColumns
from viper_e2e.tasks import BLENDS

EMOTIONS = {
    "ang": "anger",
    "disg": "disgust",
    "fea": "fear",
    "hap": "happiness",
    "sad": "sadness",
    "neu": "neutral",
}


def saliences(fields: dict[str, str]) -> dict[str, str]:
    """A column for each emotion; one that is alone has 1, whatever its cell of salience says."""
    found = dict.fromkeys(EMOTIONS, "0")
    for n in ("1", "2"):
        emotion = fields[f"emotion_{n}"]
        if emotion and emotion not in EMOTIONS:
            raise ValueError(f"emotion_{n} is {emotion!r}, none of {', '.join(EMOTIONS)}")
        if emotion:
            percent = float(fields[f"emotion_{n}_salience"] or 100)
            found[emotion] = "1" if not fields["emotion_2"] else f"{percent / 100:g}"
    return {**fields, **found, "subject": fields["filename"].partition("_")[0]}


ROW = {
    "Path": "{filename}",
    "Split": "{split}",
    "Fold": "{fold}",
    "Subject": "{subject}",
    "Mix": "{mix}",
    **{title: f"{{{code}}}" for code, title in EMOTIONS.items()},
}
CORPUS = Corpus(
    name="BLEMORE",
    about="3,050 clips of 58 actors who show one emotion or two at once, in 30/70, 50/50 or 70/30",
    link="https://zenodo.org/records/17787362",
    licence="see the link",
    measure="ACC presence (the set of emotions is right) and ACC salience (their order is right too)",
    split="the test table; five folds of the training table for validation",
    tasks=(TaskColumns("emotions", "intensities", tuple(EMOTIONS.values()), span=(0.0, 1.0), measures=BLENDS),),
    sources=(
        Table(table="train_metadata.csv", row={**ROW, "Split": "train"}, change=saliences),
        Table(
            table="test_metadata.csv", row={**ROW, "Split": "test", "Fold": ""}, change=saliences, optional=True
        ),
    ),
    meta=("Mix",),
    folds=("0", "1", "2", "3", "4"),
    held_out="val",
    rows={"all": 3050},
    unverified=(
        "the file extension of its clips",
        "whether a clip of one emotion has an empty cell or 100 as its salience (both are read as 1)",
        "the licence",
    ),
)


def fake(folder: Path) -> None:
    tree = Tree(folder)
    stems = {
        "train": (
            "A102_ang_int1_ver1",
            "A102_neu_int1_ver1",
            "A110_disg_int3_ver1",
            "A437_mix_disg_hap_30_70_ver1",
        ),
        "test": ("A411_mix_ang_hap_50_50_ver1", "A55_fea_int1_ver2", "A99_sad_int1_ver1"),
    }
    for split, names in stems.items():
        rows = []
        for n, stem in enumerate(names):
            parts = stem.split("_")
            mix = parts[1] == "mix"
            one, two, a, b = parts[2:6] if mix else (parts[1], "", "" if n % 2 else "100.0", "")
            cells = {
                "filename": stem,
                "video_id": parts[0],
                "mix": int(mix),
                "emotion_1": one,
                "emotion_2": two,
            }
            cells |= {"emotion_1_salience": a, "emotion_2_salience": b}
            cells |= {"intensity_level": "" if mix else parts[2][3:], "situation": 1, "version": parts[-1][3:]}
            rows.append({**cells, "fold": int(parts[0][1:]) % 5} if split == "train" else cells)
        tree.table(f"{split}_metadata.csv", rows)
    tree.clips(
        f"{split}/{stem}.mov"
        for split, names in stems.items()
        for stem in names[: 4 if split == "train" else 2]
    )


if __name__ == "__main__":
    run_recipe(CORPUS, fake)
