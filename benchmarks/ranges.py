"""ranges.py: byte ranges per second from a server some milliseconds away, connections kept and not.

    python benchmarks/ranges.py [--latency-ms 20] [--num-ranges 100] [--kilobytes 256] [--rounds 3] [--clips 96]

The server is on loopback and waits one latency before each answer, and one more on a new connection (what
the handshake of TCP costs; that of TLS costs another, which plain http does not show). For `a connection
each` it closes after each, which is what every range paid before connections were kept. Contenders take
turns; medians with their range.

Last come clips a second through the loader of `viper train`, two workers that prefetch: of shards on disk, and
of the same ones behind that latency (clips of 3 s in 360p, decoded as for the preset `tiny`), by a range for a
clip, read ahead whole into memory, and kept in a folder: while it fills, and once it is full.
"""

from __future__ import annotations

import argparse
import http.server
import platform
import re
import statistics
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

from clips import make_clip

from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import ClipDecoder
from viper_e2e.labels import LabelSet
from viper_e2e.loading import ClipLoader, DecodeSample, Reading
from viper_e2e.shards import RemoteFile, RemoteReading, ShardLimits, ShardSet, ShardWriter


class FarHandler(http.server.BaseHTTPRequestHandler):
    """Answers ranges of a file that is nowhere, after the latency."""

    protocol_version = "HTTP/1.1"
    latency_seconds = 0.02
    new_connections = 0

    def setup(self):
        super().setup()
        FarHandler.new_connections += 1
        time.sleep(self.latency_seconds)

    def do_GET(self):
        time.sleep(self.latency_seconds)
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{10**12}")
        self.send_header("Content-Length", str(last - first + 1))
        if "each" in self.path:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(bytes(last - first + 1))

    def log_message(self, *_):
        pass


class FarFiles(FarHandler):
    """Ranges of the files of a folder, after the latency."""

    def __init__(self, folder: Path, *rest):
        self.folder = folder
        super().__init__(*rest)

    def do_GET(self):
        time.sleep(self.latency_seconds)
        path = self.folder / Path(self.path).name
        if not path.exists():
            self.send_error(404)
            return
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        with path.open("rb") as file:
            file.seek(first)
            content = file.read(last - first + 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(content) - 1}/{path.stat().st_size}")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def write_shards(folder: Path, num_clips: int) -> None:
    """A few clips under many keys, in four shards."""
    made = [make_clip(folder / f"{seed}.mp4", 360, 3.0, seed).read_bytes() for seed in range(4)]
    size = sum(map(len, made)) * num_clips // 16
    with ShardWriter(folder, "train", LabelSet(("Joy",)), shard_size=size) as writer:
        for i in range(num_clips):
            writer.add(f"{i:05d}", {"mp4": made[i % 4]}, file_id=str(i), intensities=(0.5,))


def loaded(pattern: str, reading: RemoteReading) -> float:
    """Clips a second of an epoch, once its workers have begun."""
    shards = ShardSet(pattern, limits=ShardLimits(remote_reading=reading))
    loader = ClipLoader(shards, DecodeSample(ClipDecoder(DecodingConfig())), Reading(8, 2))
    with loader:
        batches = loader.epoch(0)
        next(batches)
        since, count = time.perf_counter(), 0
        for batch in batches:
            count += len(batch.clips)
        return count / (time.perf_counter() - since)


def compare_loading(num_clips: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shards(folder, num_clips)
        last = len(list(folder.glob("*.tar"))) - 1
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(FarFiles, folder)) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            braces = f"train-{{000000..{last:06d}}}.tar" if last else "train-000000.tar"
            url = f"http://127.0.0.1:{server.server_port}/{braces}"
            results: dict[str, list[float]] = {}
            for number in range(rounds):
                kept = RemoteReading(cache=f"{folder}/kept-{number}")
                for place, pattern, reading in (
                    ("on disk", f"{folder}/{braces}", RemoteReading()),
                    ("far away", url, RemoteReading()),
                    ("far away, ahead", url, RemoteReading("ahead")),
                    ("far away, cache fills", url, kept),
                    ("far away, cache full", url, kept),
                ):
                    results.setdefault(place, []).append(loaded(pattern, reading))
            server.shutdown()
    for place, values in results.items():
        near = statistics.median(results["on disk"])
        rate, spread = statistics.median(values), f"({min(values):.1f}–{max(values):.1f})"
        print(f"{place:<24}{rate:6.1f} clips/s {spread:<14} {rate / near:.2f} of on disk")


def rate(source: RemoteFile, num_ranges: int, size: int) -> float:
    """Ranges per second."""
    since = time.perf_counter()
    for i in range(num_ranges):
        source.read(i * size, size)
    return num_ranges / (time.perf_counter() - since)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument("--num-ranges", type=int, default=100)
    parser.add_argument("--kilobytes", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=96)
    args = parser.parse_args()
    FarHandler.latency_seconds = args.latency_ms / 1000
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), FarHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        contenders = {"a connection each": "each", "connections kept": "kept"}
        results: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(args.rounds):
            for name, values in results.items():
                source = RemoteFile(f"http://127.0.0.1:{server.server_port}/{contenders[name]}.tar")
                values.append(rate(source, args.num_ranges, args.kilobytes * 1024))
        server.shutdown()
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, Python {platform.python_version()}; "
        f"{args.latency_ms:g} ms, {args.num_ranges} ranges of {args.kilobytes} kB, {args.rounds} rounds"
    )
    for name, values in results.items():
        print(f"{name:<20}{statistics.median(values):6.1f} ranges/s ({min(values):.1f}–{max(values):.1f})")
    print(f"new connections: {FarHandler.new_connections}")
    compare_loading(args.clips, args.rounds)


if __name__ == "__main__":
    main()
