"""test_loader.py: which clips come in which batch, whatever happens to the workers that decode them."""

from __future__ import annotations

import gc
import multiprocessing
import time
import weakref
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from support.loader_fakes import TWO_LABELS, CountedDecode, FakeDecode, FakeShards

from viper_e2e.clip import DecodedClip, Sample
from viper_e2e.config import DecodingConfig
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.loading.loader import ClipBatch, ClipLoader, DecodeSample
from viper_e2e.loading.order import home_process
from viper_e2e.loading.order_settings import OrderSettings, ProcessShare
from viper_e2e.loading.quarantine import Quarantine
from viper_e2e.loading.stream import Reading
from viper_e2e.loading.workers import WorkerError
from viper_e2e.shards import ShardSet, ShardWriter

pytestmark = pytest.mark.survival

SIZES = [7, 4, 12]


def loader_of(shards: FakeShards | None = None, decode: FakeDecode | None = None, **settings) -> ClipLoader:
    """``settings``: fields of `Reading`, `OrderSettings` and `ProcessShare`, or what else a loader takes."""
    settings = {"batch_size": 4, "num_workers": 0} | settings
    reading, order, share = (
        made(**{field.name: settings.pop(field.name) for field in fields(made) if field.name in settings})
        for made in (Reading, OrderSettings, ProcessShare)
    )
    how = {"order": order, "share": share, **settings}
    return ClipLoader(shards or FakeShards(SIZES), decode or FakeDecode(), reading, **how)


def described(batch: ClipBatch) -> tuple:
    """All of a batch, comparable."""
    clips = [
        (clip.name, clip.frames.tobytes(), *(run.samples.tobytes() for run in clip.sound))
        if isinstance(clip, DecodedClip)
        else str(clip)
        for clip in batch.clips
    ]
    rows = (batch.positions, batch.keys, batch.file_ids, batch.shards, clips)
    labels = (batch.intensities.tolist(), batch.weights.tolist())
    return (batch.epoch, *rows, *labels, batch.next_position, batch.ends_step)


def described_epoch(epoch: int = 0, start: int = 0, **settings) -> list[tuple]:
    with loader_of(**settings) as loader:
        return [described(batch) for batch in loader.epoch(epoch, start)]


def positions(batches: list[ClipBatch]) -> list[int]:
    return [position for batch in batches for position in batch.positions if position is not None]


# --- order and exactness ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("num_workers", "prefetch"), [(1, 1), (2, None), (3, 2)])
def test_workers_and_prefetch_change_nothing(num_workers, prefetch):
    shards = FakeShards(SIZES, renamed={3: "slow-a", 9: "slow-b", 11: "damaged", 14: "torn"}, unlabelled=(5,))
    expected = described_epoch(shards=shards, seed=5, accumulation=2)
    found = described_epoch(shards=shards, seed=5, accumulation=2, num_workers=num_workers, prefetch=prefetch)
    assert found == expected


def test_two_epochs_of_the_same_workers_are_those_of_fresh_ones():
    with loader_of(num_workers=2) as loader:
        first = [described(batch) for epoch in (0, 1) for batch in loader.epoch(epoch)]
    assert first == described_epoch(0) + described_epoch(1)
    assert described_epoch(0) != described_epoch(1)


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_starting_at_a_position_gives_exactly_the_tail(num_workers):
    whole = described_epoch(3, accumulation=2)
    assert described_epoch(3, 8, accumulation=2, num_workers=num_workers) == whole[2:]
    assert described_epoch(3, 16, accumulation=2, num_workers=num_workers) == whole[4:]
    assert described_epoch(3, 23) == []


def test_an_abandoned_epoch_leaves_no_trace_in_the_next():
    with loader_of(num_workers=2) as loader:
        for _ in loader.epoch(0):
            break
        assert [described(batch) for batch in loader.epoch(1)] == described_epoch(1)


