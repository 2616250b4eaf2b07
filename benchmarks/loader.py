"""loader.py: clips per second into a module that does nothing, against what the decoders deliver alone.

    python benchmarks/loader.py [--shards PATTERN | --height 360 --seconds 10 --num-clips 24] [--preset base]
                                [--workers 0,1,2,4] [--rounds 3] [--batch-size 8]
                                [--part rates,memory,waiting]

Without `--shards` clips are made first: H.264 (x264 medium, B-frames) and AAC, moving noise over a gradient.
`alone` is one process per core that decodes the same clips from memory and hands nothing over: what the
loader can reach at most. Contenders take turns in every round, in changing order; medians with their range.
CPU seconds (workers and parent together) tell what handing over costs, also where others use the machine.

Then memory: how many bytes of decoded clips wait while nobody asks for them, beside workers × prefetch × one
clip. They lie in memory that processes share; `private` is what a worker (libraries and codec included) and
this process hold besides, in which a copy of frames would show.

And waiting: workers bound to one core, the consumer to another; it takes longer per clip than decoding does
(`--compute` × the time of decoding), and the share of its time spent waiting is shown.
"""

from __future__ import annotations

import argparse
import http.server
import multiprocessing
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import av
from clips import make_clip
from rich.console import Console
from rich.table import Table

from viper_e2e.clip import DecodedClip, Sample
from viper_e2e.config import PRESETS
from viper_e2e.decoding import ClipDecoder
from viper_e2e.loading import DecodeSample
from viper_e2e.shards import ShardSet, ShardWriter

if TYPE_CHECKING:
    from viper_e2e.loading import ClipLoader

NUM_CORES = len(os.sched_getaffinity(0))


# --- material -----------------------------------------------------------------------------------


def make_shards(folder: Path, height: int, seconds: float, num_clips: int) -> str:
    """Four different clips, each repeated under many names."""
    clips = []
    for seed in range(4):
        make_clip(folder / f"{seed}.mp4", height, seconds, seed)
        clips.append((folder / f"{seed}.mp4").read_bytes())
    with ShardWriter(folder, "bench", None, shard_size=64 * 10**6) as writer:
        for i in range(num_clips):
            writer.add(f"clip{i:05d}", {"mp4": clips[i % 4]}, file_id=str(i))
    return str(folder / "bench-*.tar")


class RangeHandler(http.server.BaseHTTPRequestHandler):
    """Serves byte ranges of the files under `root`."""

    protocol_version = "HTTP/1.1"
    root = Path()

    def do_GET(self):
        path = self.root / Path(self.path).name
        if not path.is_file():
            self.send_error(404)
            return
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        size = path.stat().st_size
        with path.open("rb") as file:
            data = os.pread(file.fileno(), min(last, size - 1) - first + 1, first)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{size}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def serve(root: Path, port: multiprocessing.connection.Connection) -> None:
    RangeHandler.root = root
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), RangeHandler) as server:
        port.send(server.server_port)
        server.serve_forever()


# --- contenders ---------------------------------------------------------------------------------


def decode_alone(decode: DecodeSample, samples: list[Sample], start, done) -> None:
    decode(samples[0])
    done.put("ready")
    start.wait()
    since = time.process_time()
    for sample in samples:
        decode(sample)
    done.put(time.process_time() - since)


def alone(shards: ShardSet, decode: DecodeSample, num_processes: int) -> tuple[float, float]:
    """Clips per second and CPU seconds per clip of processes that decode bytes they hold already."""
    context = multiprocessing.get_context("forkserver")
    start, done = context.Event(), context.Queue()
    samples = [shards.read(i) for i in range(len(shards))]
    workers = [
        context.Process(target=decode_alone, args=(decode, samples[p::num_processes], start, done))
        for p in range(num_processes)
    ]
    for worker in workers:
        worker.start()
    for _ in workers:
        done.get()
    since = time.perf_counter()
    start.set()
    cpu = sum(done.get() for _ in workers)
    rate = len(samples) / (time.perf_counter() - since)
    for worker in workers:
        worker.join()
    return rate, cpu / len(samples)


