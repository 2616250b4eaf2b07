"""forward.py: where the time of a forward pass goes: every stage alone, their sum, and the whole.

    python benchmarks/forward.py [CLIP …] [--preset base] [--batches 1,4] [--rounds 3] [--compile]

Weights are random, of the sizes of the preset. The inputs of every stage are caught in one whole pass and
given to it again, alone. `operations` are counted from the shapes (two per multiply-add); `rate` is what
one large matrix product reaches in the same dtype, threads and round; `floor` is operations / rate, and
`× floor` how far the stage is from it. Times are CPU seconds (of all threads), medians with their range.

Then each backbone in both dtypes on the same inputs: seconds, and the cosine between the outputs; and what
`--mixed-precision auto` takes of the two.

With `--compile`, instead: each part that `viper train --compile` compiles, as it is and compiled, in turn, on
one clip. `first pass` is the wall time of compiling; `differ` the largest difference between the outputs.
"""

from __future__ import annotations

import argparse
import copy
import logging
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from clips import make_clip
from models import sized
from rich.console import Console
from rich.table import Table
from torch.nn.functional import cosine_similarity
from torch.utils.flop_counter import FlopCounterMode

from viper_e2e.model import ViPER, compile_model, compiled_parts, fastest_precision

MATRIX_SIDE = 2048


def caught(model: ViPER, clips: list[bytes]) -> dict[str, list[tuple]]:
    """The arguments of every call of the detector, the encoders and the fusion in one whole pass."""
    calls: dict[str, list[tuple]] = {}
    modules = {"detect": model.faces, **dict(model.encoders.items()), "fusion": model.fusion}
    hooks = [
        module.register_forward_pre_hook(
            lambda _, args, kwargs, name=name: calls.setdefault(name, []).append((args, kwargs)),
            with_kwargs=True,
        )
        for name, module in modules.items()
    ]
    model(clips)
    for hook in hooks:
        hook.remove()
    return calls


def stages(model: ViPER, clips: list[bytes]) -> dict[str, Callable[[], Any]]:
    """Each stage as a function of nothing, in the order of the way of a clip."""
    calls = caught(model, clips)
    found = [
        (frames, model.faces([frames], [seconds])[0].boxes)
        for (batches, times), _ in calls["detect"]
        for frames, seconds in zip(batches, times, strict=True)
    ]
    specs = {e.crop_spec for e in model.encoders.values() if e.crop_spec is not None}
    modules = {"detect": model.faces, **dict(model.encoders.items()), "fusion": model.fusion}

    def again(name: str) -> Callable[[], Any]:
        return lambda: [modules[name](*args, **kwargs) for args, kwargs in calls[name]]

    return {
        "decode": lambda: [model.decoder(clip) for clip in clips],
        "detect": again("detect"),
        "crop": lambda: [model.faces.crop(frames, boxes, spec) for frames, boxes in found for spec in specs],
        **{name: again(name) for name in model.encoders},
        "fusion": again("fusion"),
    }


def cpu(run: Callable[[], Any]) -> float:
    since = time.process_time()
    run()
    return time.process_time() - since


def product_rate(dtype: torch.dtype) -> float:
    """Operations per CPU second of a large matrix product."""
    a, b = (torch.randn(MATRIX_SIDE, MATRIX_SIDE).to(dtype) for _ in range(2))
    return 2 * MATRIX_SIDE**3 * 4 / cpu(lambda: [a @ b for _ in range(4)])


def operations(run: Callable[[], Any]) -> int:
    # Attention fused into one call (open_clip's) is not counted: it is run as its parts here.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter:
            run()
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return counter.get_total_flops()


