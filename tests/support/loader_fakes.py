"""loader_fakes.py: shards without files and a decoder that does as a clip's name says; imports no torch."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from viper_e2e.clip import DecodedClip, Sample, SoundRun
from viper_e2e.errors import ClipError
from viper_e2e.labels import LabelSet
from viper_e2e.shards import RemoteReading, ShardIndex

TWO_LABELS = LabelSet(("Joy", "Fear"))


@dataclass
class FakeShards:
    """Samples `k000`, `k001`, … or as `renamed` says; `unlabelled` ones have no intensities."""

    shard_sizes: list[int]
    renamed: dict[int, str] = field(default_factory=dict)
    unlabelled: tuple[int, ...] = ()
    labels: LabelSet | None = TWO_LABELS
    unusable: tuple[tuple[str, str], ...] = ()
    remote_reading: RemoteReading = field(default_factory=RemoteReading)

    def __len__(self) -> int:
        return sum(self.shard_sizes)

    def key(self, i: int) -> str:
        return self.renamed.get(i, f"k{i:03d}")

    def entry(self, i: int) -> SimpleNamespace:
        intensities = None if i in self.unlabelled else (i / 100, 1 - i / 100)
        own = {"key": self.key(i), "file_id": f"[{i}]", "intensities": intensities}
        return SimpleNamespace(**own, subject=None, meta=None)

    def shard_of(self, i: int) -> ShardIndex:
        shard = int(np.searchsorted(np.cumsum(self.shard_sizes), i, side="right"))
        return ShardIndex(f"https://host/train-{shard:06d}.tar?token=secret", 0, (), None, "train")

    def clip_id(self, i: int) -> str:
        return str(i)

    def name_of(self, i: int) -> str:
        return f"{self.key(i)} {i}"

    def has_changed(self, i: int) -> bool:
        return False

    def reader(self, opener: None = None) -> FakeShards:
        return self

    def place_of(self, i: int) -> int:
        return i

    def read(self, i: int) -> Sample:
        if self.key(i).startswith("torn"):
            raise ClipError("ends 7 bytes early", stage="read", clip=self.key(i))
        return Sample(key=self.key(i), video=i.to_bytes(4, "little"))


@dataclass(frozen=True)
class FakeDecode:
    """Frames filled with the sample's number; names tell what else happens."""

    height: int = 8
    seconds: float = 0.0

    def __call__(self, sample: Sample) -> DecodedClip:
        index = int.from_bytes(sample.video, "little")
        match sample.key.partition("-")[0]:
            case "segfault":
                ctypes.string_at(0)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exits":
                os._exit(3)
            case "leaves":
                sys.exit(4)
            case "hangs":
                time.sleep(3600)
            case "damaged":
                raise ClipError("no frame can be decoded", stage="decode", clip=sample.key)
            case "bug":
                raise KeyError("our own mistake")
            case "slow":
                time.sleep(0.3)
        time.sleep(self.seconds)
        return DecodedClip(
            name=sample.key,
            frames=np.full((2, self.height, 8, 3), index % 256, np.uint8),
            frame_seconds=np.array([0.0, 0.5]),
            duration_seconds=1.0,
            sound=(SoundRun(0.0, np.full(1600, index, np.float32)),),
            has_sound=True,
        )


@dataclass(frozen=True)
class CountedDecode(FakeDecode):
    """Writes the name of each clip it is given into a file that all workers share."""

    path: str = ""

    def __call__(self, sample: Sample) -> DecodedClip:
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{sample.key} {int('torch' in sys.modules)}\n".encode())
        os.close(handle)
        return super().__call__(sample)


class Task:
    """What a worker is asked to do, as a word and a number behind one integer."""

    WORDS = ("", "array", "exit", "hang", "bug", "clip error", "slow pid", "tenths", "too large")

    @classmethod
    def number(cls, request: str) -> int:
        word, _, number = request.rpartition(" ") if request[-1].isdigit() else (request, "", "0")
        return cls.WORDS.index(word) * 10**9 + int(number)

    def __call__(self, item: int) -> object:
        word, number = self.WORDS[item // 10**9], item % 10**9
        match word:
            case "array":
                return np.arange(number, dtype=np.uint8)
            case "exit":
                os._exit(number)
            case "hang":
                time.sleep(3600)
            case "bug":
                return 1 // 0
            case "clip error":
                raise ClipError("no frame", stage="decode", clip="a")
            case "slow pid":
                time.sleep(0.2)
                return os.getpid()
            case "too large":
                raise MemoryError
            case "tenths":
                for _ in range(number):
                    time.sleep(0.1)
        return number


@dataclass(frozen=True)
class FakeWindows:
    """Five windows of each path; at the third happens what the path's name says.

    Every window that is made is written into a file, with who made it.
    """

    log: str

    def windows(
        self, video: bytes, window_seconds: float, hop_seconds: float, *, sound: None, name: str
    ) -> Iterator[tuple[float, DecodedClip]]:
        for number in range(5):
            key = name if number == 2 else "plain"
            clip = FakeDecode()(Sample(key=key, video=number.to_bytes(4, "little")))
            with open(self.log, "a") as file:  # noqa: PTH123
                file.write(f"{name} {number} {os.getpid()} {int('torch' in sys.modules)}\n")
            yield number * hop_seconds, clip


@dataclass(frozen=True)
class DeadlyWindows:
    """Windows of a real decoder, whose process `deadly.mp4` kills at the second."""

    decoder: Any

    @property
    def comes_back(self) -> bool:
        return self.decoder.comes_back

    def __call__(self, *given: Any, **how: Any) -> DecodedClip:
        return self.decoder(*given, **how)

    def windows(
        self, path: Path, *lengths: float, sound: None, name: str
    ) -> Iterator[tuple[float, DecodedClip]]:
        for number, window in enumerate(self.decoder.windows(path, *lengths, name=name)):
            if number == 1 and path.name == "deadly.mp4":
                os.kill(os.getpid(), signal.SIGKILL)
            yield window


class Unpicklable:
    """Can be sent, cannot be received."""

    def __call__(self, item: int) -> int:
        return item

    def __reduce__(self):
        return _refuse, ()


def _refuse() -> None:
    raise ImportError("cannot be loaded here")


class ReadThenComputed:
    """A task in two parts that writes down what began, and whose item 0 is computed once ``go`` is there."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, item: int) -> list[str]:
        return self.compute(self.read(item))

    def read(self, item: int) -> int:
        (self.folder / f"read {item}").touch()
        if item == -2:
            raise MemoryError
        if item < 0:
            raise ValueError(f"{item} cannot be read")
        return item

    def compute(self, item: int) -> list[str]:
        """What had begun when this item was through."""
        wanted = "go" if item == 0 else f"read {item + 1}"
        end = time.monotonic() + 20
        while not (self.folder / wanted).exists() and time.monotonic() < end:
            time.sleep(0.01)
        if item == 13:
            os._exit(3)
        return sorted(file.name for file in self.folder.glob("read *"))
