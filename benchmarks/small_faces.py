"""small_faces.py: people who sit back in 1080p: faces found, pixels they are seen in, time and bytes per clip.

    python benchmarks/small_faces.py [--widths 70,120,240] [--rounds 3]

A clip of 8 s with a photographed face that wanders over a photograph, H.264, 25 pictures per second. Told for 8
frames at 320 pixels (what `tiny` looked at before) and at 640 (`tiny` now), and for 32 frames at 640 (`base`),
crops of 224: the share of frames with a face; the face's width as decoded and as it reaches the encoder; CPU
seconds to decode and find faces, without and with close-ups (medians of rounds in turn); bytes of pixels kept.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import av
import numpy as np
import torch
from PIL import Image
from skimage import data

from viper_e2e.config import ModelConfig, tiny, with_settings
from viper_e2e.encoders import PreparedClip
from viper_e2e.faces import FaceRegions
from viper_e2e.model import ViPER

SIZE, RATE, SECONDS = (1920, 1080), 25, 8
FACE_IN_PORTRAIT = 85
"""Pixels across, of 256."""


def make(path: Path, width: int) -> None:
    table = np.asarray(Image.fromarray(data.coffee()).resize(SIZE))
    side = round(256 * width / FACE_IN_PORTRAIT)
    portrait = Image.fromarray(data.astronaut()[:256, 90:346])
    portrait = np.asarray(portrait.resize((side, side), Image.Resampling.LANCZOS))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for index in range(RATE * SECONDS):
            image = table.copy()
            x, y = 300 + 3 * index, 150 + round(60 * np.sin(index / 20))
            image[y : y + side, x : x + side] = portrait
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def config_of(num_frames: int, max_side: int) -> ModelConfig:
    decoding = {"decoding.num_frames": num_frames, "decoding.max_side": max_side}
    crops = {"visual.backbone.config.image_size": 224, "visual.crop_size": 224}
    return with_settings(tiny(), {"modalities": ("visual",), **decoding, **crops})


def prepared(model: ViPER, path: Path, close_ups: bool) -> tuple[PreparedClip, float]:
    model.decoder.comes_back = close_ups
    started = time.process_time()
    (clip,) = model.prepare(path)
    return clip, time.process_time() - started


def row(path: Path, width: int, num_frames: int, max_side: int, rounds: int) -> str:
    model = ViPER(config_of(num_frames, max_side)).eval()
    times: dict[bool, list[float]] = {False: [], True: []}
    clips = {}
    for _ in range(rounds):
        for close_ups, taken in times.items():
            clips[close_ups], seconds = prepared(model, path, close_ups)
            taken.append(seconds)
    clip, found = clips[True], clips[True].track.face_found
    sides = (clip.track.boxes[:, 2] - clip.track.boxes[:, 0])[found]
    decoded = float(sides.median()) if found.any() else float("nan")
    seen_at = clip.pixels.cut_from[int(found.nonzero()[0])][0] if _is_close(clip) else max_side
    kept = [c.pixels.num_bytes if _is_close(c) else c.pixels.nbytes for c in clips.values()]
    return " | ".join(
        [
            f"{width} px",
            f"{num_frames} at {max_side}",
            f"{float(found.float().mean()):.0%}",
            f"{decoded:.0f} → {decoded * seen_at / max_side:.0f}",
            f"{median(times[False]):.2f} → {median(times[True]):.2f}",
            " → ".join(f"{count / 1e6:.1f}" for count in kept),
        ]
    )


def _is_close(clip: PreparedClip) -> bool:
    return isinstance(clip.pixels, FaceRegions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--widths", type=lambda text: [int(x) for x in text.split(",")], default=[70, 120, 240])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("face | frames | found | its width, without → with close-ups | CPU s | MB kept")
    with tempfile.TemporaryDirectory() as folder:
        for width in options.widths:
            path = Path(folder) / f"{width}.mp4"
            make(path, width)
            for num_frames, max_side in ((8, 320), (8, 640), (32, 640)):
                print(row(path, width, num_frames, max_side, options.rounds), flush=True)


if __name__ == "__main__":
    main()
