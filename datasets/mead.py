"""mead.py: MEAD (Wang et al. 2020), talking faces from seven sides -> shards; one of eight emotions.

    python datasets/mead.py --corpus MEAD --out shards/mead [--views front,down]

Expects `M003/video/front/angry/level_1/001.mp4` and so on. The same names are in every folder; the sound apart,
`M003/audio/…/001.m4a`, is not needed: the videos have theirs.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from made_up import Tree

from viper_e2e.commands import pack_known, recipe_options, run_chosen
from viper_e2e.config import RecipeOptions, option
from viper_e2e.packing import Corpus, Names
from viper_e2e.tables import TaskColumns

EMOTIONS = ("angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised")
CODES = {emotion: emotion for emotion in EMOTIONS} | {"disgust": "disgusted", "surprise": "surprised"}


def split(fields: dict[str, str]) -> dict[str, str]:
    """By the last digit of the actor, our own: 8 val, 9 test, others train."""
    return {**fields, "split": {"8": "val", "9": "test"}.get(fields["actor"][-1], "train")}


def source(views: str) -> Names:
    return Names(
        pattern=rf"(?:.*/)?(?P<actor>[MW]\d\d\d)/video/(?P<view>{views})/(?P<emotion>\w+)/level_(?P<level>\d)/\d+\.mp4",
        row={
            "Path": "{path}",
            "Split": "{split}",
            "Subject": "{actor}",
            "View": "{view}",
            "Level": "{level}",
            "Emotion": "{emotion}",
        },
        words={"emotion": CODES},
        change=split,
    )


CORPUS = Corpus(
    name="MEAD",
    about="actors who talk in eight emotions of three strengths, filmed from seven sides",
    link="https://github.com/uniBruce/Mead",
    licence="research only",
    measure="UAR and WAR of the eight emotions",
    split="no standard split; ours is by the last digit of the actor's number (8 val, 9 test)",
    tasks=(TaskColumns("emotion", "class", ("Emotion",), EMOTIONS),),
    sources=(source("front"),),
    meta=("View", "Level"),
    unverified=(
        "the row counts",
        "the measure and the licence",
        "the names of all emotions but contempt and neutral",
    ),
)


@dataclass(kw_only=True)
class Options(RecipeOptions):
    """Pack MEAD into shards."""

    views: str = option(
        "front", help="sides that are packed, for instance front,down; the others are left aside"
    )


def fake(folder: Path) -> None:
    tree = Tree(folder)
    for actor in ("M003", "W018", "W019"):
        for emotion in ("neutral", "contempt"):
            for view in ("front", "down", "top"):
                path = f"{actor}/video/{view}/{emotion}/level_1/018.mp4"
                if view != "top" or emotion == "neutral":
                    tree.clip(path, sound=0.46, fps="65521/2184")
        tree.clip(f"{actor}/audio/neutral/level_1/018.m4a")


def pack_it() -> int:
    given = recipe_options(Options)
    views = "|".join(given.views.split(","))
    return pack_known(given, dataclasses.replace(CORPUS, sources=(source(views),)))


if __name__ == "__main__":
    run_chosen(CORPUS, fake, pack_it)
