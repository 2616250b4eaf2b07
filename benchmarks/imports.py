"""imports.py: seconds that starting takes: torch, each command and its help, what a small model is made of.

    python benchmarks/imports.py [--rounds 10] [--checkpoint FOLDER]

Each line is a process of its own. Its user CPU seconds are those of all processes that it starts, too (of those
that outlive it, on Linux alone), and the least of all rounds, so that others on the machine count little. One
round before is not counted: it compiles modules, as an installation does. `viper infer` scores one clip of 2 s,
with a `tiny` model of random weights or the given checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clips import make_clip
from rich.console import Console
from rich.table import Table

from viper_e2e import ViPER
from viper_e2e.commands import COMMANDS
from viper_e2e.config import PRESETS

IMPORTED = {
    "torch alone": "import torch",
    "viper infer, until a model is loaded": "import viper_e2e.commands.inference",
    "viper eval, the same": "import viper_e2e.commands.evaluation",
    "viper train, the same": "import viper_e2e.experiments.seeds",
    "viper check": "import viper_e2e.commands.checking",
    "viper pack": "import viper_e2e.commands.packing",
    "Python alone": "pass",
    "torchvision": "import torchvision",
    "a ViT of transformers": "from transformers.models.vit.modeling_vit import ViTModel",
    "... and a wav2vec 2.0": "from transformers.models.vit.modeling_vit import ViTModel\n"
    "from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2Model",
    "libraries of the model below": """
import gc, os
gc.disable()
import accelerate, av, torch
from facenet_pytorch.models.mtcnn import ONet, PNet, RNet
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.models.vit.modeling_vit import ViTModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder
os._exit(0)
""",
}
"""The last of them: the least that `viper infer` of one clip can come to while these import what they do."""


def adopt_orphans() -> None:
    """Workers that outlive the process that started them become children of this one, and are counted."""
    if sys.platform == "linux":
        become_subreaper = 36  # PR_SET_CHILD_SUBREAPER of <linux/prctl.h>
        ctypes.CDLL(None).prctl(become_subreaper, 1, 0, 0, 0)


def seconds_of(command: list[str], folder: Path) -> tuple[float, float]:
    """User CPU of a process and all that it starts; and by the clock, until it ends."""
    before, since = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    by_the_clock = time.perf_counter() - since
    with contextlib.suppress(ChildProcessError):  # none is left
        while True:
            os.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime, by_the_clock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--checkpoint", type=Path)
    options = parser.parse_args()
    adopt_orphans()
    viper = [sys.executable, "-m", "viper_e2e"]
    commands = {f"viper {name} --help": [*viper, name, "--help"] for name in COMMANDS}
    commands |= {name: [sys.executable, "-c", code] for name, code in IMPORTED.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = (options.checkpoint or folder / "model").resolve()
        if options.checkpoint is None:
            ViPER(PRESETS["tiny"]()).save_pretrained(checkpoint)
        make_clip(folder / "clip.mp4", 360, 2)
        words = ["infer", "clip.mp4", "--checkpoint", str(checkpoint), "--output", "out.json"]
        commands["viper infer of one clip"] = [*viper, *words]
        taken: dict[str, list[tuple[float, float]]] = {what: [] for what in commands}
        for round_number in range(1 + options.rounds):
            for what, command in commands.items():
                (folder / "out.json").unlink(missing_ok=True)
                one = seconds_of(command, folder)
                taken[what] += [one] if round_number else []
    least = {what: [min(column) for column in zip(*rows, strict=True)] for what, rows in taken.items()}
    torch_alone = least["torch alone"][0]
    table = Table("what", "user CPU s", "over torch", "by the clock, s")
    for what, (user, by_the_clock) in least.items():
        table.add_row(what, f"{user:.2f}", f"{user - torch_alone:+.2f}", f"{by_the_clock:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
