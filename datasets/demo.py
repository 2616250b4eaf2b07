"""demo.py: makes the demo corpus: clips of generated people with faces and voices, with labels.

    python datasets/demo.py --out demo/corpus [--train 320 --val 60 --test 160 --seed 0]

No corpus of emotional video may be shipped, so this one is generated. What it shows is honest about being so:
one photographed face, painted and bent into as many people as there are subjects (`demo_subject.py`,
`demo_look.py`), whose warps stand for expressions (`demo_face.py`), and a synthetic voice (`demo_voice.py`).

As in recordings of real people, who somebody is drowns what they show. A subject's face, resting expression,
voice, camera and room last through all of their clips, and no subject is in two splits. In a third of the clips
the expression stands unchanged from the first frame to the last; elsewhere it comes and goes. Some emotions
show only in the face, some only in the voice, one in both; about one clip in twenty has no face in view and as
many have no sound. How strongly test subjects express themselves, how they laugh and pant, their light and
their walls come from ranges that training never saw (`RANGES`).

The first clips of a larger corpus are the smaller one of the same seed (`--train 64`, `160`, `320`, `640`).

Written under `--out`: `videos/*.mp4` (H.264 + AAC), `labels.csv` (Hume-Reaction's layout), `parameters.csv`
(what each clip really shows, for `ceiling`), and `new_clip.mp4`, one more clip that no split contains.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from demo_face import ACTIONS, compose
from demo_look import develop, paint
from demo_subject import Camera, Subject, draw_subject
from demo_voice import Speaker, in_room, voice

from viper_e2e.errors import ViperError
from viper_e2e.labels import HUME_REACTION
from viper_e2e.runtime import counting as progress_bar

EMOTIONS = HUME_REACTION.columns

FACE = {
    "Adoration": {"smile": 1.1, "brow_raise": 0.25},
    "Disgust": {"nose_wrinkle": 1.0, "brow_lower": 1.0, "smile": -0.3},
    "Surprise": {"mouth_open": 1.0, "brow_raise": 1.0, "eye_widen": 0.4},
    "Fear": {"lip_stretch": 1.0, "inner_brow_raise": 1.0, "eye_widen": 0.7},
}
"""Actions of each emotion at intensity 1; what is not here leaves the face at rest."""
VOICE = {"Amusement": "laugh", "Anxiety": "pant", "Empathic-Pain": "groan", "Fear": "shriek"}
"""Cue of each emotion; what is not here leaves the voice murmuring."""

RANGES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    # name: (training and validation), (test, below), (test, above)
    "laugh_hz": ((4.4, 5.4), (4.0, 4.4), (5.4, 5.9)),
    "pant_hz": ((2.2, 2.9), (1.9, 2.2), (2.9, 3.3)),
    "groan_seconds": ((0.9, 1.3), (0.75, 0.9), (1.3, 1.5)),
    "breath_hz": ((2200, 2800), (1950, 2200), (2800, 3100)),
    "warp_strength": ((0.92, 1.08), (0.84, 0.92), (1.08, 1.16)),
    "voice_strength": ((0.92, 1.08), (0.84, 0.92), (1.08, 1.16)),
    "brightness": ((0.8, 1.0), (0.72, 0.8), (1.0, 1.08)),
    "warmth": ((-0.06, 0.06), (-0.1, -0.06), (0.06, 0.1)),
    "background_hue": ((0.45, 0.75), (0.15, 0.45), (0.75, 0.95)),
    "background_scale": ((0.2, 0.4), (0.1, 0.2), (0.4, 0.6)),
}
"""Lasting of a subject: all but the two strengths, which differ from clip to clip."""
OF_CLIP = ("warp_strength", "voice_strength")
H264 = {"crf": "22", "preset": "veryfast", "x264-params": "mbtree=0"}
"""Macroblock trees are off: as built into PyAV's wheels, they give other bytes for the same frames at times."""
NO_FACE = NO_SOUND = 0.05
LABEL_NOISE = 0.1
ONE_CONSTANT_IN = 3
"""Of so many clips in a row, one holds its expression throughout."""
LEAST_ACTION, MOST_ACTION = -0.5, 1.3
"""No face goes farther, whatever rest and expression add up to."""
CLIPS_PER_SUBJECT = 4
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Plan:
    """Everything that decides one clip."""

    name: str
    split: str
    subject: Subject
    stream: tuple[int, int, int]
    """Seed of everything that is drawn while rendering."""
    truth: dict[str, float]
    """Intensity of each emotion as shown; the largest is 1."""
    reported: dict[str, float]
    """The same with the noise of self-report; the largest is 1."""
    scene: dict[str, float]
    """Drawn from `RANGES`, with the speaker's own entries left out."""
    seconds: float
    apex: float
    """When the expression is strongest, as a share of the clip."""
    spread: float
    """How long it is strong, as a share of the clip."""
    constant: bool
    """Whether the expression stands unchanged instead."""
    has_face: bool
    has_sound: bool

    @property
    def actions(self) -> dict[str, float]:
        """How far each facial action goes at the apex, from the face at rest."""
        amounts = dict.fromkeys(ACTIONS, 0.0)
        for emotion, parts in FACE.items():
            for action, amount in parts.items():
                amounts[action] += amount * self.truth[emotion] * self.scene["warp_strength"]
        return amounts

    @property
    def cues(self) -> dict[str, float]:
        """How strong each cue of the voice is."""
        return {cue: self.truth[emotion] * self.scene["voice_strength"] for emotion, cue in VOICE.items()}


