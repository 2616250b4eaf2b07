from __future__ import annotations

import shutil
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV
from support.run_logs import epoch_of, log_of
from support.training_runs import lines, make_corpus, run, settings
from torch import nn

from viper_e2e.commands import cli
from viper_e2e.commands import evaluation as evaluation_commands
from viper_e2e.config.modalities import MODALITIES
from viper_e2e.encoders import Stream
from viper_e2e.fusion.closed_form import RELATIVE_PENALTIES
from viper_e2e.fusion.pooling import known_features, pool, pooled_rows
from viper_e2e.labels import LabelSet
from viper_e2e.loading.loader import ClipBatch
from viper_e2e.model.card import yardstick_line
from viper_e2e.model.output import ViPEROutput
from viper_e2e.model.predictions import Predictions
from viper_e2e.model.viper import ViPER, load
from viper_e2e.report import YardstickRecord, figures
from viper_e2e.report.figures import training_curves
from viper_e2e.runtime.processes import Processes
from viper_e2e.scoring import scores_of
from viper_e2e.shards import ShardSet
from viper_e2e.training import yardstick as yardstick_module
from viper_e2e.training.pooled_features import PooledRows, Table
from viper_e2e.training.yardstick import Yardstick, line, provenance_of_yardstick, verdict, what_helps


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"), num_train=8, num_val=4, silent=(5, 9))


def val(corpus) -> str:
    return f"--val-shards={corpus}/shards/val-*.tar"


def record_of(folder) -> dict:
    return [line["yardstick"] for line in lines(folder, "metrics.jsonl") if "yardstick" in line][-1]


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    return run(corpus, folder, val(corpus), "--batch-size=2", "--epochs=2")