@pytest.mark.parametrize("num_processes", [1, 2, 3])
@pytest.mark.parametrize("start", [0, 5])
def test_all_processes_together_see_each_remaining_clip_once(num_processes, start):
    loaders = [
        loader_of(batch_size=2, count=num_processes, index=p, accumulation=2) for p in range(num_processes)
    ]
    batches = [list(loader.epoch(0, start)) for loader in loaders]
    assert sorted(p for part in batches for p in positions(part)) == list(range(start, 23))
    steps = {len(part) for part in batches}
    assert steps == {2 * loaders[0].num_steps(start)}
    for at_once in zip(*batches, strict=True):
        assert len({(batch.next_position, batch.ends_step) for batch in at_once}) == 1
        assert all(len(batch.clips) == 2 for batch in at_once)


def test_another_number_of_processes_goes_on_where_a_run_stopped():
    before = [list(loader_of(batch_size=2, count=2, index=p).epoch(0))[:2] for p in (0, 1)]
    reached = before[0][-1].next_position
    after = [list(loader_of(batch_size=2, count=3, index=p).epoch(0, reached)) for p in range(3)]
    assert reached == 8
    assert sorted(p for part in before + after for p in positions(part)) == list(range(23))


def test_clips_go_to_their_home_process_while_it_has_room():
    for process in (0, 1):
        batches = list(loader_of(batch_size=8, count=2, index=process).epoch(0))
        keys = [key for batch in batches for key in batch.keys if key]
        at_home = sum(home_process(key, 2) == process for key in keys)
        assert at_home / len(keys) > 0.7


def test_evaluation_walks_the_shards_in_order_and_each_clip_once():
    batches = list(loader_of(shuffle=False).epoch(0))
    assert [batch.file_ids[0] for batch in batches] == ["[0]", "[4]", "[8]", "[12]", "[16]", "[20]"]
    assert positions(batches) == list(range(23))


# --- what a batch holds -------------------------------------------------------------------------


def test_rows_hold_the_clip_its_labels_and_where_it_came_from():
    shards = FakeShards(SIZES, unlabelled=(1,), renamed={2: "damaged"})
    batch = next(loader_of(shards, shuffle=False).epoch(4))
    assert batch.keys == ["k000", "k001", "damaged", "k003"]
    assert batch.clips[3].frames[0, 0, 0, 0] == 3
    assert torch.equal(batch.weights, torch.tensor([1.0, 0.0, 0.0, 1.0]))
    torch.testing.assert_close(batch.intensities[[0, 1, 3]], torch.tensor([[0.0, 1.0], [0, 0], [0.03, 0.97]]))
    assert batch.shards == ["https://host/train-000000.tar"] * 4
    assert (batch.epoch, batch.next_position, batch.ends_step) == (4, 4, True)


def test_the_last_step_is_padded_to_whole_batches():
    batches = list(loader_of(batch_size=4, accumulation=3).epoch(0))
    assert len(batches) == 6
    assert [sum(position is None for position in batch.positions) for batch in batches] == [0, 0, 0, 0, 0, 1]
    batches = list(loader_of(FakeShards([5]), batch_size=4, accumulation=3).epoch(0))
    assert [batch.ends_step for batch in batches] == [False, False, True]
    assert [batch.next_position for batch in batches] == [4, 5, 5]
    assert batches[2].clips == [None] * 4
    assert batches[2].weights.sum() == batches[2].intensities.sum() == 0


def test_a_set_without_labels_has_rows_of_no_width():
    batch = next(loader_of(FakeShards([4], unlabelled=(0, 1, 2, 3), labels=None)).epoch(0))
    assert batch.intensities.shape == (4, 0)
    assert batch.weights.sum() == 0


