"""One person who is spelt in two ways, in one pack and another, is told wherever people are kept apart."""

from __future__ import annotations

import pytest
from rich.console import Console
from support.our_shards import LABELS

from viper_e2e.config import DecodingConfig, TrainConfig
from viper_e2e.runtime import spelt_apart
from viper_e2e.scoring import check
from viper_e2e.shards import ShardSet, ShardWriter
from viper_e2e.splits.folds import Folds, inner_split, make_folds, notes_on
from viper_e2e.training.data import open_splits

SPELT = "'S1' and 's1' are taken for different ones; write them alike if they are the same"


def pack_of(folder, subjects: str, *, split: str = "train", first: int = 0, **meta: str) -> str:
    """A clip of each subject."""
    folder.mkdir(exist_ok=True, parents=True)
    with ShardWriter(folder, split, LABELS, shard_size=10**9) as writer:
        for n, subject in enumerate(subjects.split(), start=first):
            members = {"mp4": f"video {n} ".encode() * 9}
            told = {"intensities": (0.25, n / 99), "subject": subject, "meta": meta or None}
            writer.add(f"{n:03}", members, file_id=f"[{n}]", **told)
    return f"{folder}/{split}-*.tar"


@pytest.fixture
def packs(tmp_path):
    """Of one person called ``S1`` in the first and ``s1`` in the second."""
    one = pack_of(tmp_path / "one", "S1 S2 S3", Site="Bonn")
    return one, pack_of(tmp_path / "other", "s1 S4 S5", split="val", first=10, Site="bonn")


def test_only_names_in_different_sets_are_spelt_apart():
    assert spelt_apart(["S1", "s1", "a"], ["b"]) == []
    assert spelt_apart(["S1", "a"], ["S1", "a"]) == []
    assert spelt_apart(["S1"], ["vp_1"], ["s1", "VP01"]) == [["S1", "s1"], ["VP01", "vp_1"]]


def problems(train: str, val: str) -> list[str]:
    _, found = open_splits(TrainConfig(train_shards=train, val_shards=val))
    return [line for line in found.problems if "different ones" in line]


def test_people_of_training_who_are_spelt_otherwise_in_validation_are_told(packs, tmp_path):
    (line,) = problems(*packs)
    assert line == f"--val-shards: subjects as in --train-shards but for their spelling: {SPELT}"
    assert problems(packs[0], pack_of(tmp_path / "third", "S6", first=20)) == []


def test_people_of_corpora_with_other_names_are_others(packs):
    one, other = packs
    assert problems(f"a:{one}", f"b:{other}") == []
    assert len(problems(f"a:{one}", f"a:{other}")) == 1


def test_people_spelt_in_two_ways_are_told_where_folds_part_them(packs):
    shards = ShardSet(list(packs))
    keys = [shards.entry(i).key for i in range(len(shards))]
    parted = Folds({key: str(n // 3) for n, key in enumerate(keys)})
    assert [line for line in notes_on(shards, parted) if "different ones" in line] == [
        f"Subject in several folds, but for the spelling: {SPELT}"
    ]
    together = Folds({key: str(int(n in (0, 3))) for n, key in enumerate(keys)})
    assert not [line for line in notes_on(shards, together) if "different ones" in line]


def test_people_spelt_in_two_ways_are_told_of_folds_by_other_groups(packs):
    shards = ShardSet(list(packs))
    lines = list(notes_on(shards, make_folds(shards, 2, by="Site")))
    assert any(
        line.startswith("Site in several folds, but for the spelling: 'Bonn' and 'bonn'") for line in lines
    )
    assert any(line.endswith(SPELT) for line in lines)


def test_people_whom_inner_validation_parts_are_told(tmp_path):
    seen = set()
    for n in range(8):
        others = " ".join("ABCDEFGH"[: n + 1])
        shards = ShardSet(pack_of(tmp_path / str(n), f"S1 s1 {others}"))
        train, _, line = inner_split(shards, 0.5, "Subject")
        of_training = {train.entry(i).subject for i in range(len(train))}
        are_parted = len(of_training & {"S1", "s1"}) == 1
        assert line.endswith(SPELT) == are_parted
        seen.add(are_parted)
    assert seen == {True, False}


def test_check_tells_names_spelt_in_two_ways(packs):
    report = check(ShardSet(list(packs), strict=False), decoding=DecodingConfig(), num_workers=0)
    assert report.spelt_alike == {"Subject": [["S1", "s1"]], "Site": [["Bonn", "bonn"]]}
    console = Console(width=200, record=True, quiet=False)
    console.print(report)
    assert f"note: Subject: {SPELT}" in console.export_text()
