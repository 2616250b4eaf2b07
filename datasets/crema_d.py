"""crema_d.py: CREMA-D (Cao et al. 2014) -> shards; labels, actors and splits from file names.

    python datasets/crema_d.py --corpus CREMA-D --out shards/crema_d [--fold 1]

Expects the repository with its large files fetched (`git lfs pull`): `VideoFlash/1001_DFA_ANG_XX.flv`. A
name's four fields are actor, sentence, emotion, level. Labels are intensities and the split our own; with
`--fold K` the emotion is a class and the K-th 18 actors (19 in the fifth) are the test set, as papers have it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from made_up import Tree

from viper_e2e.commands import pack_corpus, pack_known, recipe_options, run_chosen
from viper_e2e.config import RecipeOptions, option
from viper_e2e.loading import find_files
from viper_e2e.packing import Corpus, Names
from viper_e2e.tables import TaskColumns

EMOTIONS = {"ANG": "Anger", "DIS": "Disgust", "FEA": "Fear", "HAP": "Happy", "NEU": "Neutral", "SAD": "Sad"}
LEVELS = {"LO": 0.2, "MD": 0.5, "HI": 0.8, "XX": 0.5, "X": 0.5}
"""Low, medium and high as the corpus's own tables count them (20, 50, 80). Unspecified, which is most clips,
is taken as medium; the single X is a slip in the name of one file (1040_ITH_SAD_X)."""
NAME = re.compile(r"(?P<actor>1\d{3})_[A-Z]{3}_(?P<emotion>[A-Z]{3})_(?P<level>LO|MD|HI|XX?)")


def split_of(actor: int) -> str:
    """By the last digit of the actor: 8 val, 9 test, others train (9, 9 and 73 of the 91 actors)."""
    return {8: "val", 9: "test"}.get(actor % 10, "train")


def row(stem: str) -> dict[str, object] | None:
    """The line of labels.csv for one file name; ``None`` for other files."""
    name = NAME.fullmatch(stem)
    if name is None or name["emotion"] not in EMOTIONS:
        return None
    values = {title: LEVELS[name["level"]] * (code == name["emotion"]) for code, title in EMOTIONS.items()}
    return {"File_ID": stem, "Split": split_of(int(name["actor"])), "Subject": name["actor"], **values}


BROKEN = ("1076_MTI_NEU_XX", "1076_MTI_SAD_XX", "1064_TIE_SAD_XX", "1064_IEO_DIS_MD")
"""Clips that the corpus's own page calls faulty; papers on folds leave them out."""


def folded(fields: dict[str, str]) -> dict[str, str]:
    if fields["stem"] in BROKEN:
        raise ValueError("is called faulty by the corpus's own page, and left out by papers on folds")
    return {**fields, "fold": str(min((int(fields["actor"]) - 1001) // 18 + 1, 5))}


CORPUS = Corpus(
    name="CREMA-D",
    about="7,442 clips of 91 actors who say twelve sentences in six emotions",
    link="https://github.com/CheyneyComputerScience/CREMA-D",
    licence="ODbL 1.0, contents DbCL 1.0",
    measure="UAR and WAR of the six emotions, over five folds",
    split="five folds of 18 actors (last: 19) in their order (HiCMAE); without `--fold` our own, by actor",
    tasks=(TaskColumns("emotion", "class", ("Emotion",), tuple(EMOTIONS.values())),),
    sources=(
        Names(
            pattern=r"VideoFlash/(?P<stem>(?P<actor>1\d{3})_[A-Z]{3}_(?P<emotion>[A-Z]{3})_(?:LO|MD|HI|XX?))\.flv",
            row={"Path": "{path}", "Fold": "{fold}", "Subject": "{actor}", "Emotion": "{emotion}"},
            words={"emotion": EMOTIONS},
            change=folded,
        ),
    ),
    folds=("1", "2", "3", "4", "5"),
    rows={"all": 7438},
)


@dataclass(kw_only=True)
class Options(RecipeOptions):
    """Pack CREMA-D into shards."""

    fold: str = option(
        "", metavar="K", help="fold of five that is the test set, with the emotion as a class, as in papers"
    )


def fake(folder: Path) -> None:
    tree = Tree(folder)
    stems = ("1001_DFA_ANG_XX", "1008_IEO_HAP_HI", "1009_IEO_SAD_LO", "1040_ITH_SAD_X", "1091_TIE_NEU_XX")
    tree.clips(f"VideoFlash/{stem}.flv" for stem in (*stems, BROKEN[0]))
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    tree.text("VideoFlash/1002_DFA_DIS_XX.flv", pointer)


def pack_it() -> int:
    given = recipe_options(Options)
    if given.fold:
        return pack_known(given, CORPUS, given.fold)
    videos = given.corpus / "VideoFlash"
    stems = sorted({path.stem for path in find_files(videos).files})
    return pack_corpus(given, [found for stem in stems if (found := row(stem))], videos=videos)


if __name__ == "__main__":
    run_chosen(CORPUS, fake, pack_it)
