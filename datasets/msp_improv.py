"""msp_improv.py: MSP-IMPROV (Busso et al. 2017), improvised dialogues -> shards; emotion and three dimensions.

    python datasets/msp_improv.py --corpus MSP-IMPROV --out shards/msp_improv [--fold 2]

Expects `session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.avi` and so on, and `Evalution.txt` (so spelt), which has
the same names with another prefix.
"""

from __future__ import annotations

from pathlib import Path

from made_up import Tree

from viper_e2e.commands import run_recipe
from viper_e2e.packing import Corpus, Lines
from viper_e2e.tables import TaskColumns

EMOTIONS = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}
CORPUS = Corpus(
    name="MSP-IMPROV",
    about="turns of improvised and read dialogues of twelve actors, rated by many people",
    link="https://ecs.utdallas.edu/research/researchlabs/msp-lab/MSP-Improv.html",
    licence="agreement with its owners: research only",
    measure="UAR and WAR of four emotions; CCC of activation, valence and dominance",
    split="six folds by session",
    tasks=(
        TaskColumns("emotion", "class", ("Emotion",), tuple(EMOTIONS.values())),
        *(
            TaskColumns(name.lower(), "number", (name,), span=(1.0, 5.0))
            for name in ("Valence", "Activation", "Dominance")
        ),
    ),
    sources=(
        Lines(
            table="Evalution.txt",
            pattern=r"UTD-IMPROV-(?P<sentence>S\d\d[A-Z])-(?P<actor>[FM](?P<number>\d\d))-(?P<kind>[PRST])-(?P<turn>\w+)\.avi"
            r"\s*;\s*(?P<emotion>\w)\s*;\s*A:(?P<A>[\d.]+)\s*;\s*V:(?P<V>[\d.]+)\s*;\s*D:(?P<D>[\d.]+).*",
            others=r"(?!UTD-IMPROV-).*",
            row={
                "Path": "session{session}/{sentence}/{kind}/MSP-IMPROV-{sentence}-{actor}-{kind}-{turn}.avi",
                "Fold": "{session}",
                "Subject": "{actor}",
                "Kind": "{kind}",
                "Emotion": "{emotion}",
                "Valence": "{V}",
                "Activation": "{A}",
                "Dominance": "{D}",
            },
            words={"emotion": {**EMOTIONS, "O": "", "X": ""}},
            change=lambda fields: {**fields, "session": str(int(fields["number"]))},
        ),
    ),
    meta=("Kind",),
    folds=("1", "2", "3", "4", "5", "6"),
    rows={"all": 8438},
    unverified=(
        "that in Evalution.txt O is another emotion and X no agreement (both packed without an emotion)",
        "the measure, the licence and the link",
    ),
)


def fake(folder: Path) -> None:
    tree = Tree(folder)
    lines = []
    turns = [(session, actor, n) for session in (1, 2) for actor in "FM" for n in (1, 2)]
    for place, (session, actor, n) in enumerate(turns):
        name = f"IMPROV-S01A-{actor}{session:02d}-P-FM{n:02d}.avi"
        letter = "AHNX"[place % 4]
        lines.append(f"UTD-{name}; {letter}; A:2.333333; V:{1 + place / 2:.6f}; D:3.000000 ; N:3.666667;")
        lines += ["WORKER0001; Angry; Angry,Frustrated; A:2.000000; V:3.000000; D:3.000000; N:4.000000;", ""]
        if place != len(turns) - 1:
            tree.clip(f"session{session}/S01A/P/MSP-{name}")
    lines.append("UTD-IMPROV-S02H-F02-R-MF01.avi; H; A:; V:; D:;")
    tree.text("Evalution.txt", "\n".join(lines) + "\n", newline="\r\n")


if __name__ == "__main__":
    run_recipe(CORPUS, fake)
