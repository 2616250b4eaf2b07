"""Indexes in columns: the same samples as by JSON, opened at once, in little memory."""

from __future__ import annotations

import math
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from support.tars import three_samples, write_foreign

from viper_e2e.commands.cli import main
from viper_e2e.labels import LabelSet
from viper_e2e.loading.mixture_order import MixturePattern, Share, clips_per_epoch
from viper_e2e.loading.order import EpochOrder
from viper_e2e.shards import (
    ShardError,
    ShardSet,
    ShardWriter,
    columns_file,
    columns_path,
    index_path,
    opening,
    shared_clips,
    shared_subjects,
)
from viper_e2e.shards.indexing import has_columns
from viper_e2e.shards.sample_table import Coded, Columns, MemberColumn, SampleTable, Texts
from viper_e2e.tasks import Task

MOOD, AGE = Task("Mood", "class", 2), Task("Age", "number", 1, 0.0, 9.0)
LABELS = LabelSet(("Mood glad", "Mood calm", "Age"), tasks=(MOOD, AGE))
KEYS = ("a", "überlang", "喜び", "d/e", "f")


@pytest.fixture(autouse=True)
def every_index_is_large(monkeypatch):
    for module in (columns_file, opening):
        monkeypatch.setattr(module, "LEAST_INDEX_BYTES", 1)
    monkeypatch.setattr("viper_e2e.shards.indexing.LEAST_INDEX_BYTES", 1)


def write(folder: Path) -> str:
    """A shard in which each sample has something else."""
    folder.mkdir(exist_ok=True)
    with ShardWriter(folder, "train", LABELS, shard_size=10**9) as writer:
        for n, key in enumerate(KEYS):
            members = {"mp4" if n % 2 else "webm": b"film" * (n + 1)} | ({"wav": b"sound"} if n == 1 else {})
            values = None if n == 2 else (n / 4, 1 - n / 4, math.nan if n == 3 else 0.1 + n)
            meta = {"Gender": "f", "of/odd values": str(n)} if n % 2 else None
            told = {"subject": f"s{n // 2}" if n else None, "meta": meta, "intensities": values}
            writer.add(key, members, file_id=f"[{key}]", **told)
    return f"{folder}/train-000000.tar"


def without_columns(shard: str) -> ShardSet:
    Path(columns_path(shard)).unlink()
    return ShardSet(shard)


def told(shards: ShardSet) -> list[str]:
    return [repr(shards.entry(i)) for i in range(len(shards))]


def test_samples_are_those_of_the_index(tmp_path):
    shard = write(tmp_path)
    assert has_columns(shard)
    ours = ShardSet(shard)
    assert isinstance(ours.shards[0].samples, SampleTable)
    videos = [ours.read(i).video for i in range(len(ours))]
    by_json = without_columns(shard)
    # Of the record's hash, which nobody compares, columns know nothing.
    hashes = [repr(by_json.entry(i).members["json"].sha256) for i in range(len(by_json))]
    assert [e.replace(h, "None") for e, h in zip(told(by_json), hashes, strict=True)] == told(ours)
    assert [by_json.read(i).video for i in range(len(by_json))] == videos
    assert (ours.labels, ours.shards[0].split) == (by_json.labels, "train")
    assert ours.content_id() == by_json.content_id()
    assert np.array_equal(ours.label_rows(), by_json.label_rows(), equal_nan=True)


def test_fewer_samples_or_labels_in_another_order_are_as_by_the_index(tmp_path):
    shard = write(tmp_path)
    other = LabelSet(("age", "mood calm", "mood glad"), tasks=(AGE, MOOD))
    keep = [True, False, True, True, False]

    def changed(shards: ShardSet) -> tuple:
        fewer = shards.only(keep).labelled_as(other, "the model")
        rows = np.nan_to_num(fewer.label_rows(), nan=-1.0).tolist()
        keys = [fewer.entry(i).key for i in range(len(fewer))]
        return keys, rows, fewer.content_id(), fewer.is_labelled().tolist()

    ours = changed(ShardSet(shard))
    assert ours == changed(without_columns(shard))
    assert ours[0] == ["a", "喜び", "d/e"]
    assert ours[1][2] == [-1.0, 0.25, 0.75]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[:40], "cut short"),
        (lambda data: b"x" + data[1:], "damaged"),
        (lambda data: data[:-64], "reaches beyond the file"),
        (lambda data: data.replace(b'"num_samples": 5', b'"num_samples": 4'), "damaged"),
        (lambda data: data.replace(b'"<f8"', b'"|O8"'), "another kind of array"),
        (lambda data: data.replace(b'"split": "train"', b'"split": 1234567'), "damaged"),
        (lambda data: data.replace("喜び".encode(), "喜".encode() + b"a\xe3\x81"), "damaged"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, spoil, message):
    shard = write(tmp_path)
    path = Path(columns_path(shard))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ShardError, match=message) as error:
        ShardSet(shard)
    assert "train-000000.index.bin" in str(error.value)


