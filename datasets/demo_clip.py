"""demo_clip.py: a planned clip of the demo corpus as a camera and a microphone would have it, and as mp4."""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np
import torch
from demo_face import ACTIONS, compose
from demo_look import develop, paint
from demo_plan import Plan
from demo_subject import Camera
from demo_voice import in_room, voice

H264 = {"crf": "22", "preset": "veryfast", "x264-params": "mbtree=0"}
"""Macroblock trees are off: as built into PyAV's wheels, they give other bytes for the same frames at times."""
LEAST_ACTION, MOST_ACTION = -0.5, 1.3
"""No face goes farther, whatever rest and expression add up to."""


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
    actions = action_curves(rng, plan, seconds)
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


def action_curves(rng: np.random.Generator, plan: Plan, seconds: np.ndarray) -> torch.Tensor:
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
