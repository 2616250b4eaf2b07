"""iemocap.py: IEMOCAP (Busso et al. 2008), dialogues of two actors -> shards; emotion and three dimensions.

    python datasets/iemocap.py --corpus IEMOCAP_full_release --out shards/iemocap [--fold 5]

Expects `Session1/dialog` to `Session5/dialog` with `avi/DivX`, `EmoEvaluation` and `transcriptions`. A film
shows both people side by side: each turn becomes a stretch of its time and the half of its picture with who
speaks.
"""

from __future__ import annotations

from pathlib import Path

from made_up import Tree

from viper_e2e.commands import run_recipe
from viper_e2e.packing import Beside, Corpus, Lines
from viper_e2e.tables import TaskColumns

EMOTIONS = {"neu": "neutral", "ang": "angry", "sad": "sad", "hap": "happy", "exc": "happy"}
"""The four that papers report; excitement counts as happiness."""
OTHERS = ("fru", "fea", "sur", "dis", "oth", "xxx")
"""Packed without an emotion, for their dimensions; `xxx`: the raters do not agree."""


def seen(fields: dict[str, str]) -> dict[str, str]:
    """Left where the actor who wears the markers (the letter of the session) speaks, else right."""
    turn = fields["turn"]
    side = "left" if turn[5] == turn[-4] else "right"
    return {**fields, "session": turn[4], "side": side, "actor": turn[:5] + turn[-4]}


CORPUS = Corpus(
    name="IEMOCAP",
    about="turns of acted dialogues in five sessions of two actors, rated by several people",
    link="https://sail.usc.edu/iemocap",
    licence="agreement with its owners: research only",
    measure="UAR and WAR of four emotions (excited counts as happy), over five folds",
    split="five folds by session",
    tasks=(
        TaskColumns("emotion", "class", ("Emotion",), ("neutral", "angry", "sad", "happy")),
        *(
            TaskColumns(name.lower(), "number", (name,), span=(0.0, 5.5))
            for name in ("Valence", "Activation", "Dominance")
        ),
    ),
    sources=(
        Lines(
            table="Session*/dialog/EmoEvaluation/*.txt",
            pattern=r"\[(?P<start>[\d.]+) - (?P<end>[\d.]+)\]\t(?P<turn>Ses0\d[FM]_\w+)\t(?P<emotion>\w+)\t"
            r"\[(?P<V>[\d.]+), (?P<A>[\d.]+), (?P<D>[\d.]+)\]\s*",
            others=r"%.*|[A-Z]-\S+.*",
            row={
                "File_ID": "{turn}",
                "Path": "Session{session}/dialog/avi/DivX/{file}.avi",
                "Start": "{start}",
                "End": "{end}",
                "Side": "{side}",
                "Fold": "{session}",
                "Session": "{session}",
                "Subject": "{actor}",
                "Emotion": "{emotion}",
                "Valence": "{V}",
                "Activation": "{A}",
                "Dominance": "{D}",
                "Text": "{words}",
            },
            words={"emotion": {**EMOTIONS, **dict.fromkeys(OTHERS, "")}},
            beside=(
                Beside(
                    table="Session*/dialog/transcriptions/*.txt",
                    pattern=r"(?P<turn>\S+) \[[\d.]+-[\d.]+\]: (?P<words>.*)",
                    key="{turn}",
                    on="{turn}",
                    columns={"words": "words"},
                ),
            ),
            change=seen,
        ),
    ),
    folds=("1", "2", "3", "4", "5"),
    classes={"all": {"neutral": 1708, "angry": 1103, "sad": 1084, "happy": 1041 + 595}},
    unverified=(
        "that the numbers after a turn are valence, activation and dominance in this order, from 0 to 5.5",
        "the licence and the link",
    ),
)


def fake(folder: Path) -> None:
    tree = Tree(folder)
    emotions = ("neu", "exc", "xxx", "ang")
    for session in (1, 2):
        film = f"Ses0{session}F_impro01"
        place = f"Session{session}/dialog"
        tree.clip(f"{place}/avi/DivX/{film}.avi", seconds=3.0, sound=3.0, sides=True)
        ratings, words = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""], []
        for n, emotion in enumerate(emotions):
            start, turn = 0.25 + 0.6 * n, f"{film}_{'FM'[n % 2]}{n // 2:03d}"
            ratings.append(
                f"[{start:.4f} - {start + 0.9:.4f}]\t{turn}\t{emotion}\t[{n + 1}.5000, 2.5000, 2.5000]"
            )
            ratings += ["C-E2:\tNeutral;\t()", f"A-E3:\tval {n + 1}; act 3; dom 2;\t()", ""]
            words.append(f"{turn} [{start:.4f}-{start + 0.9:.4f}]: Excuse me?")
        tree.text(f"{place}/EmoEvaluation/{film}.txt", "\n".join(ratings) + "\n")
        tree.text(f"{place}/transcriptions/{film}.txt", "\n".join([*words, "M: [LAUGHTER]"]) + "\n")
        tree.data(f"{place}/EmoEvaluation/._{film}.txt", b"\0\5\x16\7\0\2\0\0Mac OS X")
    tree.clip("Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav")


if __name__ == "__main__":
    run_recipe(CORPUS, fake)
