"""enterface05.py: eNTERFACE'05 (Martin et al. 2006), acted emotions in English -> shards; one of six.

    python datasets/enterface05.py --corpus "enterface database" --out shards/enterface05

Expects `subject 1/anger/sentence 1/s1_an_1.avi` and so on, at any depth.
"""

from __future__ import annotations

from pathlib import Path

from made_up import Tree

from viper_e2e.commands import run_recipe
from viper_e2e.packing import Corpus, Names
from viper_e2e.tables import TaskColumns

EMOTIONS = {
    "an": "anger",
    "di": "disgust",
    "fe": "fear",
    "ha": "happiness",
    "sa": "sadness",
    "su": "surprise",
}


def split(fields: dict[str, str]) -> dict[str, str]:
    """By subject, our own: 1–34 train, 35–39 val, 40–44 test."""
    if not fields["sentence"]:
        raise ValueError("is a recording of all sentences, uncut")
    subject = int(fields["subject"])
    return {**fields, "split": "train" if subject <= 34 else "val" if subject <= 39 else "test"}


CORPUS = Corpus(
    name="eNTERFACE'05",
    about="44 people who act five sentences in each of six emotions; subject 6 comes uncut and is left out",
    link="https://enterface.net/enterface05",
    licence="free for research",
    measure="UAR and WAR of the six emotions",
    split="no standard split; ours is by subject (1–34 train, 35–39 val, 40–44 test)",
    tasks=(TaskColumns("emotion", "class", ("Emotion",), tuple(EMOTIONS.values())),),
    sources=(
        Names(
            pattern=r"(?:.*/)?subject (?P<subject>\d+)/\w+/(?:sentence \d+/)?"
            r"s_?\d+_(?P<emotion>[a-z]{2})(?:_(?P<sentence>\d+))?\.avi",
            row={"Path": "{path}", "Split": "{split}", "Subject": "{subject}", "Emotion": "{emotion}"},
            words={"emotion": EMOTIONS},
            change=split,
        ),
    ),
    rows={"all": 1257},
    rows_unverified=True,
    unverified=(
        "the row count: 1,263 files less the six uncut ones of subject 6",
        "the measure, the licence and the link",
    ),
)


def fake(folder: Path) -> None:
    tree = Tree(folder)
    for subject in (1, 3, 35, 42):
        for code in ("an", "su"):
            for sentence in (1, 4):
                stem = f"s{subject}_{code}_{sentence}"
                if (subject, code, sentence) == (3, "su", 4):
                    stem = "s_3_su_4"
                tree.clip(f"subject {subject}/{EMOTIONS[code]}/sentence {sentence}/{stem}.avi")
    tree.clip("subject 6/anger/s6_an.avi")
    tree.clip("subject 1/notes.avi")


if __name__ == "__main__":
    run_recipe(CORPUS, fake)