def test_an_unreadable_clip_keeps_its_row_and_tells_why():
    shards = FakeShards(SIZES, renamed={1: "torn", 2: "damaged"})
    batch = next(loader_of(shards, shuffle=False, num_workers=1).epoch(2))
    assert [isinstance(clip, ClipError) for clip in batch.clips] == [False, True, True, False]
    torn, damaged = batch.skip_records()
    assert torn.to_json() == {
        "key": "torn",
        "shard": "https://host/train-000000.tar",
        "stage": "read",
        "exception": "torn: ends 7 bytes early",
        "epoch": 2,
        "position": 1,
    }
    assert (damaged.key, damaged.stage) == ("damaged", "decode")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_cached_clip_is_passed_through_and_never_read(num_workers, tmp_path):
    log = tmp_path / "decoded"
    kept = {"k001": object(), "torn": object()}
    with loader_of(
        FakeShards([6], renamed={4: "torn"}),
        CountedDecode(path=str(log)),
        cached=kept.get,
        num_workers=num_workers,
        batch_size=3,
    ) as loader:
        rows = {
            key: clip for batch in loader.epoch(0) for key, clip in zip(batch.keys, batch.clips, strict=True)
        }
        assert rows["k001"] is kept["k001"]
        assert rows["torn"] is kept["torn"]
        assert sorted(line.split()[0] for line in log.read_text().splitlines()) == [
            "k000",
            "k002",
            "k003",
            "k005",
        ]
        kept |= dict.fromkeys(rows, "tokens")
        log.write_text("")
        for batch in loader.epoch(1):
            assert batch.clips == ["tokens"] * 3
            assert batch.weights.tolist() == [1.0] * 3
        assert log.read_text() == ""


# --- memory -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("num_workers", "prefetch"), [(1, 3), (2, 2)])
def test_no_more_clips_are_begun_than_may_wait_in_memory(num_workers, prefetch, tmp_path):
    log = tmp_path / "decoded"
    settings = {"num_workers": num_workers, "prefetch": prefetch, "batch_size": 2}
    with loader_of(FakeShards([40]), CountedDecode(path=str(log)), **settings) as loader:
        batches = loader.epoch(0)
        for taken in range(2, 13, 2):
            next(batches)
            assert len(log.read_text().splitlines()) <= taken + num_workers * prefetch


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loader_keeps_no_clip_that_the_consumer_let_go(num_workers):
    with loader_of(num_workers=num_workers, prefetch=1, batch_size=2) as loader:
        batches = loader.epoch(0)
        batch = next(batches)
        clips = [weakref.ref(clip) for clip in batch.clips]
        del batch
        gc.collect()
        assert [clip() for clip in clips] == [None, None]
        next(batches)


def test_what_is_kept_of_a_clip_does_not_keep_its_frames():
    # 3 MB of frames travel as shared memory, the sound does not lie in it.
    with loader_of(FakeShards([2]), FakeDecode(height=65536), num_workers=1, batch_size=1) as loader:
        clip = next(loader.epoch(0)).clips[0]
    frames, sound = clip.frames, clip.sound[0].samples
    assert not np.shares_memory(frames, sound)
    assert sound.base is None or len(memoryview(sound.base).cast("B")) < 2 * sound.nbytes
    frames[0, 0, 0, 0] = 255  # torch.from_numpy wants writable memory
    assert frames.flags.writeable


# --- workers that end or hang -------------------------------------------------------------------

FATAL = [
    ("segfault", "killed by SIGSEGV"),
    ("killed", "killed by SIGKILL"),
    ("exits", "exited with code 3"),
    ("leaves", "exited with code 4"),
    ("hangs", "ran longer than 0.7 s"),
]


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize(("kind", "reason"), FATAL)
def test_a_clip_that_ends_its_worker_is_left_out_and_named(kind, reason, num_workers):
    fatal = FakeShards(SIZES, renamed={9: kind})
    with loader_of(fatal, num_workers=num_workers, clip_timeout_seconds=0.7) as loader:
        batches = list(loader.epoch(0))
        assert loader.stream.quarantine.reasons == {kind: reason}
        rows = {key: clip for batch in batches for key, clip in zip(batch.keys, batch.clips, strict=True)}
        assert rows[kind].stage == "worker"
        assert reason in str(rows[kind])
        others = {key: clip for key, clip in rows.items() if key not in (kind, "")}
        assert all(isinstance(clip, DecodedClip) and clip.name == key for key, clip in others.items())
        assert positions(batches) == list(range(23))
        # It is not tried again: the next epoch loses no worker.
        assert sum(isinstance(clip, ClipError) for batch in loader.epoch(1) for clip in batch.clips) == 1
        assert loader.stream.quarantine.reasons == {kind: reason}


