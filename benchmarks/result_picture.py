"""result_picture.py: the picture in README: one frame of a rendered clip, and its intensities over time."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps

HEIGHT = 420
"""Of the picture, in pixels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="what `make demo` wrote")
    parser.add_argument("--out", type=Path, default=Path("docs/result.png"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shown, plot = Path(folder) / "shown.mp4", Path(folder) / "plot.png"
        infer(options.demo, "--render", shown, "--plot", plot, "--window-seconds", "1")
        frame, timeline = middle_frame(shown), Image.open(plot).convert("RGB")
    parts = [ImageOps.contain(image, (4 * HEIGHT, HEIGHT)) for image in (frame, timeline)]
    joined = Image.new("RGB", (sum(part.width for part in parts) + 20, HEIGHT), "white")
    joined.paste(parts[0], (0, 0))
    joined.paste(parts[1], (parts[0].width + 20, 0))
    joined.save(options.out, optimize=True)
    print(f"{options.out}: {joined.width} × {joined.height}, {options.out.stat().st_size / 1000:.0f} kB")


def infer(demo: Path, *options: str | Path) -> None:
    command = [sys.executable, "-m", "viper_e2e", "infer", demo / "corpus/new_clip.mp4"]
    command += ["--checkpoint", demo / "run/checkpoints/best", *options]
    subprocess.run(list(map(str, command)), check=True)


def middle_frame(path: Path) -> Image.Image:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return Image.fromarray(np.asarray(frames[len(frames) // 2]))


if __name__ == "__main__":
    main()
