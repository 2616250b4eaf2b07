"""Mixtures in folds: keys and subjects carry their corpus, nobody is in two folds; odd mixtures are told."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from support.shard_sets import MOODS, mood, write_shards

from viper_e2e.config import TrainConfig
from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.loading import ClipLoader, OrderSettings, Reading, clips_per_epoch
from viper_e2e.shards import ShardSet
from viper_e2e.splits.folds import make_folds
from viper_e2e.tasks import Task
from viper_e2e.training.data import open_corpora, open_splits, shares_of
from viper_e2e.training.tables import mixture_table

VALENCE = LabelSet(("valence",), -1.0, 1.0, tasks=(Task("valence", "number", 1, minimum=-1.0, maximum=1.0),))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> Path:
    """Two corpora with the same keys and subjects, twelve clips of six people each, and a task each."""
    folder = tmp_path_factory.mktemp("corpora")
    for name, labels in (("acted", MOODS), ("wild", VALENCE)):
        rows = [
            (f"c{i}", mood(i % 3) if labels is MOODS else (i / 12,), f"s{i % 6}", {"Fold": f"f{i % 3}"})
            for i in range(12)
        ]
        write_shards(folder / name, rows, labels)
    return folder


def given(corpora: Path, *weights: float) -> str:
    shares = [f"={weight}" for weight in weights] or ["", ""]
    return "\n".join(
        f"{name}{share}:{corpora}/{name}/all-*.tar"
        for name, share in zip(("acted", "wild"), shares, strict=True)
    )


def entries(shards) -> list:
    return [shards.entry(i) for i in range(len(shards))]


def test_a_fold_of_a_mixture_holds_nobody_who_is_trained_on_and_masks_stay(corpora):
    text = given(corpora, 0.75, 0.25)
    train, val = open_splits(TrainConfig(train_shards=text, fold="f1", folds="Fold"))
    assert (len(train), len(val)) == (16, 8)
    keys = [{entry.key for entry in entries(shards)} for shards in (train, val)]
    assert not keys[0] & keys[1]
    assert all(key.startswith(("acted:c", "wild:c")) for key in keys[0] | keys[1])
    subjects = [{entry.subject for entry in entries(shards)} for shards in (train, val)]
    assert not subjects[0] & subjects[1]
    assert subjects[1] == {"acted:s1", "acted:s4", "wild:s1", "wild:s4"}
    for shards in (train, val):
        rows = shards.label_rows()
        of_acted = np.array([entry.key.startswith("acted:") for entry in entries(shards)])
        assert not np.isnan(rows[of_acted, :3]).any()
        assert np.isnan(rows[of_acted, 3]).all()
        assert np.isnan(rows[~of_acted, :3]).all()
        assert not np.isnan(rows[~of_acted, 3]).any()
    assert [share.weight for share in shares_of(train)] == [0.75, 0.25]


def test_made_folds_keep_equal_names_of_two_corpora_apart(corpora):
    shards = open_corpora(given(corpora), "--train-shards")
    folds = make_folds(shards, 3, by="Subject")
    seen: list[str] = []
    for name in folds.names:
        train, val = folds.held_out(shards, name)
        assert not {e.subject for e in entries(train)} & {e.subject for e in entries(val)}
        seen += [entry.key for entry in entries(val)]
    assert sorted(seen) == sorted(entry.key for entry in entries(shards))
    assert len(set(seen)) == 24


def keys_of_epoch(shards, epoch: int = 0) -> list[str]:
    with ClipLoader(shards, str, Reading(4, 0), order=OrderSettings(shares=shares_of(shards))) as loader:
        order = loader.order(epoch)
        return [shards.entry(order[position]).key for position in range(len(order))]


@pytest.mark.parametrize("weights", [(0.75, 0.25), (0.3, 0.1), (30, 10), (0.6, 0.2), (7.5e-8, 2.5e-8)])
def test_weights_count_relative_to_one_another(corpora, weights):
    few, many = (open_corpora(given(corpora, *w), "--train-shards") for w in (weights, (3, 1)))
    assert clips_per_epoch(shares_of(few)) == clips_per_epoch(shares_of(many)) == [18, 6]
    assert keys_of_epoch(few) == keys_of_epoch(many)
    assert few.content_id() == many.content_id()


def test_a_weight_of_zero_is_refused_with_what_to_write(corpora):
    with pytest.raises(ViperError, match="'0' is not a weight; give a number above 0, or leave the corpus out"):
        open_corpora(given(corpora, 0, 1), "--train-shards")


def test_the_same_shards_in_two_corpora_are_two_clips_each(corpora):
    text = f"one:{corpora}/acted/all-*.tar\ntwo:{corpora}/acted/all-*.tar"
    shards = open_corpora(text, "--train-shards")
    assert sorted(keys_of_epoch(shards)) == sorted(f"{name}:c{i}" for name in ("one", "two") for i in range(12))
    assert np.isnan(shards.label_rows()).sum() == 0, "the task is one"


def test_a_corpus_without_a_label_of_its_task_is_refused_by_its_name(corpora, tmp_path):
    write_shards(tmp_path / "bare", [(f"c{i}", None, None, None) for i in range(3)])
    text = f"acted:{corpora}/acted/all-*.tar\nbare:{tmp_path}/bare/all-*.tar"
    with pytest.raises(ViperError, match=r"--train-shards .*bare.*: has no labelled clips"):
        open_corpora(text, "--train-shards")


def test_a_corpus_of_which_a_fold_leaves_nothing_is_told(corpora, tmp_path):
    """All of one corpus is held out: nothing of it can be trained on."""
    write_shards(tmp_path / "away", [(f"c{i}", mood(i % 3), f"s{i}", {"Fold": "f9"}) for i in range(4)])
    for weights in (("", ""), ("=1", "=1")):
        text = f"acted{weights[0]}:{corpora}/acted/all-*.tar\naway{weights[1]}:{tmp_path}/away/all-*.tar"
        train, val = open_splits(TrainConfig(train_shards=text, fold="f9", folds="Fold"))
        assert {entry.key[:5] for entry in entries(val)} == {"away:"}
        assert sorted(set(keys_of_epoch(train))) == sorted(f"acted:c{i}" for i in range(12))
        assert len(keys_of_epoch(train, epoch=1)) == 12
        assert mixture_table(shares_of(train), train.named_corpora).row_count == 2


# --- one kind of set -------------------------------------------------------------------------------


def test_a_set_of_one_corpus_and_a_set_of_several_are_of_one_kind(corpora):
    one, several = open_corpora(f"{corpora}/acted/all-*.tar", "--x"), open_corpora(given(corpora), "--x")
    assert type(one) is type(several) is ShardSet
    assert [corpus.name for corpus in one.corpora] == [""]
    assert [corpus.name for corpus in several.corpora] == ["acted", "wild"]
    assert several.corpora[0].shard_ids() == one.shard_ids() == several.shard_ids()[: len(one.shards)]
    assert several.corpora[0].content_id() == one.content_id()
    fields = {field.name for field in dataclasses.fields(ShardSet)}
    half = np.arange(len(several)) % 2 == 0
    for shards in (one, several, several.only(half), several.with_problems(["odd"])):
        assert fields <= vars(shards).keys()
        assert len(pickle.loads(pickle.dumps(shards))) == len(shards) == sum(map(len, shards.corpora))


def test_nothing_is_written_into_a_set_of_shards(corpora):
    """Notes and labels had been written into sets that others held."""
    shards = open_corpora(given(corpora), "--x")
    for name, value in (("problems", ()), ("shards", ()), ("labels", None)):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(shards, name, value)
    noted = shards.with_problems((*shards.problems, "one is odd"))
    halved = noted.only(np.arange(len(shards)) < 12)
    assert (shards.problems, noted.problems, halved.problems) == ((), ("one is odd",), ("one is odd",))
    assert (len(shards), list(map(len, halved.corpora))) == (24, [12, 0])
