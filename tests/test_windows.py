"""Long clips window by window: in order, whoever decodes, no further ahead than the next, each clip alone."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.loader_fakes import DeadlyWindows, FakeShards, FakeWindows
from support.media import make_clip

from viper_e2e.config.presets import micro
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.loading.stream import Reading
from viper_e2e.loading.windows import WindowReader, decode_windows
from viper_e2e.model.prediction import Prediction
from viper_e2e.model.viper import ViPER
from viper_e2e.packing import pack
from viper_e2e.scoring.named_files import ClipFiles
from viper_e2e.scoring.score import Wanted, score
from viper_e2e.shards import ShardSet
from viper_e2e.tables import write_labels


@pytest.fixture
def log(tmp_path) -> Path:
    (tmp_path / "log").touch()
    return tmp_path / "log"


def made(log: Path) -> list[list[str]]:
    """Of each window that was decoded: clip, number, process, and whether that has loaded torch."""
    return [line.split() for line in log.read_text().splitlines()]


def named(paths: list[str]) -> FakeShards:
    return FakeShards([len(paths)], renamed=dict(enumerate(paths)))


def found(paths: list[str], log: Path, **settings) -> dict[str, list]:
    """Per clip what came of it: numbers of its windows, then how it ended."""
    outcomes: dict[str, list] = {path: [] for path in paths}
    windows = decode_windows(named(paths), FakeWindows(str(log)), 2.0, 1.0, Reading(**settings))
    for index, window in windows:
        if isinstance(window, tuple):
            start, clip = window
            assert (clip.frames == start).all()
        outcomes[paths[index]].append(start if isinstance(window, tuple) else window)
    return outcomes


WHOLE = [0.0, 1.0, 2.0, 3.0, 4.0, None]


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_all_windows_come_in_order_each_decoded_once(log, num_workers):
    paths = ["a", "slow-b", "c"]
    assert found(paths, log, num_workers=num_workers) == dict.fromkeys(paths, WHOLE)
    assert len(made(log)) == 15
    if num_workers:
        assert len({process for _, _, process, _ in made(log)}) == num_workers
        assert {torch for *_, torch in made(log)} == {"0"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("killed", "left out: killed by SIGKILL"),
        ("segfault", "left out: killed by SIGSEGV"),
        ("hangs", "left out: ran longer than 0.7 s"),
        ("damaged", "no frame can be decoded"),
    ],
)
def test_a_clip_that_ends_its_worker_is_named_and_the_others_are_whole(log, what, reason):
    outcomes = found(["a", what, "b"], log, clip_timeout_seconds=0.7)
    assert outcomes["a"] == outcomes["b"] == WHOLE
    *windows, end = outcomes[what]
    assert windows == [0.0, 1.0]
    assert isinstance(end, ClipError)
    assert (end.clip, end.reason) == (what, reason)


def test_a_worker_is_never_further_ahead_than_the_next_window(log):
    for count, _ in enumerate(
        decode_windows(named(["a", "b"]), FakeWindows(str(log)), 2.0, 1.0, Reading()), start=1
    ):
        time.sleep(0.05)
        assert len(made(log)) <= count + 1
    assert len(made(log)) == 10


def test_whoever_takes_the_place_of_a_lost_worker_gives_the_window_that_is_due(log):
    readers = [WindowReader(named(["a", "b"]), FakeWindows(str(log)), 2.0, 1.0) for _ in range(2)]
    asked = [(i, i, n) for i, n in ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (0, 4), (0, 5))]
    starts = [
        [window and window[0] for window in map(reader, asked[number:])]
        for number, reader in enumerate(readers)
    ]
    assert starts[0] == [0.0, 1.0, 0.0, 1.0, 2.0, 4.0, None]
    assert starts[1] == starts[0][1:]


def test_a_mistake_of_ours_is_raised_and_no_clip_is_blamed(log):
    with pytest.raises(RuntimeError, match="our own mistake"):
        found(["a", "bug"], log)


# --- scored ---------------------------------------------------------------------------------------


def windows_of(model: ViPER, paths: list[Path], num_workers: int) -> dict[int, list[Prediction]]:
    """The predictions of each clip, by its number."""
    wanted = Wanted(frames=True, windows=(2.0, 1.0))
    by_clip: dict[int, list[Prediction]] = {}
    for one in score(model, ClipFiles(paths), Reading(num_workers=num_workers), wanted=wanted):
        by_clip.setdefault(one.index, []).append(one)
    return by_clip


@pytest.mark.slow
def test_predictions_of_the_others_are_those_without_workers(tmp_path):
    paths = [tmp_path / name for name in ("a.mp4", "deadly.mp4", "missing.mp4", "b.mp4")]
    for path, num_frames in zip(paths, (45, 45, 0, 20), strict=True):
        if num_frames:
            make_clip(path, num_frames=num_frames)
    torch.manual_seed(0)
    model = ViPER(micro()).eval()
    expected = windows_of(model, [paths[0], paths[3]], num_workers=0)
    model.decoder = DeadlyWindows(model.decoder)
    made = windows_of(model, paths, num_workers=2)
    assert sorted(made) == [0, 1, 2, 3]
    assert made[0] == expected[0]
    assert made[3] == [replace(window, index=3) for window in expected[1]]
    assert [(window.start_seconds, window.end_seconds) for window in made[0]] == [(0.0, 2.0), (1.0, 3.0)]
    for index, reason in ((1, "left out: killed by SIGKILL"), (2, "no such file; is the path right?")):
        *windows, last = made[index]
        assert all(window.is_valid for window in windows), "what was scored before stays"
        assert not last.is_valid
        assert last.clip == str(paths[index])
        assert reason in last.error


def test_a_hop_that_leaves_gaps_is_refused():
    with pytest.raises(ViperError, match="the hop must be above 0, at most the window"):
        Wanted(windows=(2.0, 3.0))


@pytest.mark.slow
def test_clips_in_shards_are_scored_in_windows_as_files_are(tmp_path):
    frames = [np.full((64, 96, 3), 40 * i, np.uint8) for i in range(6)]
    (tmp_path / "videos").mkdir()
    make_clip(tmp_path / "videos" / "a.mp4", frames=frames, fps=2)
    write_labels(tmp_path / "labels.csv", [{"File_ID": "a", "Split": "test", "Joy": 0.5}])
    assert pack(tmp_path / "videos", tmp_path / "labels.csv", tmp_path / "shards").exit_code == 0
    shards = ShardSet(str(tmp_path / "shards" / "*.tar"))
    decoder = ViPER(micro()).decoder
    for num_workers in (0, 1):
        of_shard, of_file = (
            [found for _, found in decode_windows(source, decoder, 1.0, 1.0, Reading(num_workers=num_workers))]
            for source in (shards, ClipFiles([tmp_path / "videos" / "a.mp4"]))
        )
        assert of_shard.pop() is of_file.pop() is None
        assert len(of_shard) == 3
        for (start, ours), (begins, theirs) in zip(of_shard, of_file, strict=True):
            assert (start, ours.name) == (begins, "a")
            assert np.array_equal(ours.frames, theirs.frames)
