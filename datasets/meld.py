"""meld.py: MELD (Poria et al. 2019), utterances of the series Friends -> shards; emotion and sentiment.

    python datasets/meld.py --corpus MELD.Raw --out shards/meld

Expects the raw archives unpacked in place: `train/train_sent_emo.csv` beside `train/train_splits/` and so on.
"""

from __future__ import annotations

from pathlib import Path

from made_up import Tree

from viper_e2e.commands import run_recipe
from viper_e2e.packing import Corpus, Table
from viper_e2e.tables import TaskColumns

FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}
EMOTIONS = ("neutral", "joy", "surprise", "anger", "sadness", "disgust", "fear")
CORPUS = Corpus(
    name="MELD",
    about="13,708 utterances of a television series, each with the emotion and sentiment of its speaker",
    link="https://github.com/declare-lab/MELD",
    licence="GPL-3.0 for the tables; the clips are of a television series",
    measure="weighted F1 of the seven emotions",
    split="train, dev (val) and test as given",
    tasks=(
        TaskColumns("emotion", "class", ("Emotion",), EMOTIONS),
        TaskColumns("sentiment", "class", ("Sentiment",), ("neutral", "positive", "negative")),
    ),
    sources=tuple(
        Table(
            table=f"{split}/{split}_sent_emo.csv",
            row={
                "Path": f"{split}/{folder}/dia{{Dialogue_ID}}_utt{{Utterance_ID}}.mp4",
                "Split": "val" if split == "dev" else split,
                "Subject": "{Speaker}",
                "Session": "{Season}",
                "Dialogue": f"{split}-{{Dialogue_ID}}",
                "Emotion": "{Emotion}",
                "Sentiment": "{Sentiment}",
                "Text": "{Utterance}",
            },
        )
        for split, folder in FOLDERS.items()
    ),
    meta=("Dialogue",),
    rows={"train": 9989, "val": 1109, "test": 2610},
    classes={"train": dict(zip(EMOTIONS, (4710, 1743, 1205, 1109, 683, 271, 268), strict=True))},
    known={
        "train/train_splits/dia125_utt3.mp4": "is known to be broken (MELD#39)",
        "train/train_splits/dia309_utt0.mp4": "is known to be cut far too long (MELD#20)",
        "test/output_repeated_splits_test/dia38_utt4.mp4": "is known to be cut far too long: 305 s (MELD#20)",
        "test/output_repeated_splits_test/dia220_utt0.mp4": "is known to be cut far too long: 235 s (MELD#20)",
    },
    unverified=("the licence",),
)


def line(
    number: int, utterance: str, emotion: str, sentiment: str, dialogue: int, place: int
) -> dict[str, object]:
    return {
        "Sr No.": number,
        "Utterance": utterance,
        "Speaker": ("Joey", "Phoebe", "The Interviewer")[number % 3],
        "Emotion": emotion,
        "Sentiment": sentiment,
        "Dialogue_ID": dialogue,
        "Utterance_ID": place,
        "Season": 8,
        "Episode": 21,
        "StartTime": "00:16:16,059",
        "EndTime": "00:16:21,731",
    }


def fake(folder: Path) -> None:
    tree = Tree(folder)
    first = line(1, "Well, you\x92re here, and, oh", "neutral", "neutral", 0, 0)
    rows = {
        "train": [first, line(2, "Ha!", "joy", "positive", 0, 1), line(3, "No!", "anger", "negative", 125, 3)],
        "dev": [first, line(2, "Oh my God, he's lost it.", "sadness", "negative", 110, 7)],
        "test": [line(1, "Why?", "surprise", "negative", 0, 0), line(2, "Yes", "joy", "positive", 38, 4)],
    }
    for split, lines in rows.items():
        tree.table(f"{split}/{split}_sent_emo.csv", lines, newline="\r\n")
    train, dev, test = (f"{split}/{clips}" for split, clips in FOLDERS.items())
    tree.clips(f"{clips}/dia0_utt0.mp4" for clips in (train, dev))
    tree.clip(f"{train}/dia0_utt1.mp4", sound=0.064)
    tree.broken(f"{train}/dia125_utt3.mp4")
    tree.clip(f"{test}/dia0_utt0.mp4", channels=6)
    tree.clip(f"{test}/dia38_utt4.mp4", seconds=305)
    tree.clip(f"{test}/final_videos_testdia1_utt1.mp4")
    tree.data(f"{test}/._dia1_utt1.mp4", b"\0\5\x16\7" + bytes(60))


if __name__ == "__main__":
    run_recipe(CORPUS, fake)