def test_a_resumed_run_leaves_out_what_was_left_out_before():
    shards = FakeShards(SIZES, renamed={9: "segfault"})
    expected = described_epoch(1, shards=shards, num_workers=2)
    known = Quarantine({"segfault": "killed by SIGSEGV"})
    assert described_epoch(1, shards=shards, quarantine=known) == expected


@pytest.mark.slow
def test_more_lost_workers_than_allowed_end_the_epoch_with_their_names():
    fatal = {3: "segfault-a", 9: "exits", 11: "killed"}
    shards = FakeShards(SIZES, renamed=fatal)
    with (
        loader_of(shards, num_workers=2, max_restarts=2) as loader,
        pytest.raises(ViperError, match="3 workers were lost, at most 2 are replaced") as caught,
    ):
        list(loader.epoch(0))
    assert all(f"{name}: " in str(caught.value) for name in fatal.values())
    with loader_of(shards, num_workers=2, max_restarts=3) as loader:
        assert positions(list(loader.epoch(0))) == list(range(23))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_programming_error_is_raised_with_its_traceback_and_never_skipped(num_workers):
    shards = FakeShards(SIZES, renamed={9: "bug"})
    with (
        loader_of(shards, num_workers=num_workers) as loader,
        pytest.raises((WorkerError, KeyError), match="our own mistake") as caught,
    ):
        list(loader.epoch(0))
    if num_workers:
        assert "bug" in str(caught.value)
        assert "loader_fakes.py" in str(caught.value)


def test_workers_load_no_torch(tmp_path):
    log = tmp_path / "decoded"
    with loader_of(FakeShards([3]), CountedDecode(path=str(log)), num_workers=1) as loader:
        list(loader.epoch(0))
    assert [line.split()[1] for line in log.read_text().splitlines()] == ["0", "0", "0"]


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"accumulation": 0},
        {"num_workers": -1},
        {"prefetch": 0},
        {"clip_timeout_seconds": 0.0},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ViperError, match=next(iter(wrong))):
        loader_of(**wrong)


def test_a_position_outside_of_the_epoch_is_refused():
    with pytest.raises(ViperError, match="position 24 is outside of the epoch's 23 clips"):
        next(loader_of().epoch(0, 24))


def test_waiting_is_measured():
    loader = loader_of(FakeShards([2]), FakeDecode(seconds=0.05))
    list(loader.epoch(0))
    assert loader.stream.waiting_seconds >= 0.1


# --- the real parts -----------------------------------------------------------------------------


def test_the_modules_decoder_reads_samples():
    calls = []

    def decoder(video, *, sound, name, action_units):
        calls.append((video, sound, name, action_units))
        return FakeDecode()(FakeShards([4]).read(2))

    units = np.zeros((3, 27), np.float32)
    clip = DecodeSample(decoder)(Sample("a", b"mp4", sound=b"wav", action_units=units))
    assert calls == [(b"mp4", b"wav", "a", units)]
    assert clip.name == "k002"


@pytest.fixture
def real_shards(tiny_clip, tmp_path) -> ShardSet:
    """Twelve times the same clip; scaled down while decoding it takes 1.4 MB, so that it is mapped."""
    video = tiny_clip("a.mp4", num_frames=16, width=640, height=360).read_bytes()
    with ShardWriter(tmp_path, "train", TWO_LABELS, shard_size=10**9) as writer:
        for i in range(12):
            writer.add(f"{i}", {"mp4": video}, file_id=f"[{i}]", intensities=(0.25, 1.0))
    return ShardSet(str(tmp_path / "train-*.tar"))


