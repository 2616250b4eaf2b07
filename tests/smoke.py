"""smoke.py: what must work wherever the package is installed: every kind of clip, and pack to infer.

Run by `environments.py` in each of its environments: `python tests/smoke.py clips` needs no torch,
`python tests/smoke.py commands` runs the command `viper` of its own environment.
"""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from support.media import make_clip, picture

import viper_e2e
from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import ClipDecoder, probe

KINDS = {
    # Ending: codecs of picture and sound.
    "mp4": ("libx264", "aac"),
    "mov": ("libx264", "pcm_s16le"),
    "mkv": ("libx265", "flac"),
    "webm": ("libvpx-vp9", "libopus"),
    "avi": ("mpeg4", "mp3"),
    "flv": ("libx264", "aac"),
    "ts": ("mpeg2video", "mp2"),
}
RATES = {"libopus": 48_000, "mp2": 44_100, "mp3": 44_100}
NUM_FRAMES, FPS = 25, 25
LABELS = ("Joy", "Fear")


def clips(folder: Path) -> None:
    """One clip of every kind is decoded; pictures and sound are what was put in."""
    decoder = ClipDecoder(DecodingConfig(num_frames=5, sound="windows"))
    pictures = [picture(index, 128, 96).astype(float) for index in range(NUM_FRAMES)]
    for ending, (codec, audio_codec) in KINDS.items():
        path = folder / f"clip.{ending}"
        rate = RATES.get(audio_codec, 16_000)
        shape = {"num_frames": NUM_FRAMES, "fps": FPS, "width": 128, "height": 96, "options": {"b": "2M"}}
        make_clip(path, codec=codec, audio_codec=audio_codec, rate=rate, **shape)
        clip = decoder(path)
        assert probe(path, decoder.config.limits).container == ending, path
        assert clip.frames.shape == (5, 96, 128, 3), clip.frames.shape
        for frame, seconds in zip(clip.frames, clip.frame_seconds, strict=True):
            errors = [np.abs(frame - put_in).mean() for put_in in pictures]
            # FFmpeg's avi muxer leaves a gap of one frame behind the first.
            shown = np.argmin(errors)
            assert errors[shown] < 8, f"{ending}: picture {shown} differs by {errors[shown]:.1f} of 255"
            assert abs(shown - seconds * FPS) < 1.1, f"{ending}: picture {shown} at {seconds:.2f} s"
        heard = np.concatenate([run.samples for run in clip.sound])
        hertz = np.abs(np.fft.rfft(heard)).argmax() * decoder.config.sample_rate / len(heard)
        assert abs(hertz - 440) < 5, f"{ending}: heard {hertz:.0f} Hz of 440"
        print(f"  {ending:<5}{codec:<12}{audio_codec:<10} opens and decodes")


def commands(folder: Path) -> None:
    """Six clips are packed, checked, trained on for two steps, evaluated and scored."""
    videos, shards, run = folder / "videos", folder / "shards", folder / "run"
    videos.mkdir()
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["File_ID", "Split", *LABELS])
        for i in range(6):
            # Of lengths of their own: `check` does not let one clip stand in two splits.
            make_clip(videos / f"{i}.mp4", num_frames=10 + i, fps=10)
            table.writerow([i, "val" if i > 3 else "train", i / 5, 1 - i / 5])
    viper("pack", "--videos", videos, "--labels", folder / "labels.csv", "--out", shards)
    viper("check", "--shards", f"{shards}/*.tar")
    train, val = f"{shards}/train-*.tar", f"{shards}/val-*.tar"
    sizes = ("--batch-size", "2", "--max-steps", "2")
    viper("train", "--preset", "micro", "--train-shards", train, "--val-shards", val, "--run-dir", run, *sizes)
    model = run / "checkpoints" / "last"
    viper("eval", "--checkpoint", model, "--shards", val, "--out", folder / "scores")
    assert json.loads((folder / "scores" / "metrics.json").read_text(encoding="utf-8"))
    viper("infer", videos / "5.mp4", "--checkpoint", model, "--output", folder / "out.json")
    (record,) = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    assert len(record["intensities"]) == len(LABELS)
    assert all(math.isfinite(value) for value in record["intensities"].values())


def viper(*words: object) -> None:
    """The command of this environment; its output is told only where it fails."""
    command = [str(Path(sys.executable).with_name("viper")), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"viper {words[0]}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    print(f"  viper {words[0]}")


if __name__ == "__main__":
    installed = Path(viper_e2e.__file__).resolve()
    assert Path(__file__).resolve().parent.parent not in installed.parents, (
        f"{installed}: not the installed one"
    )
    print(f"  Python {sys.version.split()[0]}, PyAV {av.__version__}, NumPy {np.__version__}")
    with tempfile.TemporaryDirectory() as temporary:
        {"clips": clips, "commands": commands}[sys.argv[1]](Path(temporary))
