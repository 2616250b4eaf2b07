"""Many trainings in one command: what a clip costs once is paid once, and no training can tell."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from support.counted_work import counted_work
from support.training_runs import arguments, lines, run, same, settings, weights

from viper_e2e.commands.cli import main
from viper_e2e.config import Size
from viper_e2e.errors import ViperError
from viper_e2e.experiments.many_trainings import ManyTrainings
from viper_e2e.experiments.outcome import Failed, Outcome, Run
from viper_e2e.loading import ClipCache
from viper_e2e.report import RunLog
from viper_e2e.training import DivergedError, data

SLOW, LONG = pytest.mark.slow, pytest.mark.campaign
SHORT = ("--epochs=2", "--modalities=visual")


@pytest.fixture(scope="module")
def alone(corpus, vit, tmp_path_factory):
    """The second seed by itself."""
    return run(corpus, tmp_path_factory.mktemp("alone") / "run", *words(corpus, vit, "--seed=1"))


@pytest.fixture
def work():
    """How often each clip is decoded and encoded."""
    with counted_work() as counts:
        yield counts


def words(corpus, vit, *more):
    return (*SHORT, f"--val-shards={corpus}/shards/val-*.tar", f"--backbone=visual={vit}", *more)


@SLOW
def test_whatever_the_number_of_trainings_each_clip_is_decoded_and_encoded_once(corpus, vit, tmp_path, work):
    run(corpus, tmp_path / "run", *words(corpus, vit, "--seeds=3"))
    for counts in work.values():
        assert len(counts) == 12
        assert set(counts.values()) == {1}


@SLOW
def test_a_seed_is_bitwise_what_it_is_alone(corpus, vit, alone, tmp_path):
    run(corpus, tmp_path / "run", *words(corpus, vit, "--seeds=2"))
    second = tmp_path / "run/seed-1"
    assert same(weights(second), weights(alone))
    assert (second / "metrics.jsonl").read_text() == (alone / "metrics.jsonl").read_text()


@SLOW
@pytest.mark.parametrize(
    "command",
    [["train", "--seeds=2"], ["sweep", "--grid=lr=1e-3,1e-2"], ["ablate", "--retrain"], ["cv", "--folds=2"]],
)
def test_what_is_odd_about_the_shards_is_told_once_a_command(corpus, tmp_path, capsys, monkeypatch, command):
    open_labelled = data.open_labelled

    def odd(*given):
        shards = open_labelled(*given)
        return shards.with_problems([*shards.problems, "something is odd"])

    monkeypatch.setattr(data, "open_labelled", odd)
    more = ["--epochs=1", "--modalities=visual,audio" if "--retrain" in command else "--modalities=visual"]
    more += [] if command[0] == "cv" else [f"--val-shards={corpus}/shards/val-*.tar"]
    assert main([*command, *arguments(corpus, tmp_path / "run", *more)]) == 0
    said = capsys.readouterr().err
    assert said.count("something is odd") == 1
    assert said.count("next: ") == 1
    assert said.splitlines()[-1].startswith("next: ")


@LONG
def test_a_ridge_shares_too(corpus, vit, tmp_path, work):
    own = words(corpus, vit, "--head=ridge")[1:]
    run(corpus, tmp_path / "run", *own, "--seeds=2")
    assert set(work["encoded"].values()) == {1}
    alone = run(corpus, tmp_path / "alone", *own, "--seed=1")
    assert same(weights(tmp_path / "run/seed-1"), weights(alone))


@SLOW
def test_random_weights_of_another_seed_are_never_taken_for_each_other(corpus, tmp_path, work, capsys):
    own = (*SHORT, "--seeds=2")
    run(corpus, tmp_path / "run", *own)
    assert set(work["encoded"].values()) == {2}
    assert capsys.readouterr().err.count("tokens are not shared with the training before") == 1
    alone = run(corpus, tmp_path / "alone", *SHORT, "--seed=1")
    assert same(weights(tmp_path / "run/seed-1"), weights(alone))


@pytest.mark.campaign
def test_trained_backbones_share_what_is_decoded_and_say_so(corpus, vit, tmp_path, work, capsys):
    own = words(corpus, vit, "--unfreeze=visual")
    run(corpus, tmp_path / "run", *own, "--seeds=2")
    assert set(work["decoded"].values()) == {1}
    assert capsys.readouterr().err.count("visual: trained, so that clips are encoded in every epoch") == 1
    alone = run(corpus, tmp_path / "alone", *own, "--seed=1")
    assert same(weights(tmp_path / "run/seed-1"), weights(alone))


@LONG
def test_backbones_that_join_later_find_what_the_first_training_left(corpus, vit, tmp_path, work):
    own = words(corpus, vit, "--unfreeze-at=1:visual=1")
    run(corpus, tmp_path / "run", *own, "--seeds=2")
    # Without the pictures while all is frozen, with them from the second epoch on.
    assert set(work["decoded"].values()) == {2}
    alone = run(corpus, tmp_path / "alone", *own, "--seed=1")
    assert same(weights(tmp_path / "run/seed-1"), weights(alone))


@LONG
def test_changed_clips_are_not_shared_and_it_is_said(corpus, vit, tmp_path, work, capsys):
    own = words(corpus, vit, "--augment=pixels")
    run(corpus, tmp_path / "run", *own, "--seeds=2")
    assert "--augment changes what is read of each clip" in capsys.readouterr().err
    alone = run(corpus, tmp_path / "alone", *own, "--seed=1")
    assert same(weights(tmp_path / "run/seed-1"), weights(alone))


@SLOW
def test_what_does_not_fit_is_encoded_again_and_it_is_said(corpus, vit, alone, tmp_path, work, capsys):
    # A clip's four tokens of 16 float32, their times, its boxes: some clips fit, not all.
    own = words(corpus, vit)
    run(corpus, tmp_path / "run", *own, "--seeds=2", "--reuse-memory=4KB")
    err = capsys.readouterr().err
    assert err.count("are decoded and encoded again in each of 2 trainings × 2 epochs: about") == 1
    assert "of 12 clips in 4kB; the other" in err
    counts = Counter(work["encoded"].values())
    assert set(counts) == {1, 4}
    assert same(weights(tmp_path / "run/seed-1"), weights(alone))


@LONG
def test_another_sampling_of_the_same_clips_is_another_pass(corpus, vit, tmp_path, work):
    base = settings(corpus, tmp_path / "one", *words(corpus, vit))
    other = settings(corpus, tmp_path / "other", *words(corpus, vit), "--model.decoding.num-frames=3")
    with ManyTrainings(base, command=["viper"]) as many:
        assert many.train(base) is not None
        assert many.train(other) is not None
    assert set(work["encoded"].values()) == {2}
    alone = run(corpus, tmp_path / "alone", *words(corpus, vit), "--model.decoding.num-frames=3")
    assert same(weights(tmp_path / "other"), weights(alone))


@LONG
def test_clips_of_other_corpora_with_the_same_keys_are_told_apart(corpus, vit, tmp_path, work):
    from support.training_runs import make_corpus

    # Twelve clips with the keys of the other corpus, of which those in the same place look and sound otherwise.
    rolled = make_corpus(tmp_path / "rolled", num_train=4, num_val=8)
    one = settings(corpus, tmp_path / "one", *words(corpus, vit))
    crossed = [f"--val-shards={corpus}/shards/train-*.tar", f"--backbone=visual={vit}", *SHORT]
    two = settings(rolled, tmp_path / "two", *crossed)
    with ManyTrainings(one, command=["viper"]) as many:
        assert many.train(one) is not None
        assert many.train(two) is not None
    assert same(weights(tmp_path / "two"), weights(run(rolled, tmp_path / "alone", *crossed)))


@SLOW
def test_an_ended_run_is_not_trained_again_and_a_stopped_one_goes_on(corpus, vit, tmp_path, work):
    own = words(corpus, vit)
    many = run(corpus, tmp_path / "run", *own, "--seeds=2", "--max-steps=1")
    before = [(many / f"seed-{seed}/checkpoints/last/training.pt").stat().st_mtime_ns for seed in (0, 1)]
    work["encoded"].clear()
    run(corpus, many, "--seeds=2", "--max-steps=1", "--resume", *own)
    after = [(many / f"seed-{seed}/checkpoints/last/training.pt").stat().st_mtime_ns for seed in (0, 1)]
    assert before == after
    assert not work["encoded"]
    run(corpus, many, "--seeds=2", "--max-steps=3", "--resume", *own)
    whole = run(corpus, tmp_path / "whole", *own, "--seeds=2", "--max-steps=1")
    run(corpus, whole, "--seeds=2", "--max-steps=3", "--resume", *own)
    assert same(weights(many / "seed-1"), weights(whole / "seed-1"))
    assert lines(many / "seed-1", "metrics.jsonl")[-1]["step"] == 3


@SLOW
def test_nothing_begins_where_one_of_the_folders_is_taken(corpus, vit, tmp_path):
    own = words(corpus, vit, "--max-steps=1")
    run(corpus, tmp_path / "run/seed-1", *own)
    with pytest.raises(ViperError, match=r"seed-1: already holds a run"):
        run(corpus, tmp_path / "run", *own, "--seeds=2")
    assert not (tmp_path / "run/seed-0").exists()


@SLOW
def test_clips_are_predicted_from_what_is_held(corpus, vit, tmp_path, work):
    one = settings(corpus, tmp_path / "one", *words(corpus, vit))
    one = replace(one, train=replace(one.train, reuse_memory=Size(10**9)))
    with ManyTrainings(one, command=["viper"]) as many:
        outcome = many.train(one)
        val = data.shards_of(outcome.settings)[1]
        work["decoded"].clear()
        predictions = many.predict(outcome, val)
    assert not work["decoded"]
    assert predictions.keys == [val.entry(i).key for i in range(len(val))]
    from viper_e2e import load

    plain = load(outcome.best).predict([val.read(i) for i in range(len(val))])
    told = np.array([[row["intensities"][name] for name in ("joy", "fear")] for row in plain])
    np.testing.assert_allclose(predictions.predicted, told, atol=1e-5)


def test_a_run_that_diverges_fails_alone_and_after_a_signal_none_follows(corpus, tmp_path):
    base = settings(corpus, tmp_path / "run")
    begun = []

    class Many(ManyTrainings):
        def __init__(self):
            self.code, self.said = 0, []

        def tell(self, text, style=""):
            self.said.append(text)

        def train(self, run, begun=lambda: None):
            begun()
            if run.train.seed == 1:
                raise DivergedError("step 3: not finite", "lower --lr")
            self.code = 130 if run.train.seed == 3 else 0
            return None if self.code else Outcome(run, RunLog(()), was_there=False)

    def runs():
        for seed in range(5):
            # Each is asked for when those before have ended.
            assert len(begun) == seed
            yield Run(f"seed {seed}", replace(base, train=replace(base.train, seed=seed)))

    many = Many()
    ended = list(many.each(runs(), lambda: begun.append(1)))
    assert [run.name for run, _ in ended] == ["seed 0", "seed 1", "seed 2"]
    assert [isinstance(one, Outcome) for _, one in ended] == [True, False, True]
    assert ended[1][1] == Failed("step 3: not finite")
    assert many.said == ["seed 1 failed: step 3: not finite; lower --lr"]
    assert many.code == 130


def test_room_is_made_by_letting_go_of_single_objects():
    store = ClipCache(250)
    for key in "ab":
        store.offer(key, np.zeros(100, np.uint8))
    assert not store.has_room(100)
    store.drop(store.keys()[0])
    assert store.keys() == ["b"]
    assert store.put("b", np.zeros(250, np.uint8))
    assert not store.put("b", np.zeros(251, np.uint8))
    assert store.nbytes == 250