# --- planning -----------------------------------------------------------------------------------


def plan_clip(seed: int, split: str, index: int) -> Plan:
    """Draw one clip; the same (seed, split, index) is the same clip on every machine and in any order."""
    split_number = SPLITS.index(split) if split in SPLITS else len(SPLITS)
    subject, lasting = plan_subject(seed, split, index // CLIPS_PER_SUBJECT)
    own = np.random.default_rng([seed, split_number, index, 2])
    scene = lasting | {name: _draw(own, name, split) for name in OF_CLIP}
    truth, reported = _intensities(own)
    missing = own.uniform()
    block = np.random.default_rng([seed, split_number, index // ONE_CONSTANT_IN, 6])
    return Plan(
        name=f"{10000 * (1 + split_number) + index:05d}",
        split=split,
        subject=subject,
        stream=(seed, split_number, index),
        truth=truth,
        reported=reported,
        scene=scene,
        seconds=float(own.uniform(2.0, 3.5)),
        apex=float(own.uniform(0.4, 0.6)),
        spread=float(own.uniform(0.18, 0.25)),
        constant=bool(block.integers(ONE_CONSTANT_IN) == index % ONE_CONSTANT_IN),
        has_face=bool(missing >= NO_FACE),
        has_sound=bool(not NO_FACE <= missing < NO_FACE + NO_SOUND),
    )


def plan_subject(seed: int, split: str, number: int) -> tuple[Subject, dict[str, float]]:
    """Draw one person, and what of `RANGES` lasts around them."""
    split_number = SPLITS.index(split) if split in SPLITS else len(SPLITS)
    rng = np.random.default_rng([seed, split_number, number, 1])
    lasting = {name: _draw(rng, name, split) for name in RANGES if name not in OF_CLIP}
    manner = {name: lasting.pop(name) for name in list(lasting) if name in Speaker.__dataclass_fields__}
    subject = draw_subject(f"{split}-{number:03d}", (seed, split_number, number), manner, rng)
    return subject, lasting


def _draw(rng: np.random.Generator, name: str, split: str) -> float:
    seen, below, above = RANGES[name]
    band = seen if split in ("train", "val") else (below, above)[rng.integers(2)]
    return float(rng.uniform(*band))


def _intensities(rng: np.random.Generator) -> tuple[dict[str, float], dict[str, float]]:
    """One to three emotions, divided by their maximum as in Hume-Reaction; then the same as self-reported."""
    active = rng.choice(len(EMOTIONS), size=rng.choice([1, 2, 3], p=[0.35, 0.4, 0.25]), replace=False)
    truth = np.zeros(len(EMOTIONS))
    truth[active] = rng.uniform(0.3, 1.0, len(active))
    truth /= truth.max()
    reported = np.clip(truth + rng.normal(0.0, LABEL_NOISE, len(EMOTIONS)), 0.0, None)
    reported /= reported.max()
    return dict(zip(EMOTIONS, truth.tolist(), strict=True)), dict(zip(EMOTIONS, reported.tolist(), strict=True))


# --- rendering ----------------------------------------------------------------------------------


def render_frames(plan: Plan) -> np.ndarray:
    """The picture: uint8 RGB, `N H W 3`."""
    rng = np.random.default_rng([*plan.stream, 3])
    camera = plan.subject.camera
    num_frames = max(2, round(plan.seconds * camera.frames_per_second))
    seconds = np.arange(num_frames) / camera.frames_per_second
    width, height = (2 * round(camera.sharpness * side / 2) for side in camera.size)
    background, light = _background(plan, width, height), _light(rng, plan, width, height)
    motion = _head_motion(rng, seconds)
    face_height = min(camera.face_share * rng.uniform(0.95, 1.05) * height, 0.5 * width)
    center = np.array(camera.center) * (width, height) + 0.02 * height * rng.uniform(-1, 1, 2)
    actions = _action_curves(rng, plan, seconds)
    look = paint(plan.subject) if plan.has_face else None
    frames = np.empty((num_frames, camera.size[1], camera.size[0], 3), np.uint8)
    for start in range(0, num_frames, 4):  # a few frames at a time stay in the cache: three times as fast
        part = slice(start, min(start + 4, num_frames))
        picture = background.expand(part.stop - start, -1, -1, -1)
        if look is not None:
            picture = compose(
                actions[part],
                look,
                background,
                torch.from_numpy(center + face_height * motion[part, :2]).float(),
                torch.from_numpy(face_height * (1 + motion[part, 2])).float(),
                torch.from_numpy(motion[part, 3]).float(),
                plan.subject.mirror,
            )
        picture = _record(picture * light, camera, rng).clamp_(0.0, 1.0).mul_(255.0).round_()
        frames[part] = picture.byte().permute(0, 2, 3, 1).numpy()
    return frames


def _record(picture: torch.Tensor, camera: Camera, rng: np.random.Generator) -> torch.Tensor:
    """As many pixels as the file has, from as few as the sensor has, and its noise: `N 3 H W`."""
    width, height = camera.size
    picture = torch.nn.functional.interpolate(picture, (height, width), mode="bilinear", align_corners=False)
    grain = torch.from_numpy(rng.standard_normal((len(picture), 1, height, width), dtype=np.float32))
    return picture.add_(grain, alpha=camera.grain)


def _action_curves(rng: np.random.Generator, plan: Plan, seconds: np.ndarray) -> torch.Tensor:
    """`N A`: each action over time: at rest, onset, apex, offset, at rest; or held throughout; and blinks."""
    position = seconds / plan.seconds
    envelope = np.exp(-0.5 * ((position - plan.apex) / plan.spread) ** 4)
    if plan.constant:
        envelope = np.ones_like(position)
    amounts = np.array([plan.actions[action] for action in ACTIONS])
    rest = np.array([plan.subject.rest.get(action, 0.0) for action in ACTIONS])
    curves = np.clip(rest + envelope[:, None] * amounts, LEAST_ACTION, MOST_ACTION)
    for blink in np.cumsum(rng.uniform(0.8, 2.5, size=4)):
        eyes = np.exp(-0.5 * ((seconds - blink) / 0.07) ** 2)
        curves[:, ACTIONS.index("eye_close")] = np.maximum(curves[:, ACTIONS.index("eye_close")], eyes)
    return torch.from_numpy(curves).float()


def _head_motion(rng: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    """`N 4`: x, y (in face heights), growth, tilt (radians) of the head over time."""
    slow = rng.uniform(0.15, 0.5, size=4)
    phase = rng.uniform(0, 2 * np.pi, size=4)
    reach = np.array([0.05, 0.03, 0.03, 0.05])
    rest = np.array([0.0, 0.0, 0.0, rng.uniform(-0.07, 0.07)])
    return rest + reach * np.sin(2 * np.pi * slow * seconds[:, None] + phase)


def _background(plan: Plan, width: int, height: int) -> torch.Tensor:
    """`3 H W`: the subject's wall, out of focus: a gradient of one hue with soft patches."""
    rng = np.random.default_rng([*plan.subject.stream, 7])
    cells = max(2, round(1.0 / plan.scene["background_scale"]))
    coarse = torch.from_numpy(rng.uniform(-1, 1, (1, 1, cells, cells)).astype(np.float32))
    patches = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)[0]
    slope = torch.linspace(-1, 1, height)[:, None] * rng.uniform(-0.15, 0.15)
    value = (rng.uniform(0.3, 0.75) + 0.15 * patches + slope).clamp(0.1, 0.95)
    hue = plan.scene["background_hue"] * 2 * math.pi
    tint = torch.tensor([math.cos(hue), math.cos(hue - 2 * math.pi / 3), math.cos(hue + 2 * math.pi / 3)])
    return develop(value * (1 + 0.3 * tint[:, None, None]), plan.subject.camera)


def _light(rng: np.random.Generator, plan: Plan, width: int, height: int) -> torch.Tensor:
    """`3 H W`: brightness and warmth of the light, and the side it comes from: the subject's, and the day's."""
    side = torch.linspace(-1, 1, width) * (plan.subject.camera.light_side + rng.uniform(-0.04, 0.04))
    warmth = plan.scene["warmth"]
    color = torch.tensor([1 + warmth, 1.0, 1 - warmth])[:, None, None]
    return plan.scene["brightness"] * rng.uniform(0.96, 1.04) * color * (1 + side).expand(1, height, width)


def render_sound(plan: Plan) -> np.ndarray:
    """The sound: float32, `C S`, in [-1, 1]: the voice in a room that hums a little."""
    rng = np.random.default_rng([*plan.stream, 4])
    speaker, camera = plan.subject.speaker, plan.subject.camera
    sound = voice(plan.cues, speaker, plan.seconds, camera.sample_rate, plan.apex, rng)
    sound = in_room(sound, speaker, camera.sample_rate, np.random.default_rng([*plan.subject.stream, 8]))
    sound = sound + 0.004 * rng.standard_normal(len(sound), dtype=np.float32)
    balance = np.linspace(1.0, rng.uniform(0.7, 1.0), camera.channels, dtype=np.float32)
    return np.clip(balance[:, None] * sound * rng.uniform(0.7, 1.2), -1.0, 1.0).astype(np.float32)


def write_clip(plan: Plan, path: Path) -> None:
    """Render and encode: H.264 and, if the clip has sound, AAC, in mp4. The same plan gives the same bytes."""
    torch.set_num_threads(1)
    camera, frames = plan.subject.camera, render_frames(plan)
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=camera.frames_per_second, options=H264)
        video.width, video.height = camera.size
        video.pix_fmt = "yuv420p"
        video.thread_count = 1
        layout = "stereo" if camera.channels == 2 else "mono"
        audio = container.add_stream("aac", rate=camera.sample_rate, layout=layout) if plan.has_sound else None
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode())
        if audio is not None:
            block = av.AudioFrame.from_ndarray(render_sound(plan), format="fltp", layout=layout)
            block.sample_rate = camera.sample_rate
            container.mux(audio.encode(block))
            container.mux(audio.encode())


# --- the corpus ---------------------------------------------------------------------------------


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
    _write_table(out / "parameters.csv", [_parameters(plan) for plan in plans])
    # Last, because it is what says that the corpus is complete.
    _write_table(out / "labels.csv", [_labels(plan) for plan in plans])
    return plans


def _labels(plan: Plan) -> dict[str, str]:
    reported = {emotion: f"{value:.4f}" for emotion, value in plan.reported.items()}
    return {"File_ID": f"[{plan.name}]", "Split": plan.split, **reported, "Subject": plan.subject.name}


def _parameters(plan: Plan) -> dict[str, str | float]:
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
    """Labels of the test clips told from what the clips show: ridge regression fitted on training clips.

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
    print(f"{len(plans)} clips, {seconds / 60:.0f} min; {faceless} without a face, {silent} without sound")
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