SCALED = DecodingConfig(num_frames=8, max_side=320)


def mapped() -> list[tuple[int, int]]:
    """First address and end of all memory that workers have handed over to this process."""
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:viper-clip" in line]
    return [tuple(int(word, 16) for word in line.split()[0].split("-")) for line in lines]


@pytest.mark.slow
def test_what_waits_takes_workers_times_prefetch_times_one_clip(real_shards):
    from viper_e2e.decoding import ClipDecoder

    gc.collect()
    before = sum(end - first for first, end in mapped())
    decode = DecodeSample(ClipDecoder(SCALED))
    with ClipLoader(real_shards, decode, Reading(1, 2, 3)) as loader:
        batches = loader.epoch(0)
        (in_hand,) = next(batches).clips
        until = time.monotonic() + 60
        while (stats := loader.stream.pool.stats()).num_waiting < 6 and time.monotonic() < until:
            time.sleep(0.01)
        small = sum(run.samples.nbytes for run in in_hand.sound)
        one_clip = in_hand.frames.nbytes + small
        waiting = sum(end - first for first, end in mapped()) - before - in_hand.frames.nbytes
        assert stats.num_waiting == 6
        assert stats.num_unanswered == 0, "nothing more is begun"
        assert 0.8 <= (waiting + 6 * small) / (2 * 3 * one_clip) <= 1.2


@pytest.mark.slow
def test_between_worker_and_module_frames_are_never_copied(real_shards):
    from support.models import model_of

    from viper_e2e.decoding import ClipDecoder

    with ClipLoader(real_shards, DecodeSample(ClipDecoder(SCALED)), Reading(2, 1)) as loader:
        clips = next(loader.epoch(0)).clips
    prepared = model_of("visual").prepare(clips)
    for clip, ready in zip(clips, prepared, strict=True):
        place = ready.pixels.data_ptr()
        assert place == clip.frames.ctypes.data
        assert any(first <= place and place + ready.pixels.nbytes <= end for first, end in mapped())


@pytest.mark.slow
def test_clips_of_real_shards_are_the_same_from_here_and_from_workers(tiny_clip, tmp_path):
    from viper_e2e.decoding import ClipDecoder

    clips = {
        "long": tiny_clip("a.mp4", num_frames=45, width=640, height=360).read_bytes(),  # 1 MB and more: mapped
        "short": tiny_clip("b.mp4", num_frames=3).read_bytes(),
        "silent": tiny_clip("c.mp4", sound=None).read_bytes(),
    }
    clips["torn"] = clips["short"][:600]
    with ShardWriter(tmp_path, "train", TWO_LABELS, shard_size=20_000) as writer:
        for key, video in clips.items():
            writer.add(key, {"mp4": video}, file_id=f"[{key}]", intensities=(0.25, 1.0))
    shards = ShardSet(str(tmp_path / "train-*.tar"))
    decode = DecodeSample(ClipDecoder(DecodingConfig(num_frames=8)))
    found = []
    for num_workers in (0, 2):
        with ClipLoader(shards, decode, Reading(4, num_workers)) as loader:
            found.append(next(loader.epoch(0)))
            for process in multiprocessing.active_children():
                assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()
    here, there = found
    assert described(here) == described(there)
    rows = dict(zip(there.keys, there.clips, strict=True))
    assert len(shards.shard_sizes) > 1
    assert rows["long"].frames.shape == (8, 360, 640, 3)
    assert (rows["short"].has_sound, rows["silent"].has_sound) == (True, False)
    assert (rows["torn"].stage, rows["torn"].clip) == ("container", "torn")
    assert there.intensities.tolist() == [[0.25, 1.0]] * 4
    assert sorted(there.weights.tolist()) == [0, 1, 1, 1]
