"""demo.py: makes the demo corpus: clips of generated people with faces and voices, with labels.

    python datasets/demo.py --out demo/corpus [--train 320 --val 60 --test 160 --seed 0]

No corpus of emotional video may be shipped, so this one is generated. What it shows is honest about being so:
one photographed face, painted and bent into as many people as there are subjects (`demo_subject.py`,
`demo_look.py`), whose warps stand for expressions (`demo_face.py`), and a synthetic voice (`demo_voice.py`).

As in recordings of real people, differences between people are larger than what they show. A subject's face,
resting expression, voice, camera and room last through all of their clips, and no subject is in two splits.
In a third of the clips the expression is the same from the first frame to the last; in the others it comes
and goes. Some emotions show only in the face, some only in the voice, one in both; about one clip in twenty
has no face in view and as many have no sound. How strongly test subjects express themselves, how they laugh
and pant, their light and their walls come from ranges that training never saw (`RANGES` in `demo_plan.py`).

The first clips of a larger corpus are the smaller one of the same seed (`--train 64`, `160`, `320`, `640`).

Written under `--out`: `videos/*.mp4` (H.264 + AAC), `labels.csv` (Hume-Reaction's layout), `parameters.csv`
(what each clip really shows, for `ceiling`), and `new_clip.mp4`, one more clip that no split contains.
"""

from __future__ import annotations

import argparse
import csv
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from demo_clip import write_clip
from demo_plan import EMOTIONS, SPLITS, Plan, plan_clip

from viper_e2e.errors import ViperError
from viper_e2e.runtime import count_of
from viper_e2e.runtime import counting as progress_bar


def write_corpus(out: Path, counts: dict[str, int], seed: int, num_workers: int) -> list[Plan]:
    """Render every clip and write the two tables; returns the plans in the order of the tables."""
    if (out / "labels.csv").exists():
        raise ViperError(f"{out}: holds a corpus already; give another --out, or remove it first")
    (out / "videos").mkdir(parents=True, exist_ok=True)
    plans = [plan_clip(seed, split, index) for split in SPLITS for index in range(counts[split])]
    paths = [out / "videos" / f"{plan.name}.mp4" for plan in plans]
    extra = plan_clip(seed, "new", 0)
    with progress_bar("demo corpus") as progress, ProcessPoolExecutor(num_workers) as pool:
        jobs = pool.map(write_clip, [*plans, extra], [*paths, out / "new_clip.mp4"], chunksize=4)
        for done, _ in enumerate(jobs, start=1):
            progress(done, len(plans) + 1)
    write_tables(out, plans)
    return plans


def write_tables(out: Path, plans: list[Plan]) -> None:
    """`parameters.csv` and `labels.csv`, a row for each clip."""
    _write_table(out / "parameters.csv", [parameters_of(plan) for plan in plans])
    # Last, because it is what says that the corpus is complete.
    _write_table(out / "labels.csv", [_labels(plan) for plan in plans])


def _labels(plan: Plan) -> dict[str, str]:
    reported = {emotion: f"{value:.4f}" for emotion, value in plan.reported.items()}
    return {"File_ID": f"[{plan.name}]", "Split": plan.split, **reported, "Subject": plan.subject.name}


def parameters_of(plan: Plan) -> dict[str, str | float]:
    """What the clip shows, free of label noise (`face.`, `voice.`: zero where nothing can be seen or heard)."""
    shown = {f"face.{action}": amount * plan.has_face for action, amount in plan.actions.items()}
    heard = {f"voice.{cue}": strength * plan.has_sound for cue, strength in plan.cues.items()}
    rest = {f"rest.{action}": amount for action, amount in plan.subject.rest.items()}
    shape = {f"shape.{trait}": amount for trait, amount in plan.subject.shape.items()}
    manner = {f"speaker.{name}": value for name, value in vars(plan.subject.speaker).items()}
    scene = {f"scene.{name}": value for name, value in plan.scene.items()}
    present = {"present.face": float(plan.has_face), "present.sound": float(plan.has_sound)}
    course = {name: float(getattr(plan, name)) for name in ("constant", "apex", "spread", "seconds")}
    numbers = {**shown, **heard, **present, **rest, **shape, **manner, **scene, **course}
    names = {"File_ID": f"[{plan.name}]", "Split": plan.split, "Subject": plan.subject.name}
    return names | {name: round(value, 6) for name, value in numbers.items()}