def spread(values: list[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def table_of(model: ViPER, clips: list[bytes], dtype: torch.dtype, rounds: int) -> Table:
    runs = stages(model, clips)
    work = {name: operations(run) for name, run in runs.items()}
    runs["whole"] = lambda: model(clips)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    rates = []
    for turn in range(rounds):
        rates.append(product_rate(dtype))
        for name in list(runs)[:: 1 if turn % 2 else -1]:
            seconds[name].append(cpu(runs[name]))
    whole = seconds.pop("whole")
    sums = [sum(column) for column in zip(*seconds.values(), strict=True)]
    rate = statistics.median(rates)
    title = f"{len(clips)} clips, {dtype}; a product of {MATRIX_SIDE}² reaches {rate / 1e9:.0f} GFLOP/s"
    table = Table("stage", "CPU s", "share", "GFLOP", "floor, s", "× floor", title=title)
    for name, values in seconds.items():
        floor = work[name] / rate
        far = f"{statistics.median(values) / floor:.1f}" if floor > 1e-4 else ""
        share = statistics.median(values) / statistics.median(sums)
        table.add_row(name, spread(values, 3), f"{share:.1%}", f"{work[name] / 1e9:.1f}", f"{floor:.3f}", far)
    floor = sum(work.values()) / rate
    table.add_section()
    table.add_row("sum", spread(sums, 3), "", f"{sum(work.values()) / 1e9:.1f}", f"{floor:.3f}", "")
    table.add_row("whole", spread(whole, 3), "", "", "", f"{statistics.median(whole) / floor:.1f}")
    table.add_row("whole / sum", spread([w / s for w, s in zip(whole, sums, strict=True)], 3))
    return table


def dtypes_table(models: dict[torch.dtype, ViPER], clip: bytes, rounds: int) -> Table:
    """Each backbone in float32 and in bfloat16."""
    (single, half) = models.values()
    calls = caught(single, [clip])
    table = Table("backbone", "float32, CPU s", "bfloat16, CPU s", "float32 / bfloat16", "cosine, least")
    for name in single.encoders:
        (args, kwargs), *_ = calls[name]
        runs = [partial(model.encoders[name], *args, **kwargs) for model in (single, half)]
        times: list[list[float]] = [[], []]
        outputs = [tokens_of(run()) for run in runs]
        for _ in range(rounds):
            for column, run in zip(times, runs, strict=True):
                column.append(cpu(run))
        ratio = [a / b for a, b in zip(*times, strict=True)]
        least = float(cosine_similarity(*outputs, dim=-1).min())
        table.add_row(name, spread(times[0], 3), spread(times[1], 3), spread(ratio), f"{least:.5f}")
    return table


def compiled_table(model: ViPER, clip: bytes, dtype: torch.dtype, rounds: int) -> Table:
    """Each compiled part as it is and compiled; the fusion also with its backward pass, as it always trains."""
    twin = copy.deepcopy(model)
    table = Table(
        "part", "as it is, CPU s", "compiled, CPU s", "as it is / compiled", "first pass, s", "differ"
    )
    table.title = f"one clip, {dtype}"
    calls = {name: made[0] for name, made in caught(model, [clip]).items()}
    compile_model(twin)
    for name in compiled_parts(model):
        plain, compiled = ({**dict(m.encoders.items()), "fusion": m.fusion}[name] for m in (model, twin))
        kinds = [(name, forward)] + ([("fusion, trained", trained)] if name == "fusion" else [])
        for kind, way in kinds:
            runs = [partial(way, module, calls[name], dtype) for module in (plain, compiled)]
            expected, since = runs[0](), time.perf_counter()
            found = runs[1]()
            first = time.perf_counter() - since
            times = [[cpu(run) for run in runs] for _ in range(rounds)]
            columns = [list(column) for column in zip(*times, strict=True)]
            ratio = [a / b for a, b in times]
            differ = f"{float((expected - found).abs().max()):.1e}"
            table.add_row(kind, *(spread(c, 4) for c in columns), spread(ratio), f"{first:.0f}", differ)
    return table


def forward(module: torch.nn.Module, call: tuple, dtype: torch.dtype) -> torch.Tensor:
    half = dtype.itemsize < 4
    with torch.autocast("cpu", dtype=dtype if half else None, enabled=half):
        return tokens_of(module(*call[0], **call[1]))


def trained(module: torch.nn.Module, call: tuple, dtype: torch.dtype) -> torch.Tensor:
    module.requires_grad_(True)
    with torch.enable_grad():
        output = forward(module, call, dtype)
        output.square().mean().backward()
    module.zero_grad()
    module.requires_grad_(False)
    return output.detach()


def tokens_of(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[0][output[1]]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, help="yours, instead of clips made here")
    parser.add_argument("--preset", default="base", choices=("base", "tiny"))
    parser.add_argument("--batches", default="1,4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--compile", action="store_true", help="what torch.compile gains, and nothing else")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as folder:
        paths = args.clips or [make_clip(Path(folder) / f"{i}.mp4", 360, 10, i, face=True) for i in range(2)]
        source = [path.read_bytes() for path in paths]
    torch.manual_seed(0)
    models = {torch.float32: ViPER(sized(args.preset)).eval().requires_grad_(False)}
    if "bfloat16" in args.dtypes:
        models[torch.bfloat16] = copy.deepcopy(models[torch.float32])
        models[torch.bfloat16].set_compute_dtype(torch.bfloat16)
    console.print(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, preset {args.preset}, random weights, {args.rounds} rounds"
    )
    for name in args.dtypes.split(","):
        dtype = getattr(torch, name)
        if args.compile:
            console.print(compiled_table(models[dtype], source[0], dtype, args.rounds))
            continue
        for count in map(int, args.batches.split(",")):
            clips = [source[i % len(source)] for i in range(count)]
            console.print(table_of(models[dtype], clips, dtype, args.rounds))
    if len(models) == 2 and not args.compile:
        console.print(dtypes_table(models, source[0], args.rounds))
        choice = fastest_precision(ViPER(sized(args.preset)))
        console.print(f"--mixed-precision auto: {choice.precision}, since {choice.reason}")


if __name__ == "__main__":
    main()
