"""ravdess.py: RAVDESS (Livingstone & Russo 2018) -> shards; labels, actors and splits from file names.

    python datasets/ravdess.py --corpus RAVDESS --out shards/ravdess [--channels speech,song]

Expects the video zips unpacked as they come: `Actor_01/01-01-06-01-02-01-12.mp4` and so on, at any depth.
A name's seven fields are modality, vocal channel, emotion, intensity, statement, repetition, actor. Only
modality 01 (picture and sound) is packed: 02 is the same take without its sound.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from viper_e2e.commands import pack_corpus, recipe_options, run
from viper_e2e.config import RecipeOptions, option
from viper_e2e.errors import ViperError
from viper_e2e.loading import find_files

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


@dataclass(kw_only=True)
class Options(RecipeOptions):
    """Pack RAVDESS into shards."""

    channels: str = option("speech", help="speech, song, or speech,song")


def main() -> int:
    given = recipe_options(Options)
    unknown = set(given.channels.split(",")) - set(CHANNELS)
    if unknown:
        raise ViperError(f"--channels {given.channels}: allowed are {', '.join(CHANNELS)}")
    channels = {CHANNELS[channel] for channel in given.channels.split(",")}
    stems = sorted({path.stem for path in find_files(given.corpus).files})
    rows = [found for stem in stems if stem[3:5] in channels and (found := row(stem))]
    return pack_corpus(given, rows, videos=given.corpus)


if __name__ == "__main__":
    run(main)
