"""reuse.py: an epoch on clips cached in memory, against fusion alone on the same tokens.

    python benchmarks/reuse.py [--preset tiny] [--num-clips 16] [--rounds 5] [--batch-size 8]

Frozen encoders' tokens are cached after the first pass. `cached` is what an epoch then costs: the module's own
forward over prepared clips, backward and optimizer. `fusion alone` gets the same streams, stacked
beforehand, and does its forward, backward and optimizer. CPU seconds per clip, medians with their range.
"""

from __future__ import annotations

import argparse
import logging
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from clips import make_clip
from models import sized
from rich.console import Console
from rich.table import Table

from viper_e2e.encoders import TokenCache
from viper_e2e.model import ViPER


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--preset", default="tiny", choices=("base", "tiny"))
    parser.add_argument("--num-clips", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    model = ViPER(sized(args.preset)).train()
    with tempfile.TemporaryDirectory() as folder:
        clip = make_clip(Path(folder) / "clip.mp4", 360, 10, face=True).read_bytes()
    with torch.no_grad():
        model(cached := model.prepare([clip]), cache=(cache := TokenCache()))
    cached = [model.cacheable(cached[0], cache)] * args.batch_size
    optimizer = torch.optim.AdamW(model.fusion.parameters(), lr=1e-3)
    caught: list[tuple[tuple, dict[str, Any]]] = []
    hook = model.fusion.register_forward_pre_hook(
        lambda _, positional, named: caught.append((positional, named)), with_kwargs=True
    )
    model(cached, range(args.batch_size))
    hook.remove()
    (positional, named), *_ = caught

    def learn(intensities: torch.Tensor) -> None:
        intensities.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    contenders = {
        "cached": lambda: learn(model(cached, range(args.batch_size)).intensities),
        "fusion alone": lambda: learn(model.fusion(*positional, **named)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(args.rounds + 1):
        for name in list(contenders)[:: 1 if turn % 2 else -1]:
            since = time.process_time()
            for _ in range(max(1, args.num_clips // args.batch_size)):
                contenders[name]()
            if turn:
                seconds[name].append((time.process_time() - since) / args.num_clips)
    ratio = [a / b for a, b in zip(*seconds.values(), strict=True)]
    versions = f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {torch.get_num_threads()} threads, torch"
    table = Table("", "ms per clip", title=f"{versions} {torch.__version__}, preset {args.preset}")
    for name, values in seconds.items():
        milli = [1e3 * value for value in values]
        table.add_row(name, f"{statistics.median(milli):.2f} ({min(milli):.2f}–{max(milli):.2f})")
    table.add_row("ratio", f"{statistics.median(ratio):.2f} ({min(ratio):.2f}–{max(ratio):.2f})")
    Console().print(table)


if __name__ == "__main__":
    main()