def _write_table(path: Path, rows: list[dict]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def regression(
    parameters_csv: Path, labels_csv: Path, permute_seed: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the test clips predicted from what the clips show: ridge regression fitted on training clips.

    The rest is noise of self-report and what the clip keeps out of sight or hearing: no model does much better.

    :param permute_seed: exchanges the training clips' labels among them: the floor.
    :return: predicted and true labels of the test split, `N E`.
    """
    with parameters_csv.open() as one, labels_csv.open() as two:
        parameters, labels = list(csv.DictReader(one)), {row["File_ID"]: row for row in csv.DictReader(two)}
    used = [name for name in parameters[0] if name.startswith(("face.", "voice.", "present."))]

    def columns(split: str) -> tuple[np.ndarray, np.ndarray]:
        rows = [row for row in parameters if row["Split"] == split]
        inputs = np.array([[float(row[name]) for name in used] + [1.0] for row in rows])
        return inputs, np.array([[float(labels[row["File_ID"]][name]) for name in EMOTIONS] for row in rows])

    (inputs, targets), (test_inputs, test_targets) = columns("train"), columns("test")
    if permute_seed is not None:
        targets = np.random.default_rng(permute_seed).permutation(targets)
    weights = np.linalg.solve(inputs.T @ inputs + 0.1 * np.eye(inputs.shape[1]), inputs.T @ targets)
    return test_inputs @ weights, test_targets


def ceiling(parameters_csv: Path, labels_csv: Path, permute_seed: int | None = None) -> dict[str, float]:
    """Pearson correlation of `regression` on the test split, for each emotion, and their `mean`."""
    predicted, true = regression(parameters_csv, labels_csv, permute_seed)
    pearson = [float(np.corrcoef(predicted[:, i], true[:, i])[0, 1]) for i in range(len(EMOTIONS))]
    return {**dict(zip(EMOTIONS, pearson, strict=True)), "mean": float(np.mean(pearson))}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0].split(": ", 1)[1])
    parser.add_argument("--out", type=Path, required=True, help="folder to make the corpus in")
    for split, count in (("train", 320), ("val", 60), ("test", 160)):
        parser.add_argument(f"--{split}", type=int, default=count, help=f"clips in {split} (default {count})")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-workers", type=int, default=os.cpu_count() or 1, help="processes")
    given = parser.parse_args(arguments)
    counts = {split: getattr(given, split) for split in SPLITS}
    try:
        plans = write_corpus(given.out, counts, given.seed, given.num_workers)
    except ViperError as error:
        parser.exit(1, f"{error}\n")
    seconds = sum(plan.seconds for plan in plans)
    faceless, silent = sum(not plan.has_face for plan in plans), sum(not plan.has_sound for plan in plans)
    print(
        f"{count_of(len(plans), 'clip')}, {seconds / 60:.0f} min; {faceless} without a face, "
        f"{silent} without sound"
    )
    print(f"labels      {given.out / 'labels.csv'}")
    print(f"parameters  {given.out / 'parameters.csv'}")
    if counts["train"] and counts["test"]:
        best = ceiling(given.out / "parameters.csv", given.out / "labels.csv")
        print(f"ceiling     mean Pearson {best['mean']:.3f} on test, from the parameters")
    new = plan_clip(given.seed, "new", 0)
    true = ", ".join(f"{emotion} {value:.2f}" for emotion, value in new.truth.items() if value)
    print(f"new clip    {given.out / 'new_clip.mp4'} (in no split; shows {true})")


if __name__ == "__main__":
    main()
