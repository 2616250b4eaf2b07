"""ravdess.py: RAVDESS (Livingstone & Russo 2018) -> shards; labels, actors and splits from file names.

    python datasets/ravdess.py --corpus RAVDESS --out shards/ravdess [--channels speech,song] [--fold 1]

Expects the video zips unpacked as they come: `Actor_01/01-01-06-01-02-01-12.mp4` and so on, at any depth.
A name's seven fields are modality, vocal channel, emotion, intensity, statement, repetition, actor. Only
modality 01 (picture and sound) is packed: 02 is the same take without its sound.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from made_up import Tree

from viper_e2e.commands import pack_corpus, pack_known, recipe_options, run_chosen
from viper_e2e.config import RecipeOptions, option
from viper_e2e.errors import ViperError
from viper_e2e.loading import find_files
from viper_e2e.packing import Corpus, Names
from viper_e2e.tables import TaskColumns

EMOTIONS = ("Neutral", "Calm", "Happy", "Sad", "Angry", "Fearful", "Disgust", "Surprised")
INTENSITIES = {"01": 0.5, "02": 1.0}
"""Normal and strong; neutral exists only as normal."""
CHANNELS = {"speech": "01", "song": "02"}
NAME = re.compile(r"01-(?P<channel>0[12])-(?P<emotion>0[1-8])-(?P<intensity>0[12])-0[12]-0[12]-(?P<actor>\d\d)")


def split_of(actor: int) -> str:
    """Actors 1–16 train, 17–20 val, 21–24 test: as many women (even) as men (odd) in each."""
    return "train" if actor <= 16 else "val" if actor <= 20 else "test"


def row(stem: str) -> dict[str, object] | None:
    """The line of labels.csv for one file name; ``None`` for other files."""
    name = NAME.fullmatch(stem)
    if name is None:
        return None
    active = int(name["emotion"]) - 1
    values = {emotion: INTENSITIES[name["intensity"]] * (n == active) for n, emotion in enumerate(EMOTIONS)}
    return {"File_ID": stem, "Split": split_of(int(name["actor"])), "Subject": name["actor"], **values}


def source(channels: str) -> Names:
    """Takes of these channels, such as ``01|02``, as papers have them."""
    return Names(
        pattern=rf"(?:.*/)?01-(?:{channels})-(?P<emotion>0[1-8])-(?P<intensity>0[12])-0[12]-0[12]-(?P<actor>\d\d)\.mp4",
        row={"Path": "{path}", "Fold": "{fold}", "Subject": "{actor}", "Emotion": "{emotion}"},
        words={"emotion": {f"{n:02d}": emotion for n, emotion in enumerate(EMOTIONS, start=1)}},
        change=lambda fields: {**fields, "fold": str((int(fields["actor"]) + 3) // 4)},
    )


CORPUS = Corpus(
    name="RAVDESS",
    about="24 actors who say two sentences (and sing them) in eight emotions, in two strengths",
    link="https://zenodo.org/records/1188976",
    licence="CC BY-NC-SA 4.0",
    measure="UAR and WAR of the eight emotions in speech, over six folds",
    split="six folds of four actors each, in their order (HiCMAE); without `--fold` our own, by actor",
    tasks=(TaskColumns("emotion", "class", ("Emotion",), EMOTIONS),),
    sources=(source(CHANNELS["speech"]),),
    folds=("1", "2", "3", "4", "5", "6"),
    rows={"all": 1440},
)


@dataclass(kw_only=True)
class Options(RecipeOptions):
    """Pack RAVDESS into shards."""

    channels: str = option("speech", help="speech, song, or speech,song")
    fold: str = option(
        "", metavar="K", help="fold of six that is the test set, with the emotion as a class, as in papers"
    )


def fake(folder: Path) -> None:
    tree = Tree(folder)
    for actor in (1, 2, 5, 18, 24):
        for emotion in (1, 4):
            tree.clip(f"Actor_{actor:02d}/01-01-{emotion:02d}-01-01-01-{actor:02d}.mp4")
    tree.clip("Actor_01/02-01-04-01-01-01-01.mp4", sound=None)
    tree.clip("Actor_02/01-02-04-02-01-01-02.mp4")
    tree.clip("Actor_01/03-01-04-01-01-01-01.wav")


def pack_it() -> int:
    given = recipe_options(Options)
    unknown = set(given.channels.split(",")) - set(CHANNELS)
    if unknown:
        raise ViperError(f"--channels {given.channels}: allowed are {', '.join(CHANNELS)}")
    channels = {CHANNELS[channel] for channel in given.channels.split(",")}
    if given.fold:
        chosen = dataclasses.replace(CORPUS, sources=(source("|".join(sorted(channels))),))
        return pack_known(given, chosen, given.fold)
    stems = sorted({path.stem for path in find_files(given.corpus).files})
    rows = [found for stem in stems if stem[3:5] in channels and (found := row(stem))]
    return pack_corpus(given, rows, videos=given.corpus)


if __name__ == "__main__":
    run_chosen(CORPUS, fake, pack_it)