def load(loader: ClipLoader, epoch: int) -> tuple[float, float]:
    """Clips per second and CPU seconds per clip, workers and parent, of an epoch that nobody consumes."""
    since, cpu, num_clips = time.perf_counter(), cpu_seconds(), 0
    for batch in loader.epoch(epoch):
        for clip in batch.clips:
            assert clip is None or isinstance(clip, DecodedClip), clip
            num_clips += clip is not None
    return num_clips / (time.perf_counter() - since), (cpu_seconds() - cpu) / num_clips


def cpu_seconds() -> float:
    """Of this process and of all workers."""
    total = time.process_time()
    for process in workers_running():
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def workers_running() -> list[multiprocessing.Process]:
    return [process for process in multiprocessing.active_children() if process.name == "viper-worker"]


def spread(values: Sequence[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


# --- the three tables ---------------------------------------------------------------------------


def rates(console: Console, shards: ShardSet, remote: ShardSet, decode: DecodeSample, args) -> None:
    """Clips per second."""
    # Not above: workers import this file, and do without torch.
    from viper_e2e.loading import ClipLoader, Reading

    loaders = {}
    for name, place in (("local", shards), ("http", remote)):
        for num in [int(n) for n in args.workers.split(",")]:
            loaders[f"{name}, workers {num}"] = ClipLoader(place, decode, Reading(args.batch_size, num))
    contenders = {f"alone, {NUM_CORES} processes": lambda _: alone(shards, decode, NUM_CORES)} | {
        name: lambda epoch, loader=loader: load(loader, epoch) for name, loader in loaders.items()
    }
    results = {name: [] for name in contenders}
    for round_number in range(args.rounds + 1):
        names = list(contenders)
        for name in names[round_number % len(names) :] + names[: round_number % len(names)]:
            value = contenders[name](round_number)
            if round_number:  # the first round starts workers and fills the page cache
                results[name].append(value)
    for loader in loaders.values():
        loader.close()
    table = Table("contender", "clips/s", "of alone", "CPU s per clip", "of alone")
    top = next(iter(results.values()))
    for name, values in results.items():
        row = []
        for own, best in zip(zip(*values, strict=True), zip(*top, strict=True), strict=True):
            row += [spread(own), spread([v / t for v, t in zip(own, best, strict=True)])]
        table.add_row(name, *row)
    console.print(table)


def memory(console: Console, shards: ShardSet, decode: DecodeSample, args) -> None:
    """Bytes of decoded clips that wait while the consumer is busy elsewhere."""
    from viper_e2e.loading import ClipLoader, OrderSettings, Reading

    table = Table(
        "workers × prefetch",
        "one clip",
        "waiting, MB",
        "of workers × prefetch × clip",
        "private: a worker, MB",
        "this process, more, MB",
    )
    clip = decode(shards.read(0))
    clip_bytes = clip.frames.nbytes + sum(run.samples.nbytes for run in clip.sound)
    for num_workers, prefetch in ((1, 4), (2, 2), (2, 4)):
        with ClipLoader(
            shards, decode, Reading(1, num_workers, prefetch), order=OrderSettings(shuffle=False)
        ) as loader:
            own, batches = private_memory(os.getpid()), loader.epoch(0)
            batch = next(batches)
            # What has arrived is taken in, and nothing further asked for.
            while loader.stream.pool.stats().num_unanswered:
                time.sleep(0.01)
            waiting = handed_over() - sum(c.frames.nbytes for c in batch.clips)
            largest = max(private_memory(process.pid) for process in workers_running())
            own = private_memory(os.getpid()) - own
            del batch  # or its memory would be missing from the next row
        bound = num_workers * prefetch * clip_bytes
        table.add_row(
            f"{num_workers} × {prefetch}",
            f"{clip_bytes / 1e6:.1f} MB",
            f"{waiting / 1e6:.1f}",
            f"{waiting / bound:.2f}",
            f"{largest / 1e6:.0f}",
            f"{own / 1e6:.1f}",
        )
    console.print(table)


def handed_over() -> int:
    """Bytes that workers have written and this process has mapped."""
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:viper-clip" in line]
    spans = [line.split()[0].split("-") for line in lines]
    return sum(int(end, 16) - int(first, 16) for first, end in spans)


def private_memory(pid: int) -> int:
    """Bytes that a process shares with no other."""
    return int(re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def waiting(console: Console, shards: ShardSet, decode: DecodeSample, args) -> None:
    """Share of time waiting when workers and consumer have a core each."""
    from viper_e2e.loading import ClipLoader, Reading

    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        console.print("waiting: needs two cores")
        return

    def consume(_: DecodedClip) -> None:
        end = time.thread_time() + args.compute * args.decode_seconds
        while time.thread_time() < end:
            pass

    table = Table("workers on one core", "compute / decode", "waiting, share", "clips/s")
    os.sched_setaffinity(0, {cores[1]})
    with ClipLoader(shards, decode, Reading(args.batch_size, 1)) as loader:
        next(loader.epoch(0))
        for process in workers_running():
            os.sched_setaffinity(process.pid, {cores[0]})
        shares, speeds = [], []
        for epoch in range(1, args.rounds + 1):
            batches, num_clips = loader.epoch(epoch), 0
            # The first batch of a run has nobody computing before it; a long run has one such batch.
            for clip in next(batches).clips:
                consume(clip)
            loader.stream.waiting_seconds, since = 0.0, time.perf_counter()
            for batch in batches:
                for clip in batch.clips:
                    if clip is not None:
                        consume(clip)
                        num_clips += 1
            elapsed = time.perf_counter() - since
            shares.append(100 * loader.stream.waiting_seconds / elapsed)
            speeds.append(num_clips / elapsed)
    os.sched_setaffinity(0, set(cores))
    table.add_row("1", f"{args.compute:g}", spread(shares, 1) + " %", spread(speeds))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shards", help="yours, instead of clips made here")
    parser.add_argument("--preset", default="base", choices=sorted(PRESETS))
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--num-clips", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", default="0,1,2,4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--compute", type=float, default=1.2, help="consumer's time per clip, in decoding times"
    )
    parser.add_argument("--part", default="rates,memory,waiting")
    args = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        pattern = args.shards or make_shards(Path(folder), args.height, args.seconds, args.num_clips)
        shards, decode = ShardSet(pattern), DecodeSample(ClipDecoder(PRESETS[args.preset]().decoding))
        ours, theirs = multiprocessing.Pipe()
        server = multiprocessing.get_context("forkserver").Process(
            target=serve, args=(Path(shards.shards[0].path_or_url).resolve().parent, theirs), daemon=True
        )
        server.start()
        base = f"http://127.0.0.1:{ours.recv()}"
        remote = ShardSet([f"{base}/{Path(shard.path_or_url).name}" for shard in shards.shards])
        since = time.perf_counter()
        clips = [decode(shards.read(i)) for i in range(min(4, len(shards)))]
        args.decode_seconds = (time.perf_counter() - since) / len(clips)
        console.print(
            f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {NUM_CORES} cores, Python "
            f"{platform.python_version()}, av {av.__version__}; preset {args.preset}, {len(shards)} clips of "
            f"{clips[0].duration_seconds:.1f} s, {clips[0].display_size}, {clips[0].frames.shape} decoded in "
            f"{args.decode_seconds:.3f} s"
        )
        if "rates" in args.part:
            rates(console, shards, remote, decode, args)
        if "memory" in args.part:
            memory(console, shards, decode, args)
        if "waiting" in args.part:
            waiting(console, shards, decode, args)
        server.terminate()


if __name__ == "__main__":
    main()
