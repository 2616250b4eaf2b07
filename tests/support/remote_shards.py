"""remote_shards.py: a server of shards that records requests and fails on demand."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from support.http_server import Handler, serving
from viper_e2e.clip import DecodedClip, Sample
from viper_e2e.labels import LabelSet
from viper_e2e.loading import ClipLoader, OrderSettings, Reading
from viper_e2e.shards import RemoteReading, ShardLimits, ShardSet, ShardWriter

LABELS = LabelSet(("Joy", "Fear"))
PATTERN = "train-{000000..000003}.tar"


def write_shards(folder: Path, *, num_clips: int = 24, clip_bytes: int = 3000, seed: int = 0) -> Path:
    """Four shards of six clips each, of bytes that are no films."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(seed)
    with ShardWriter(
        folder, "train", LABELS, shard_size=6 * (-(-clip_bytes // 512) * 512 + 1536) + 1600
    ) as writer:
        for i in range(num_clips):
            content = random.bytes(clip_bytes)
            writer.add(f"clip{i:02d}", {"mp4": content}, file_id=f"[{i}]", intensities=(i / num_clips, 0.5))
    assert len(list(folder.glob("*.tar"))) == 4
    return folder


class ShardServer:
    """The server, and what it was asked for."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.asked: list[tuple[str, int, int]] = []
        """Name, first and last byte of each range of a shard."""
        self.fault: Callable[[Handler, bytes, int, int], bool] = lambda *_: False
        """Answers in its own way and says so; given the file, and the first and the last byte."""
        self.version = "1"
        self.url = ""
        self._turn = threading.Lock()

    @property
    def pattern(self) -> str:
        return f"{self.url}/{PATTERN}"

    def whole(self) -> list[str]:
        """Shards that were asked for from their beginning to their end, sorted."""
        return sorted(n for n, first, last in self.asked if first == 0 and last == self.size(n) - 1)

    def of_clips(self) -> list[tuple[str, int, int]]:
        """Ranges that are neither a whole shard, nor the rest of one, nor what opening a shard takes."""
        return [(n, a, b) for n, a, b in self.asked if b != self.size(n) - 1 and (a, b) != (0, 0)]

    def size(self, name: str) -> int:
        return (self.folder / name).stat().st_size

    def answer(self, handler: Handler) -> bool:
        file = self.folder / Path(handler.path.partition("?")[0]).name
        if not file.is_file():
            return handler.say(404)
        data = file.read_bytes()
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers["Range"]).groups())
        if file.suffix == ".tar":
            with self._turn:
                self.asked.append((file.name, first, last))
            if self.fault(handler, data, first, last):
                return True
        place = {"Content-Range": f"bytes {first}-{last}/{len(data)}", "ETag": f'"{self.version}"'}
        return handler.say(206, data[first : last + 1], place)


@contextmanager
def serving_shards(folder: Path):
    shard_server = ShardServer(folder)
    with serving(shard_server.answer) as server:
        shard_server.url = server.url
        yield shard_server


def is_whole(data: bytes, first: int, last: int) -> bool:
    """Whether more is asked for than a clip is long."""
    return last - first > 8000


def cut_short(handler: Handler, data: bytes, first: int, last: int, after: int = 5000) -> bool:
    """An answer whose connection ends in the middle."""
    place = {"Content-Range": f"bytes {first}-{last}/{len(data)}", "Content-Length": str(last - first + 1)}
    handler.close_connection = True
    return handler.say(206, data[first : min(last, first + after)], {**place, "ETag": '"1"'})


def told(sample: Sample) -> DecodedClip:
    """A clip by whose name its bytes are known."""
    name = f"{sample.key} {hashlib.sha256(sample.video).hexdigest()}"
    return DecodedClip(name, np.zeros((1, 2, 2, 3), np.uint8), np.zeros(1), 1.0)


def epochs(
    pattern: str, reading: RemoteReading | None = None, *, num_epochs: int = 1, **settings: object
) -> list[str]:
    """What a loader gives, in its order: names of clips, or of errors."""
    shards = ShardSet(pattern, limits=ShardLimits(remote_reading=reading or RemoteReading()))
    given = {"num_workers": 0, "shuffle": True, "shuffle_window": 8, **settings}
    order = OrderSettings(shuffle=given["shuffle"], shuffle_window=given["shuffle_window"])
    with ClipLoader(shards, told, Reading(4, given["num_workers"]), order=order) as loader:
        return [
            getattr(clip, "name", None) or f"{clip.stage}: {clip}"
            for epoch in range(num_epochs)
            for batch in loader.epoch(epoch)
            for clip in batch.clips
        ]
