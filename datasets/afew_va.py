"""afew_va.py: AFEW-VA (Kossaifi et al. 2017), clips of films labelled frame by frame -> shards.

    python datasets/afew_va.py --corpus AFEW-VA --out shards/afew_va

Expects `01/001/001.json` and so on, and beside it the clip as a video, `001.mp4`: it comes as pictures, which
are not read. `ffmpeg -framerate 25 -i %05d.png -pix_fmt yuv420p 001.mp4` makes one. A row is two seconds.
"""

from __future__ import annotations

import json
from pathlib import Path

from made_up import Tree

from viper_e2e.commands import run_recipe
from viper_e2e.packing import Corpus, FrameWindows
from viper_e2e.tables import TaskColumns


def placed(fields: dict[str, str]) -> dict[str, str]:
    """By the clip's number, our own: as many in each split as others have (360, 120, 120)."""
    number = int(fields["name"])
    return {**fields, "split": {3: "val", 4: "test"}.get(number % 5, "train")}


CORPUS = Corpus(
    name="AFEW-VA",
    about="600 clips of films with valence and arousal for each frame, from −10 to 10; here from −1 to 1",
    link="https://ibug.doc.ic.ac.uk/resources/afew-va-database",
    licence="research only",
    measure="CCC, Pearson and RMSE of valence and arousal",
    split="none is published; ours is by clip number: three fifths train, one fifth val, one fifth test",
    tasks=tuple(TaskColumns(name, "number", (name,), span=(-1.0, 1.0)) for name in ("valence", "arousal")),
    sources=(
        FrameWindows(
            table="**/[0-9][0-9][0-9].json",
            row={
                "File_ID": "{name}_{n}",
                "Path": "{path}",
                "Start": "{start}",
                "End": "{end}",
                "Split": "{split}",
                "Clip": "{name}",
                "valence": "{valence}",
                "arousal": "{arousal}",
            },
            change=placed,
        ),
    ),
    meta=("Clip",),
    unverified=(
        "its frame rate",
        "that nobody is in two splits",
        "the measure, the licence and the link",
    ),
)


def fake(folder: Path) -> None:
    tree = Tree(folder)
    for number in (1, 2, 3, 4, 5, 9):
        name = f"{number:03d}"
        frames = {
            f"{n:05d}": {"landmarks": [[0, 0]], "valence": number - n / 4, "arousal": n / 2} for n in range(20)
        }
        tree.text(
            f"01/{name}/{name}.json", json.dumps({"video_id": name, "frames": frames, "actor": "unknown"})
        )
        tree.data(f"01/{name}/00000.png", b"\x89PNG\r\n\x1a\n")
        if number != 5:
            tree.clip(f"01/{name}/{name}.mp4", seconds=2.5, sound=None)


if __name__ == "__main__":
    run_recipe(CORPUS, fake)
