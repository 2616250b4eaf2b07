"""imports.py: CPU seconds that starting takes: torch, each command and its help, what a small model is made of.

    python benchmarks/imports.py [--rounds 3]

Each line is a process of its own; its CPU seconds are the least of all rounds, so that others on the machine
count little. `viper infer` scores one clip of 2 s with a `tiny` model of random weights.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
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
}


def cpu_seconds(command: list[str], folder: Path) -> float:
    """Of a process and those that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    commands = {name: [sys.executable, "-c", code] for name, code in IMPORTED.items()}
    viper = [sys.executable, "-c", "import sys; from viper_e2e.commands import main; sys.exit(main())"]
    commands |= {f"viper {name} --help": [*viper, name, "--help"] for name in COMMANDS}
    commands["viper infer of one clip"] = [
        *viper,
        "infer",
        "clip.mp4",
        "--checkpoint",
        "model",
        "--output",
        "out.json",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ViPER(PRESETS["tiny"]()).save_pretrained(folder / "model")
        make_clip(folder / "clip.mp4", 360, 2)
        seconds: dict[str, list[float]] = {what: [] for what in commands}
        for _ in range(options.rounds):
            for what, command in commands.items():
                (folder / "out.json").unlink(missing_ok=True)
                seconds[what].append(cpu_seconds(command, folder))
    torch_alone = min(seconds["torch alone"])
    table = Table("what", "CPU s", "over torch")
    for what, taken in seconds.items():
        table.add_row(what, f"{min(taken):.2f}", f"{min(taken) - torch_alone:+.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
