"""affwild2.py: Aff-Wild2 (Kollias et al., ABAW challenges), videos labelled frame by frame -> shards.

    python datasets/affwild2.py --corpus Aff-Wild2 --out shards/affwild2_va [--challenge expr]

Expects `videos` beside the folders of annotations. A challenge at a time: valence and arousal (va), expression
(expr) or action units (au), each with its own videos and split. A row is a window of two seconds.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from made_up import Tree

from viper_e2e.commands import pack_known, recipe_options, run_chosen
from viper_e2e.config import RecipeOptions, option
from viper_e2e.packing import Corpus, FrameWindows
from viper_e2e.tables import TaskColumns

EXPRESSIONS = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other")
UNITS = tuple(f"AU{n}" for n in (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26))
SETS = {"Train_Set": "train", "Validation_Set": "val"}
FOLDERS = {"va": "VA_Estimation_Challenge", "expr": "EXPR_*_Challenge", "au": "AU_Detection_Challenge"}
TASKS = {
    "va": tuple(TaskColumns(name, "number", (name,), span=(-1.0, 1.0)) for name in ("valence", "arousal")),
    "expr": (TaskColumns("expression", "class", ("expression",), EXPRESSIONS),),
    "au": (TaskColumns("units", "labels", UNITS),),
}
MEASURES = {
    "va": "mean CCC of valence and arousal",
    "expr": "macro F1",
    "au": "macro F1 of twelve action units",
}


def sources(challenge: str) -> tuple[FrameWindows, ...]:
    titles = [title for task in TASKS[challenge] for title in task.titles]
    return tuple(
        FrameWindows(
            table=f"**/{FOLDERS[challenge]}/{folder}/*.txt",
            endings=("_left", "_right"),
            row={
                "File_ID": "{name}_{n}",
                "Path": "{path}",
                "Start": "{start}",
                "End": "{end}",
                "Side": "{side}",
                "Split": split,
                "Subject": "{name}",
                **{title: f"{{{title}}}" for title in titles},
            },
            change=lambda fields: {**fields, "side": fields["ending"].removeprefix("_") or "full"},
        )
        for folder, split in SETS.items()
    )


CORPUS = Corpus(
    name="Aff-Wild2",
    about="videos of the web with valence and arousal, expression, or action units for each frame",
    link="https://ibug.doc.ic.ac.uk/resources/aff-wild2",
    licence="agreement with its owners: research only",
    measure="; ".join(f"{name}: {text}" for name, text in MEASURES.items()),
    split="train and validation sets of each challenge; the labels of the test sets are not public",
    tasks=TASKS["va"],
    combined={"mean_ccc": {"valence.ccc": 0.5, "arousal.ccc": 0.5}},
    sources=sources("va"),
    unverified=(
        "that a name ending in _left or _right means the person in that half of the picture",
        "the order of expressions and action units",
        "the number of videos, the licence and the link",
        "how scores of means over two seconds differ from those of single frames, which papers report",
    ),
)


@dataclass(kw_only=True)
class Options(RecipeOptions):
    """Pack Aff-Wild2 into shards."""

    challenge: Literal["va", "expr", "au"] = option(
        "va", help="valence and arousal, expression, or action units; each has videos and a split of its own"
    )


def fake(folder: Path) -> None:
    tree = Tree(folder)
    frames = 40  # five seconds
    for name, kind in (("1-30-640x360", "mp4"), ("video7", "avi"), ("46-30-484x360", "mp4"), ("val3", "mp4")):
        tree.clip(f"videos/{name}.{kind}", seconds=frames / 8, sound=1.0, sides=name == "46-30-484x360")
    labels = {
        "Train_Set": ("1-30-640x360", "video7", "46-30-484x360_left", "46-30-484x360_right", "gone9"),
        "Validation_Set": ("val3",),
    }
    for split, names in labels.items():
        for place, name in enumerate(names):
            shift = place / 10
            va = [f"{shift + n / 100:.3f},{-n / 100:.3f}" for n in range(frames)]
            if name == "video7":
                va[:16] = ["-5,-5"] * 16
            if name == "1-30-640x360":
                va.append("0.1,0.1")
            text = "\n".join(["valence,arousal", *va]) + "\n"
            tree.text(f"Annotations/VA_Estimation_Challenge/{split}/{name}.txt", text)
            expressions = [str(-1 if n < 8 else (place + n // 16) % 8) for n in range(frames)]
            text = (
                "\n".join(["Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other", *expressions]) + "\n"
            )
            tree.text(f"Annotations/EXPR_Recognition_Challenge/{split}/{name}.txt", text)
            units = [",".join(str((n + unit + place) % 2) for unit in range(12)) for n in range(frames)]
            text = "\n".join([",".join(UNITS), *units]) + "\n"
            tree.text(f"Annotations/AU_Detection_Challenge/{split}/{name}.txt", text)


def pack_it() -> int:
    given = recipe_options(Options)
    name = given.challenge
    combined = CORPUS.combined if name == "va" else {}
    known = dataclasses.replace(CORPUS, tasks=TASKS[name], combined=combined, sources=sources(name))
    return pack_known(given, known)


if __name__ == "__main__":
    run_chosen(CORPUS, fake, pack_it)
