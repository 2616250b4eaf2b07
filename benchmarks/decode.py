"""decode.py: 32 frames and the sound their tokens need, from bytes: ours against other decoders and decode-all.

    python benchmarks/decode.py [CLIP …] [--group target,plain,codecs,length] [--rounds 5] [--only NAME,…]

Without clips, some are made first: x264 medium with and without B-frames, GOP 30, 60, 250; HEVC, VP9, AV1;
360p, 720p, 1080p; 10 s, 60 s, 10 min. Every contender lives in a process of its own, holds the file's bytes,
decodes in one thread, and gives frames at full size and mono sound at 16 kHz. They take turns in every
round, in changing order. Printed are medians with their range, and ours over theirs round by round;
CPU seconds tell most where others use the machine. torchcodec and OpenCV take part where they are installed.

Which frames: those shown at 32 even instants by the times in the file, the same for all; ours finds out itself
each time, the others are told before the clock starts. `identical`: frames bit for bit those of decoding
everything with PyAV, made whole and upright as we do it; a `no` of others tells of another picture than
players show (pixels not square, fields, HDR, colours without a flag from 720 lines on). `decoded`: frames that
passed the codec, where that is known. `peak`: resident memory of the process, all libraries and the clip's
bytes included.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
from decoders import CONTENDERS, SAMPLE_RATE, wanted_frames

OURS, REFERENCE = "ours (PyAV)", "PyAV decode-all"


# --- one contender in a process of its own ------------------------------------------------------------


def serve(name: str, path: str) -> None:
    """Decode once for each line that arrives, and answer with the figures."""
    decode, data = CONTENDERS[name][1](), Path(path).read_bytes()
    wanted = wanted_frames(data)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print must not be taken for an answer
    for _ in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")
        wall, cpu = time.perf_counter(), time.process_time()
        frames, sound, decoded = decode(data, wanted)
        figures = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        figures |= {
            "peak": int(peak[1]) / 1e3,
            "held": len(data) / 1e6,
            "decoded": decoded,
            "shape": list(frames.shape),
        }
        figures["digest"] = hashlib.sha256(np.ascontiguousarray(frames)).hexdigest()
        figures["sound"] = sum(map(len, sound)) / SAMPLE_RATE
        print(json.dumps(figures), file=answers, flush=True)
        del frames, sound


class Contender:
    def __init__(self, name: str, path: Path):
        command = [sys.executable, __file__, "--serve", name, str(path)]
        self.name, self.failure = name, ""
        self.results: list[dict[str, Any]] = []
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (read when it fails)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def run(self, *, counts: bool) -> None:
        if self.failure:
            return
        try:
            print("go", file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._log.seek(0)
            self.failure = (self._log.read().strip().splitlines() or ["ended"])[-1][:90]
        elif counts:
            self.results.append(json.loads(answer))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def column(self, key: str) -> list[Any]:
        return [result[key] for result in self.results]


# --- clips --------------------------------------------------------------------------------------------


def groups(folder: Path) -> dict[str, list[tuple[str, Callable[[], Path]]]]:
    """(title, how to make it) of each clip, by group; nothing is made before it is asked for."""
    from clips import lengthen, make_clip

    def x264(height: int, gop: int, bf: int) -> Path:
        options = {"preset": "medium", "bf": str(bf), "g": str(gop)}
        path = folder / f"x264-{height}-{gop}-{bf}.mp4"
        return path if path.exists() else make_clip(path, height, 10, options=options)

    def coded(codec: str, options: dict[str, str], suffix: str, height: int) -> Path:
        path = folder / f"{codec}-{height}{suffix}"
        return path if path.exists() else make_clip(path, height, 10, codec=codec, options=options)

    def long(height: int, gop: int, times: int) -> Path:
        path = folder / f"x264-{height}-{gop}-x{times}.mp4"
        return path if path.exists() else lengthen(x264(height, gop, 3), path, times)

    others = {
        "HEVC": ("libx265", {"preset": "fast", "x265-params": "log-level=none:keyint=60"}, ".mp4"),
        "VP9": ("libvpx-vp9", {"cpu-used": "6", "deadline": "realtime", "b": "2M", "g": "60"}, ".webm"),
        "AV1": ("libsvtav1", {"preset": "10", "g": "60"}, ".mp4"),
    }
    return {
        "target": [
            (f"x264 -bf 3, {h}p, GOP {g}, 10 s", lambda h=h, g=g: x264(h, g, 3))
            for h in (360, 720)
            for g in (30, 60, 250)
        ],
        "plain": [
            (f"x264 -bf {b}, {h}p, GOP {g}, 10 s", lambda h=h, g=g, b=b: x264(h, g, b))
            for h, g, b in ((360, 60, 0), (720, 60, 0), (1080, 60, 0), (1080, 60, 3), (1080, 250, 3))
        ],
        "codecs": [
            (f"{name}, {h}p, GOP 60, 10 s", lambda v=v, h=h: coded(*v, h))
            for name, v in others.items()
            for h in (360, 720)
        ],
        "length": [
            (f"x264 -bf 3, 360p, GOP {g}, {10 * times} s", lambda g=g, times=times: long(360, g, times))
            for g in (30, 60, 250)
            for times in (1, 6, 60)
        ],
    }


# --- tables -------------------------------------------------------------------------------------------


def race(path: Path, names: list[str], rounds: int) -> list[Contender]:
    runners = [Contender(name, path) for name in names]
    for turn in range(rounds + 1):  # the first warms up
        order = runners[turn % len(runners) :] + runners[: turn % len(runners)]
        for runner in order:
            runner.run(counts=turn > 0)
    for runner in runners:
        runner.close()
    return runners


def spread(values: list[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def show(title: str, runners: list[Contender]) -> None:
    from rich.console import Console
    from rich.table import Table

    own = next((r for r in runners if r.name == OURS and r.results), None)
    truth = next((r.results[0]["digest"] for r in runners if r.name == REFERENCE and r.results), None)
    table = Table(
        "contender", "CPU s", "ours / theirs", "wall s", "decoded", "peak MB", "identical", title=title
    )
    for runner in runners:
        if not runner.results:
            table.add_row(runner.name, runner.failure)
            continue
        first = runner.results[0]
        pairs = zip(own.column("cpu"), runner.column("cpu"), strict=True) if own else ()
        table.add_row(
            runner.name,
            spread(runner.column("cpu")),
            spread([a / b for a, b in pairs]) if own and runner is not own else "",
            spread(runner.column("wall")),
            "?" if first["decoded"] is None else str(first["decoded"]),
            f"{statistics.median(runner.column('peak')):.0f}",
            "" if truth is None else "yes" if first["digest"] == truth else "no",
        )
    first = next(r.results[0] for r in runners if r.results)
    table.caption = f"frames {first['shape']}, {first['sound']:.1f} s of sound"
    Console(width=140).print(table)


def show_lengths(of_group: dict[str, list[Contender]]) -> None:
    """Ours on a long clip over ours on ten seconds of it."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "clip",
        "CPU",
        "wall",
        "frames decoded",
        "peak memory",
        "less the bytes",
        title="ours, against 10 s of the same",
    )
    short: dict[str, Contender] = {}
    for title, runners in of_group.items():
        own = next(r for r in runners if r.name == OURS)
        kind, _, length = title.rpartition(", ")
        if length == "10 s":
            short[kind] = own
            continue
        row = []
        for key in ("cpu", "wall", "decoded", "peak"):
            pairs = zip(own.column(key), short[kind].column(key), strict=True)
            row.append(spread([a / b for a, b in pairs]))
        # The clip's bytes are the caller's; a clip given by its path is never read whole.
        apart = [
            (long["peak"] - long["held"]) / (brief["peak"] - brief["held"])
            for long, brief in zip(own.results, short[kind].results, strict=True)
        ]
        row.append(spread(apart))
        table.add_row(title, *row)
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, help="yours, instead of clips made here")
    parser.add_argument("--group", default="target,plain,codecs,length")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="contenders, by the beginning of their names")
    parser.add_argument("--folder", type=Path, help="where made clips are kept for the next run")
    parser.add_argument("--serve", nargs=2, metavar=("NAME", "CLIP"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(*args.serve)
        return
    chosen = args.only.split(",") if args.only else [""]
    names = [
        name
        for name, (package, _) in CONTENDERS.items()
        if importlib.util.find_spec(package) and any(name.startswith(c) for c in chosen)
    ]
    versions = f"Python {platform.python_version()}, av {av.__version__}"
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {versions}, {args.rounds} rounds")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        for path in args.clips:
            show(path.name, race(path, names, args.rounds))
        for group in [] if args.clips else args.group.split(","):
            results = {}
            for title, make in groups(folder)[group]:
                results[title] = race(make(), names, args.rounds)
                show(title, results[title])
            if group == "length":
                show_lengths(results)


if __name__ == "__main__":
    main()