def rows_of(model, pattern: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pooled rows of all clips of shards, which of their numbers are known, and labels."""
    shards, rows, known, labels = ShardSet(pattern), [], [], []
    for index in range(len(shards)):
        with torch.no_grad():
            output = model.eval()(shards.read(index), keep_streams=True)
        pooled = pool(output.streams, output.face_found, output.duration_seconds)
        rows.append(pooled_rows(pooled)[0].double().numpy())
        known.append(known_features(pooled)[0].numpy())
        labels.append(shards.entry(index).intensities)
    return np.array(rows), np.array(known), np.array(labels)


@pytest.mark.slow
def test_its_score_is_that_of_scikit_learn_on_the_same_tokens(corpus, whole):
    model = load(whole / "checkpoints" / "best")
    x, known, y = rows_of(model, f"{corpus}/shards/train-*.tar")
    more, more_known, true = rows_of(model, f"{corpus}/shards/val-*.tar")
    assert not known.all(), "some clip is to lack a modality"
    masked = np.ma.masked_array(x, ~known)
    means, deviations = masked.mean(0).data, masked.std(0).data
    varies = deviations > 1e-6 * np.abs(masked).max(0).data

    def standardised(rows, which):
        return np.where(which, (rows - means) / np.where(varies, deviations, 1.0), 0.0)[:, varies]

    at = standardised(x, known)
    grid = (at**2).sum() / min(x.shape) * np.array(RELATIVE_PENALTIES)
    far = model.config.fusion.max_deviations
    unseen = np.clip(standardised(more, more_known), -far, far)
    predicted = RidgeCV(alphas=grid, alpha_per_target=True).fit(at, y).predict(unseen)
    theirs = scores_of(Predictions.of_numbers(model.labels, predicted, true), num_resamples=0).whole.values
    record = record_of(whole)
    assert (record["num_train_clips"], record["num_features"]) == x.shape
    assert record["mean_pearson"] == pytest.approx(theirs["pearson"], abs=1e-5)
    assert record["mean_mse"] == pytest.approx(theirs["mse"], abs=1e-5)


@pytest.mark.slow
def test_it_is_told_once_and_in_the_first_epoch(whole):
    records = lines(whole, "metrics.jsonl")
    assert ["yardstick" in record for record in records] == [True, False]
    assert (
        torch.load(whole / "checkpoints" / "last" / "training.pt", weights_only=True)["parts"]["yardstick"]
        == {}
    )


@pytest.mark.campaign
def test_a_run_that_goes_on_within_its_first_epoch_has_the_same_yardstick(corpus, whole, tmp_path):
    words = (val(corpus), "--batch-size=2", "--epochs=2")
    folder = run(corpus, tmp_path / "run", *words, "--max-steps=2")
    assert record_of(folder)["num_train_clips"] == 4
    saved = torch.load(folder / "checkpoints" / "last" / "training.pt", weights_only=True)
    assert len(saved["parts"]["yardstick"]["features"]) == 4
    run(corpus, folder, *words, "--max-steps=7", "--resume")
    assert record_of(folder) == record_of(whole)


@pytest.mark.slow
def test_it_changes_nothing_of_the_run(corpus, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(Yardstick, "enter", lambda self, epoch: None)
    monkeypatch.setattr(Yardstick, "record", lambda self, num_clips: YardstickRecord("not asked for"))
    folder = run(corpus, tmp_path / "run", val(corpus), "--batch-size=2", "--epochs=2")
    without = [{k: v for k, v in r.items() if k != "yardstick"} for r in lines(folder, "metrics.jsonl")]
    assert without == [{k: v for k, v in r.items() if k != "yardstick"} for r in lines(whole, "metrics.jsonl")]


@pytest.mark.slow
def test_without_validation_clips_there_is_none_and_that_is_said(corpus, tmp_path, capsys):
    folder = run(corpus, tmp_path / "run", "--epochs=1")
    assert record_of(folder) == {"reason": "there are no --val-shards to score it on"}
    assert "yardstick (ridge on the same tokens): none, there are no --val-shards" in capsys.readouterr().err


@pytest.mark.slow
def test_a_head_with_a_ridge_tells_without_validation_that_it_is_of_the_first_clips(
    corpus, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(yardstick_module, "PooledRows", partial(PooledRows, max_clips=6))
    folder = run(corpus, tmp_path / "run", "--epochs=1", "--head=ensemble")
    reason = "there are no --val-shards to score it on"
    assert record_of(folder) == {"reason": reason, "num_train_clips": 6, "of_clips": 8}
    said = f"none, {reason}; the ridge in this head is fitted to the first 6 of 8 clips\n"
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_checkpoints_and_their_evaluation_tell_it_those_of_before_do_not(corpus, whole, tmp_path, monkeypatch):
    record = record_of(whole)
    told = {name: record[name] for name in ("mean_pearson", "num_train_clips")}
    told |= {"measure": "mean Pearson", "value": record["mean_pearson"]}
    for name in ("best", "last"):
        assert load(whole / "checkpoints" / name).provenance["yardstick"] == told
    copy = shutil.copytree(whole, tmp_path / "run")
    words = (val(corpus), "--batch-size=2", "--epochs=3")
    run(corpus, copy, *words, "--resume")
    assert load(copy / "checkpoints" / "last").provenance["yardstick"] == told
    monkeypatch.setattr(evaluation_commands, "draw_all", lambda *_: {})
    model = load(whole / "checkpoints" / "best")
    assert "Yardstick (ridge on the same tokens)" in (whole / "checkpoints" / "best" / "README.md").read_text()
    scored = f"{record['mean_pearson']:.4f}; this model: {model.provenance['scores']['pearson']:.4f}."
    for old in (False, True):
        if old:
            del model.provenance["yardstick"]
        model.save_pretrained(tmp_path / "model")
        given = [f"--checkpoint={tmp_path / 'model'}", f"--shards={corpus}/shards/val-*.tar", "--num-workers=0"]
        cli.main(["eval", *given, f"--out={tmp_path / 'eval'}", "--report"])
        page = " ".join((tmp_path / "eval" / "report.html").read_text().split())
        assert (scored in page, "yardstick" in page) == (not old, not old)


def test_a_strangers_checkpoint_says_of_a_yardstick_what_it_likes_and_nothing_happens():
    for odd in (None, [], {"yardstick": "x"}, {"yardstick": {"mean_pearson": "<script>"}}, {"yardstick": []}):
        assert yardstick_line(odd) == ""
    assert yardstick_line({"yardstick": {"mean_pearson": 0.71}, "scores": []}).endswith("in validation: 0.7100")


@pytest.mark.slow
def test_backbones_that_train_and_clips_that_are_changed_have_one_too(corpus, tmp_path):
    words = ("--epochs=1", "--unfreeze=visual,audio", "--augment=all")
    record = record_of(run(corpus, tmp_path / "run", val(corpus), *words))
    assert record["num_train_clips"] == 8
    assert np.isfinite(record["mean_mse"])


# --- rows -------------------------------------------------------------------------------------------


class _Encoder(nn.Module):
    embed_dim = 2


class _Model(ViPER):
    """As much of a model as rows ask for."""

    def __init__(self):
        nn.Module.__init__(self)
        self.labels = LabelSet(("Joy", "Fear"))
        self.encoders = nn.ModuleDict({name: _Encoder() for name in MODALITIES[:2]})
        self.fusion = nn.Identity()


class _Alone(Processes):
    """One process."""

    def __init__(self):
        self.index, self.count, self.is_main = 0, 1, True


def passing(rows: PooledRows, positions, weights, tokens) -> None:
    count = len(positions)
    slots = torch.ones(count, 1, dtype=torch.bool)
    stream = Stream(
        torch.as_tensor(tokens)[:, None, None].expand(-1, 1, 2), slots, slots, torch.zeros(count, 1)
    )
    names = [""] * count
    output = ViPEROutput(
        intensities=torch.zeros(count, 2),
        by_network=torch.zeros(count, 1, 2),
        valid=slots[:, 0],
        present=slots.expand(-1, 2),
        boxes=torch.zeros(count, 1, 4),
        box_source=slots.to(torch.uint8),
        face_found=slots,
        frame_seconds=torch.zeros(count, 1),
        used=slots,
        duration_seconds=torch.ones(count),
        errors=(None,) * count,
        notes=((),) * count,
        streams={"visual": stream, "audio": stream},
    )
    rows.add(
        ClipBatch(
            epoch=0,
            positions=positions,
            keys=names,
            clips=[None] * count,
            intensities=torch.zeros(count, 2),
            weights=torch.tensor(weights),
            file_ids=names,
            shards=names,
            next_position=9,
            ends_step=True,
        ),
        output,
    )


def test_clips_without_labels_padding_and_rows_without_a_number_are_left_out():
    rows = PooledRows(_Model())
    passing(rows, [3, 2, None, 0], [1.0, 0.0, 1.0, 1.0], [3.0, 2.0, 9.0, float("nan")])
    passing(rows, [1, 4], [1.0, 1.0], [1.0, 4.0])
    table = rows.gather(_Alone())
    assert table.positions.tolist() == [1, 3, 4]
    assert table.features[:, 0].tolist() == [1.0, 3.0, 4.0]


@pytest.mark.parametrize("given", [{"max_clips": 3}, {"max_bytes": 3 * 12 * 4, "max_clips": None}], ids=str)
def test_memory_is_bounded_by_the_first_clips_and_the_line_says_so(given):
    rows = PooledRows(_Model(), **given)
    passing(rows, [4, 2, 0, 3, 1], [1.0] * 5, [4.0, 2.0, 0.0, 3.0, 1.0])
    assert rows.gather(_Alone()).positions.tolist() == [0, 1, 2]
    told = {"num_train_clips": 3, "of_clips": 5, "num_features": 12, "mean_pearson": 0.5}
    assert line(epoch_of({"yardstick": told}).yardstick).endswith("0.5000  the first 3 of 5 clips, 12 features")


def test_a_first_epoch_that_was_saved_without_rows_has_none_and_that_is_said():
    yardstick = Yardstick(_Model(), _Alone(), validates=True)
    yardstick.load_state_dict({})
    assert "older version" in yardstick.record(5).reason
    yardstick = Yardstick(_Model(), _Alone(), validates=True)
    passing(yardstick.rows, [0, 1], [1.0, 1.0], [1.0, 2.0])
    yardstick.gather()
    other = Yardstick(_Model(), _Alone(), validates=True)
    other.load_state_dict(yardstick.state_dict())
    assert all(torch.equal(*pair) for pair in zip(other.rows.own(), yardstick.rows.own(), strict=True))


def test_few_clips_have_no_yardstick():
    yardstick = Yardstick(_Model(), _Alone(), validates=True)
    yardstick.validating(lambda batch, output: None)
    assert yardstick.record(2) == YardstickRecord("it needs 3 labelled clips that can be read")


def test_rows_are_in_order_whichever_process_had_them():
    one, other = PooledRows(_Model()), PooledRows(_Model())
    passing(one, [0, 2], [1.0, 1.0], [0.0, 2.0])
    passing(other, [1, 3], [1.0, 1.0], [1.0, 3.0])

    class _Two(_Alone):
        def gather_list(self, items, *, purpose):
            return [*items, other.own()]

    table = one.gather(_Two())
    assert isinstance(table, Table)
    assert table.positions.tolist() == table.features[:, 0].tolist() == [0, 1, 2, 3]


# --- in words ---------------------------------------------------------------------------------------


def test_a_run_below_its_yardstick_is_told_so():
    log = [
        {"epoch": 0, "yardstick": {"mean_pearson": 0.71}, "val": {"mean_pearson": 0.2}},
        {"epoch": 1, "val": {"mean_pearson": 0.31}},
    ]
    told = verdict(log_of(*log))
    assert "0.7100" in told
    assert "0.3100" in told
    assert verdict(log_of(*log, {"epoch": 2, "val": {"mean_pearson": 0.72}})) is None
    assert verdict(log_of({"yardstick": {"reason": "none"}, "val": {"mean_pearson": 0.2}})) is None
    assert verdict(log_of({"yardstick": {"mean_pearson": None}, "val": {"mean_pearson": None}})) is None


def mood(uar: float, pearson: float, **more) -> dict:
    """As a record of the yardstick or of a validation has one task of classes."""
    tasks = {"mood": {"kind": "class", "num_clips": 9, "uar": uar, "war": uar}}
    return {"mean_pearson": pearson, "mean_mse": 0.1, "tasks": tasks, "best_by": uar, **more}


def test_of_classes_it_is_by_their_recall_that_a_run_is_below():
    ridge = mood(0.6, 0.1, num_train_clips=90, num_features=12)
    log = [{"epoch": 0, "yardstick": ridge, "val": mood(0.5, 0.4)}, {"epoch": 1, "val": mood(0.55, 0.2)}]
    told = verdict(log_of(*log))
    assert "reaches 0.6000 in validation (mood UAR), this model at its best 0.5500" in told
    assert "Pearson" not in told
    assert verdict(log_of(*log, {"epoch": 2, "val": mood(0.61, 0.0)})) is None
    assert line(epoch_of({"yardstick": ridge}).yardstick).endswith("mood UAR 0.6000  90 clips, 12 features")
    assert provenance_of_yardstick(log_of(*log).yardstick)["yardstick"]["measure"] == "mood UAR"


def test_an_error_that_chooses_the_best_is_compared_the_other_way_round_and_shown_as_it_is():
    def valence(rmse: float, **more) -> dict:
        return {"mean_pearson": 0.5, "tasks": {}, "best_by": -rmse, **more}

    ridge = {"epoch": 0, "yardstick": valence(0.2), "val": valence(0.3)}
    told = verdict(log_of(ridge, best_by="valence.rmse"))
    assert "0.2000 in validation (valence.rmse), this model at its best 0.3000" in told
    assert verdict(log_of(ridge, {"epoch": 1, "val": valence(0.1)}, best_by="valence.rmse")) is None


def test_a_yardstick_of_an_earlier_version_is_not_compared_with_another_measure():
    assert verdict(log_of({"yardstick": {"mean_pearson": 0.9}, "val": mood(0.5, 0.4)})) is None


@pytest.mark.slow
def test_it_is_a_line_among_the_training_curves(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure) or path)
    scores_of = {"mean_pearson": 0.5, "mean_ccc": 0.4, "mean_mse": 0.1, "pearson": {"joy": 0.5}}
    record = {"epoch": 0, "train_loss": 0.1, "val": scores_of, "yardstick": {"mean_pearson": 0.71}}
    training_curves(log_of(record), tmp_path / "curves.png")
    labels = {c.get_label(): c.get_ydata() for axis in drawn[0].axes for c in axis.get_lines()}
    assert set(next(y for name, y in labels.items() if name.startswith("yardstick"))) == {0.71}


@pytest.mark.slow
def test_curves_show_the_yardstick_that_the_verdict_tells_where_a_resumed_epoch_has_none(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure) or path)
    scores_of = {"mean_pearson": 0.5, "mean_ccc": 0.4, "mean_mse": 0.1, "pearson": {"joy": 0.5}}
    record = {"epoch": 0, "train_loss": 0.1, "val": scores_of}
    log = [
        {**record, "yardstick": {"mean_pearson": 0.71}},
        {**record, "yardstick": {"reason": "older version"}},
    ]
    assert "0.7100" in verdict(log_of(*log))
    training_curves(log_of(*log), tmp_path / "curves.png")
    assert [0.71, 0.71] in [list(c.get_ydata()) for axis in drawn[0].axes for c in axis.get_lines()]


@pytest.mark.slow
def test_of_tasks_the_main_measure_of_each_is_drawn_and_its_yardstick_beside_it(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, path: drawn.append(figure) or path)
    record = {"epoch": 0, "train_loss": 0.1, "val": mood(0.5, 0.4), "yardstick": mood(0.6, 0.1)}
    training_curves(log_of(record), tmp_path / "curves.png")
    _, panel = drawn[0].axes
    assert panel.get_lines()[0].get_label() == "mood, UAR"
    assert [list(curve.get_ydata()) for curve in panel.get_lines()] == [[0.5], [0.6, 0.6]]


def test_what_holds_already_is_not_advised(tmp_path):
    sizes = ("--model.fusion.latent-dim=64", "--model.fusion.num-latents=4")
    told = what_helps(settings(tmp_path, tmp_path, *sizes, "--model.fusion.dim=256", "--unfreeze=visual"))
    assert "a smaller head (--model.fusion.dim 64), frozen backbones (--freeze all), more clips" in told
    told = what_helps(settings(tmp_path, tmp_path, *sizes, "--model.fusion.dim=64", "--freeze=all"))
    assert told.startswith("What usually helps: more clips of more people, more epochs")