def test_viper_index_adds_columns_to_a_large_index(tmp_path, capsys):
    shard = str(write_foreign(tmp_path / "train-0.tar", three_samples("x")))
    assert main(["index", shard]) == 0
    names = {"train-0.tar", "train-0.index.json", "train-0.index.bin"}
    assert {path.name for path in tmp_path.iterdir()} == names
    ours = ShardSet(shard)
    Path(columns_path(shard)).unlink()
    assert main(["index", shard]) == 0
    assert "train-0.index.bin" in capsys.readouterr().err.splitlines()[-1]
    assert told(ShardSet(shard)) == told(ours)
    assert [ours.read(i).video for i in range(3)] == [f"x video {n} ".encode() * 70 for n in range(3)]
    Path(index_path(shard)).write_text("{}")
    with pytest.raises(ShardError, match="made from another index"):
        ShardSet(shard)


def test_doubled_keys_are_found(tmp_path):
    one, other = write(tmp_path / "one"), write(tmp_path / "other")
    with pytest.raises(ShardError, match=r"key 'a' is in .*one.* and in .*other"):
        ShardSet([one, other])
    assert set(ShardSet([one, other], strict=False).duplicate_keys) == set(KEYS)


def test_texts_of_equal_hashes_are_equal_texts():
    texts = [f"{n:x}" for n in range(20_000)] + ["", "x", "xx", "é"]
    hashes = Texts.of(texts).hashes()
    assert len(np.unique(hashes)) == len(texts)
    assert (hashes == Texts.of(texts).hashes()).all()


# --- a hundred thousand clips ---------------------------------------------------------------------------

MANY = 100_000


def many() -> SampleTable:
    random = np.random.default_rng(0)
    sizes = random.integers(10**5, 10**6, MANY)
    columns = Columns(
        Texts.of([f"clip{i:09d}" for i in range(MANY)]),
        None,
        {"mp4": MemberColumn(np.cumsum(sizes), sizes, random.integers(0, 256, (MANY, 32), np.uint8))},
        random.random((MANY, 7)),
        np.ones(MANY, bool),
        Coded.of([f"s{i % 977}" for i in range(MANY)]),
        {},
        {},
    )
    return SampleTable(columns)


def bytes_per_clip(make) -> tuple[object, float, float]:
    """What is made, what is kept of it, and the peak while it is made."""
    tracemalloc.start()
    made = make()
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return made, kept / MANY, peak / MANY


@pytest.mark.slow
def test_samples_take_150_bytes_each_and_views_of_them_nearly_nothing():
    table, kept, _ = bytes_per_clip(many)
    assert kept < 150
    _, kept, _ = bytes_per_clip(lambda: table.prefixed("a:").with_labels((0, 1, -1, 2, 3, 4, 5, 6)))
    assert kept < 1
    _, _, peak = bytes_per_clip(table.key_hashes)
    assert peak < 500  # of one shard at a time


def test_the_order_of_an_epoch_takes_a_byte_a_clip_wherever_it_is_entered():
    _ = EpochOrder([1], seed=1)[0]  # imports what the first order needs
    _, kept, peak = bytes_per_clip(lambda: EpochOrder([MANY // 10] * 10, seed=1)[MANY - 1])
    assert peak < 8
    shares = [Share("a", [MANY // 4], 0, 1.0), Share("b", [MANY * 3 // 4], MANY // 4, 2.0)]
    _, kept, _ = bytes_per_clip(lambda: MixturePattern(clips_per_epoch(shares)))
    assert kept < 2


def test_what_workers_are_sent_does_not_grow_with_the_number_of_clips(tmp_path):
    shards = ShardSet(write(tmp_path))
    assert len(pickle.dumps(shards.reader())) < 1000
    place = pickle.loads(pickle.dumps(shards.place_of(1)))
    assert pickle.loads(pickle.dumps(shards.reader())).read(place).video == shards.read(1).video


def test_clips_and_subjects_of_several_sets_are_found(tmp_path):
    one, other = ShardSet(write(tmp_path / "one")), ShardSet(write(tmp_path / "other"))
    fewer = other.only([False, True, False, False, True])
    sets = {"a": one.shards, "b": fewer.shards, "c": one.only([True] + [False] * 4).shards}
    found = [{name: keys[0] for name, keys in where.items()} for where in shared_clips(sets)]
    assert found == [{"a": "a", "c": "a"}, {"a": KEYS[1], "b": KEYS[1]}, {"a": "f", "b": "f"}]
    assert shared_subjects(sets) == {"s0": ["a", "b"], "s2": ["a", "b"]}
    assert shared_clips({"a": one.shards}) == []
    assert shared_subjects({"a": one.shards, "b": ()}) == {}
