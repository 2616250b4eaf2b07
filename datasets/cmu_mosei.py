"""cmu_mosei.py: CMU-MOSEI (Zadeh et al. 2018), monologues from the web -> shards; sentiment and six emotions.

    python datasets/cmu_mosei.py --corpus CMU_MOSEI --out shards/cmu_mosei

Expects `Raw/Videos/Full/Combined/ID.mp4`, `Raw/Transcript/Segmented/Combined/ID.txt`, and anywhere in the
folder `CMU_MOSEI_Labels.csd` (an HDF5 file: `pip install h5py`) and the SDK's `cmu_mosei_std_folds.py`, whose
lists are read without running it. Each labelled stretch of a video is a clip.
"""

from __future__ import annotations

import ast
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from made_up import Tree

from viper_e2e.commands import run_recipe
from viper_e2e.errors import ViperError
from viper_e2e.packing import Corpus, Source
from viper_e2e.runtime import count_of
from viper_e2e.tables import TaskColumns

LABELS = ("Sentiment", "Happy", "Sad", "Anger", "Surprise", "Disgust", "Fear")
"""In the order of the file's columns (CMU-MultimodalSDK#144)."""
PRESENT = tuple(f"{title}_Present" for title in LABELS[1:])
"""Whether each emotion is there at all, of which papers report weighted accuracy and weighted F1."""
MEASURES = ("acc2_has0", "f1_has0", "acc2_non0", "f1_non0", "acc5", "acc7")
LISTS = {"standard_train_fold": "train", "standard_valid_fold": "val", "standard_test_fold": "test"}
GROUP = "All Labels"
NEAR_SECONDS = 0.1
"""Words belong to a stretch that begins so near."""


@dataclass(frozen=True, kw_only=True)
class Stretches(Source):
    """Each labelled stretch of each video."""

    def records(self, folder) -> Iterator[tuple[str, dict[str, str]]]:
        (path,) = folder.tables("**/CMU_MOSEI_Labels.csd", optional=False)[:1]
        splits = standard_folds(folder)
        try:
            import h5py
        except ModuleNotFoundError as error:
            raise ViperError(f"{path}: an HDF5 file; `pip install h5py` to have it read") from error
        strange = []
        with h5py.File(path) as file:
            for video, group in file[f"{GROUP}/data"].items():
                words = transcript(folder.path / f"Raw/Transcript/Segmented/Combined/{video}.txt")
                if splits and video not in splits:
                    strange.append(video)
                rows = zip(group["intervals"][:], group["features"][:], strict=True)
                for n, ((start, end), values) in enumerate(rows):
                    cells = {title: f"{value:.7g}" for title, value in zip(LABELS, values, strict=True)}
                    cells |= dict(zip(PRESENT, (str(int(value > 0)) for value in values[1:]), strict=True))
                    fields = {"video": video, "n": str(n), "start": f"{start:.6g}", "end": f"{end:.6g}"}
                    fields |= {"split": splits.get(video, "rest" if splits else "train")}
                    yield f"{path.name} {video} {n}", {**fields, **cells, "words": nearest(words, float(start))}
        if strange:
            folder.told.append(
                f"{count_of(len(strange), 'video is', 'videos are')} in none of the standard "
                f"folds: {strange[0]}, …"
            )


def standard_folds(folder) -> dict[str, str]:
    """Video → split, from the SDK's lists; empty where they are not there."""
    found = {}
    for path in folder.tables("**/*std_folds.py", optional=True):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                split = LISTS.get(node.targets[0].id)
                found |= dict.fromkeys(ast.literal_eval(node.value), split) if split else {}
    return found


def transcript(path: Path) -> list[tuple[float, str]]:
    """(begin in seconds, words) of each stretch, in order; empty where there is no file."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = (re.fullmatch(r".*?___\d+___([\d.]+)___[\d.]+___(.*)", line) for line in lines)
    return sorted((float(line[1]), line[2].strip()) for line in found if line)


def nearest(words: list[tuple[float, str]], start: float) -> str:
    place = bisect_left(words, (start - NEAR_SECONDS, ""))
    return words[place][1] if place < len(words) and words[place][0] <= start + NEAR_SECONDS else ""


CORPUS = Corpus(
    name="CMU-MOSEI",
    about="labelled stretches of 3,837 videos in which one person speaks to the camera",
    link="http://multicomp.cs.cmu.edu/resources/cmu-mosei-dataset",
    licence="see the SDK; videos are from the web",
    measure="accuracy and F1 of the sign of sentiment, with and without labels of 0, accuracy in five and "
    "seven steps, MAE and Pearson; of each of six emotions, present if its intensity is above 0: "
    "weighted accuracy (mean of both recalls), weighted F1, and the means of both",
    split="the SDK's standard folds, by video",
    tasks=(
        TaskColumns("sentiment", "number", ("Sentiment",), span=(-3.0, 3.0), measures=MEASURES),
        TaskColumns("emotions", "intensities", LABELS[1:], span=(0.0, 3.0)),
        TaskColumns("present", "labels", PRESENT, measures=("weighted_f1",)),
    ),
    sources=(
        Stretches(
            row={
                "File_ID": "{video}_{n}",
                "Path": "Raw/Videos/Full/Combined/{video}.mp4",
                "Start": "{start}",
                "End": "{end}",
                "Split": "{split}",
                "Subject": "{video}",
                **{title: f"{{{title}}}" for title in (*LABELS, *PRESENT)},
                "Text": "{words}",
            },
        ),
    ),
    unverified=(
        "the row count",
        "that a speaker is in only one video (Subject is the video)",
        "how many transcript lines begin within a tenth of a second of a labelled segment",
        "the licence and the link",
    ),
)


def fake(folder: Path) -> None:
    import h5py

    tree = Tree(folder)
    videos = ("-MadeUp0001", "_MadeUp0002", "plain01", "broken01", "unlabelled1")
    combined = "Raw/Videos/Full/Combined"
    for video in videos:
        if video == "broken01":
            tree.broken(f"{combined}/{video}.mp4")
        else:
            tree.clip(f"{combined}/{video}.mp4", seconds=2.0, sound=2.0)
    lines = {
        video: [f"{video}___{n}___{0.5 * n}___{0.5 * n + 0.5}___and so, well" for n in range(3)]
        for video in videos
    }
    for video in videos[:3]:
        tree.text(f"Raw/Transcript/Segmented/Combined/{video}.txt", "\n".join(lines[video]) + "\n")
    with h5py.File(folder / "CMU_MOSEI_Labels.csd", "w") as file:
        for place, video in enumerate(videos[:4]):
            group = file.create_group(f"{GROUP}/data/{video}")
            group["intervals"] = [[0.5 * n, 0.5 * n + 0.75] for n in range(2)]
            group["features"] = [[place - 1.5 + n, n, 0, 0, 2 / 3, 0, 0] for n in range(2)]
    folds = {"train": [videos[0], videos[3]], "valid": [videos[1]], "test": [videos[2]]}
    tree.text("cmu_mosei_std_folds.py", "".join(f"standard_{k}_fold={v}\n" for k, v in folds.items()))


if __name__ == "__main__":
    run_recipe(CORPUS, fake)
