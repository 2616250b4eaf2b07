"""test_order.py: an epoch's order, its cut into steps, and home processes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from viper_e2e.errors import ViperError
from viper_e2e.loading.order import BatchShape, Cursor, EpochOrder, assign, home_process

SIZES = [5, 1, 8, 0, 3]


def positions_of(order: EpochOrder) -> list[int]:
    return [order[position] for position in range(len(order))]


@pytest.mark.parametrize("window", [1, 4, 2048])
def test_every_sample_stands_at_exactly_one_position(window):
    order = EpochOrder(SIZES, seed=3, epoch=1, shuffle_window=window)
    assert sorted(positions_of(order)) == list(range(17))


def test_the_order_follows_from_seed_and_epoch_alone():
    first = positions_of(EpochOrder(SIZES, seed=3, epoch=1))
    assert first == positions_of(EpochOrder(SIZES, seed=3, epoch=1))
    assert first != positions_of(EpochOrder(SIZES, seed=3, epoch=2))
    assert first != positions_of(EpochOrder(SIZES, seed=4, epoch=1))


def test_the_order_of_a_seed_never_changes_between_versions():
    # A changed list would make checkpoints of earlier versions resume with other clips.
    assert positions_of(EpochOrder([3, 3, 2], seed=1, epoch=2, shuffle_window=4)) == [3, 4, 6, 7, 1, 2, 0, 5]


def test_without_shuffling_positions_count_through_the_shards():
    assert positions_of(EpochOrder(SIZES, seed=3, epoch=9, shuffle=False)) == list(range(17))


def test_a_window_of_one_permutes_shards_but_keeps_each_in_its_own_order():
    order = positions_of(EpochOrder([3] * 20, seed=0, epoch=0, shuffle_window=1))
    shards = [index // 3 for index in order]
    assert shards[::3] == shards[1::3] == shards[2::3]
    assert [index % 3 for index in order] == [0, 1, 2] * 20
    assert shards[::3] != sorted(shards[::3])


def test_samples_stay_inside_their_window():
    shards_only, shuffled = (
        np.reshape(positions_of(EpochOrder([100] * 10, seed=5, epoch=0, shuffle_window=window)), (-1, 250))
        for window in (1, 250)
    )
    assert (np.sort(shuffled, axis=1) == np.sort(shards_only, axis=1)).all()
    assert (shuffled != shards_only).mean() > 0.9


def test_a_full_shuffle_puts_every_sample_anywhere_equally_often():
    ends = np.zeros((6, 6))
    for epoch in range(1200):
        ends[np.arange(6), positions_of(EpochOrder([6], seed=0, epoch=epoch))] += 1
    assert abs(ends / 1200 - 1 / 6).max() < 0.05


def test_no_clips_make_no_positions_and_no_steps():
    assert len(EpochOrder([], seed=0)) == len(EpochOrder([0, 0], seed=0)) == 0
    assert list(BatchShape(4).forwards(0, 0)) == []


@pytest.mark.parametrize(
    "wrong", [{"shuffle_window": 0}, {"seed": -1}, {"epoch": -1}], ids=lambda wrong: next(iter(wrong))
)
def test_impossible_settings_of_the_order_are_refused(wrong):
    with pytest.raises(ViperError, match=next(iter(wrong))):
        EpochOrder(SIZES, **wrong)


def test_a_cursor_survives_json():
    cursor = Cursor(seed=7, epoch=2, position=96)
    record = json.loads(json.dumps(cursor.to_json()))
    assert record == {"schema": 1, "seed": 7, "epoch": 2, "position": 96}
    assert Cursor.from_json(record) == cursor


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema 2, this version reads 1"),
        ({"position": -1}, "position is -1"),
        ({"epoch": "3"}, "epoch is '3'"),
        ({"seed": True}, "seed is True"),
        ({"shard": 0}, "expected an object with schema, seed, epoch, position"),
    ],
)
def test_a_cursor_that_is_not_ours_is_refused(change, message):
    with pytest.raises(ViperError, match=message):
        Cursor.from_json(Cursor(seed=7).to_json() | change)
    with pytest.raises(ViperError, match="expected an object"):
        Cursor.from_json([1, 2])


@pytest.mark.parametrize("shape", [BatchShape(4), BatchShape(2, 3), BatchShape(3, 2, 5)])
@pytest.mark.parametrize("start", [0, 7, 60])
def test_steps_cover_the_remaining_positions_once_and_are_whole(shape, start):
    forwards = list(shape.forwards(start, 61))
    assert [position for forward in forwards for position in forward] == list(range(start, 61))
    assert len(forwards) == shape.num_steps(61 - start) * shape.accumulation
    assert all(
        len(forward) == shape.clips_per_forward
        for forward in forwards[: (61 - start) // shape.clips_per_forward]
    )


def test_the_tail_of_an_epoch_is_cut_as_the_whole_epoch_was():
    shape = BatchShape(2, num_processes=2, accumulation=3)
    whole = list(shape.forwards(0, 50))
    assert list(shape.forwards(24, 50)) == whole[6:]


@pytest.mark.parametrize("field", ["batch_size", "num_processes", "accumulation"])
def test_an_empty_batch_shape_is_refused(field):
    with pytest.raises(ViperError, match=f"{field} is 0"):
        BatchShape(**{"batch_size": 1, field: 0})


def test_each_clip_of_a_forward_pass_goes_to_one_process_and_none_gets_too_many():
    for size in range(13):
        keys = [f"clip{size}-{index}" for index in range(size)]
        dealt = assign(keys, num_processes=3, batch_size=4)
        assert sorted(index for part in dealt for index in part) == list(range(size))
        assert max(map(len, dealt)) <= 4
        assert dealt == assign(keys, num_processes=3, batch_size=4)


def test_a_clip_goes_home_where_there_is_room():
    keys = [f"clip{index}" for index in range(40)]
    home = [key for key in keys if home_process(key, 2) == 0]
    away = [key for key in keys if home_process(key, 2) == 1]
    assert assign([home[0], away[0], home[1], away[1]], 2, 2) == [[0, 2], [1, 3]]
    assert assign(home[:4], 2, 2) == [[0, 1], [2, 3]]
    assert assign([*home[:3], away[0]], 2, 2) == [[0, 1], [2, 3]]


def test_most_clips_come_home_in_every_epoch():
    keys = [f"clip{index}" for index in range(640)]
    at_home = 0
    for first in range(0, 640, 64):
        part = keys[first : first + 64]
        for process, indices in enumerate(assign(part, 4, 16)):
            at_home += sum(home_process(part[index], 4) == process for index in indices)
    assert at_home / 640 > 0.85


def test_home_processes_are_pinned_to_crc32():
    # Python's own hash differs between processes; crc32 does not.
    assert [home_process(key, 5) for key in ("a", "clip-17", "ünï")] == [2, 0, 1]
