"""Calibration: maps against closed forms, measures against scikit-learn, intervals that cover what they say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression, LogisticRegression
from support.predictions import predictions_of

from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.model.calibration import Calibration, Line, Steps, TaskCalibration
from viper_e2e.model.checkpoint import CheckpointError
from viper_e2e.model.predictions import Predictions
from viper_e2e.model.pretrained import read_calibration, write_calibration
from viper_e2e.scoring.calibrating import (
    CalibrationMethod,
    conformal_quantile,
    fewest_for,
    first_half,
    fit_calibration,
    fit_line,
    fit_steps,
    inverse_temperature,
)
from viper_e2e.scoring.coverage import measured_coverage
from viper_e2e.scoring.reliability import reliability, selective
from viper_e2e.tasks import Task

MOOD, VALENCE, UNITS = (
    Task("mood", "class", 3),
    Task("valence", "number", 1, -3.0, 3.0),
    Task("units", "labels", 2),
)
LABELS = LabelSet(
    ("mood Calm", "mood Glad", "mood Upset", "valence", "units AU1", "units AU2"),
    -3.0,
    3.0,
    tasks=(MOOD, VALENCE, UNITS),
)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def world(num_clips: int, seed: int = 0, sharpness: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """What an overconfident model says (its logits are ``sharpness`` times too large), and what is true."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num_clips, 3))
    drawn = (rng.random((num_clips, 1)) > softmax(logits).cumsum(1)[:, :2]).sum(1)
    mood = np.eye(3)[drawn]
    valence = rng.uniform(-1, 1, (num_clips, 1))
    units = rng.normal(size=(num_clips, 2))
    held = (rng.random((num_clips, 2)) < 1 / (1 + np.exp(-units))).astype(float)
    said = [softmax(sharpness * logits), 0.5 + 2 * valence, 1 / (1 + np.exp(-sharpness * units))]
    true = [mood, (valence + rng.normal(0, 0.3, valence.shape)).clip(-3, 3), held]
    return np.concatenate(said, 1), np.concatenate(true, 1)


def predictions(said: np.ndarray, true: np.ndarray, subjects: list[str] | None = None) -> Predictions:
    keys = [f"c{i}" for i in range(len(said))]
    return replace(predictions_of(said, true, LABELS), modalities=("audio",), keys=keys, subjects=subjects)


# --- maps -------------------------------------------------------------------------------------------


def test_the_temperature_is_that_of_logistic_regression_on_the_logits():
    """With one weight, no bias and no penalty that is the same problem."""
    rng = np.random.default_rng(1)
    logit = rng.normal(size=400) * 4
    true = (rng.random(400) < 1 / (1 + np.exp(-logit / 2.5))).astype(float)
    both = np.stack([np.zeros(400), logit], 1)
    found = inverse_temperature(both, np.stack([1 - true, true], 1))
    wanted = LogisticRegression(fit_intercept=False, C=1e12, tol=1e-10).fit(logit[:, None], true).coef_[0, 0]
    assert found == pytest.approx(wanted, abs=1e-5)


def test_the_temperature_gives_back_how_much_too_sharp_a_model_is():
    said, true = world(8_000, sharpness=3.0)
    plain = TaskCalibration("class")
    assert inverse_temperature(plain.logits(said[:, :3]), true[:, :3]) == pytest.approx(1 / 3, rel=0.07)
    soft = softmax(np.log(said[:, :3]) / 3)  # shares of raters, which are right on average
    assert inverse_temperature(plain.logits(said[:, :3]), soft) == pytest.approx(1 / 3, abs=1e-9)


@pytest.mark.parametrize("right", [True, False])
def test_a_temperature_of_clips_that_are_all_right_or_all_wrong_stays_finite(right):
    said = np.tile([[0.2, 0.8]], (30, 1))
    true = np.tile([[0.0, 1.0]] if right else [[1.0, 0.0]], (30, 1))
    assert inverse_temperature(np.log(said), true) == (100 if right else 0.01)


def test_a_line_is_that_of_least_squares():
    rng = np.random.default_rng(2)
    x = rng.normal(size=50)
    y = 0.4 * x - 1 + rng.normal(0, 0.2, 50)
    wanted = LinearRegression().fit(x[:, None], y)
    assert vars(fit_line(x, y)) == pytest.approx({"slope": wanted.coef_[0], "intercept": wanted.intercept_})
    assert fit_line(np.ones(5), np.arange(5.0)) == Line(0.0, 2.0)


@pytest.mark.parametrize("seed", range(3))
def test_steps_are_those_of_isotonic_regression(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=80).round(1)  # with equal ones
    y = np.sqrt(np.abs(x)) * np.sign(x) + rng.normal(0, 0.5, 80)
    wanted = IsotonicRegression(out_of_bounds="clip").fit(x, y)
    places = np.linspace(-5, 5, 301)
    assert fit_steps(x, y)(places) == pytest.approx(wanted.predict(places), abs=1e-9)


def test_classes_stay_shares_of_one_and_keep_their_winner():
    said, _ = world(200)
    made = TaskCalibration("class", 0.3).apply(said[:, :3])
    assert made.sum(1) == pytest.approx(1.0)
    assert (made.argmax(1) == said[:, :3].argmax(1)).all()
    assert np.isnan(TaskCalibration("class", 0.3).apply(np.full((1, 3), np.nan))).all()
    sure = TaskCalibration("labels", 0.5).apply(np.array([[0.0, 1.0]]))
    assert sure == pytest.approx(np.array([[0.0, 1.0]]), abs=1e-6)


# --- measures ---------------------------------------------------------------------------------------


def test_ece_is_that_of_its_definition_and_brier_that_of_its_formula():
    said = np.array([[0.9, 0.1], [0.9, 0.1], [0.55, 0.45], [0.2, 0.8]])
    true = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], float)
    found = reliability(Task("a", "class", 2), said, true, num_resamples=0)
    # Bins: two clips say 0.9 of which half is right; 0.55 and 0.8 are right.
    assert found.ece == pytest.approx(0.5 * 0.4 + 0.25 * 0.45 + 0.25 * 0.2)
    assert found.brier == pytest.approx(((said - true) ** 2).sum(1).mean())
    assert [one.count for one in found.bins] == [1, 1, 2]


def test_labels_are_measured_as_scikit_learn_does():
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import brier_score_loss

    said, true = (rows[:, 4:] for rows in world(500))
    found = reliability(UNITS, said, true, num_resamples=0)
    assert found.brier == pytest.approx(np.mean([brier_score_loss(true[:, i], said[:, i]) for i in (0, 1)]))
    holds, confidence = calibration_curve(true.ravel(), said.ravel(), n_bins=15)
    assert [one.found for one in found.bins] == pytest.approx(holds)
    assert [one.said for one in found.bins] == pytest.approx(confidence)
    counts = np.array([one.count for one in found.bins])
    assert found.ece == pytest.approx((counts * np.abs(holds - confidence)).sum() / counts.sum())


def test_intervals_of_reliability_hold_the_value_and_are_wider_over_subjects():
    said, true = (np.repeat(rows[:, :3], 10, 0) for rows in world(30))
    clips = reliability(MOOD, said, true)
    people = reliability(MOOD, said, true, np.repeat([f"s{i}" for i in range(30)], 10).astype(object))
    assert clips.intervals["brier"].low < clips.brier < clips.intervals["brier"].high
    widths = [one.intervals["brier"].high - one.intervals["brier"].low for one in (people, clips)]
    assert widths[0] > 2 * widths[1]


def test_the_most_confident_clips_are_kept_first():
    said = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    true = np.array([[1, 0], [0, 1], [0, 1]], float)
    curve = selective(Task("a", "class", 2), said, true)
    assert curve.kept == pytest.approx([1 / 3, 2 / 3, 1])
    assert curve.scores["war"] == pytest.approx([1, 1, 2 / 3])
    assert curve.scores["uar"] == pytest.approx([1, 1, 0.75])
    assert curve.area == pytest.approx(1 / 9)
    said, true = (rows[:, 4:] for rows in world(100))
    each = selective(UNITS, said, true).scores["accuracy"]
    assert each[-1] == pytest.approx(((said >= 0.5) == (true >= 0.5)).mean())


# --- conformal --------------------------------------------------------------------------------------


def test_the_quantile_is_the_one_with_the_correction_for_finite_samples():
    scores = np.arange(1.0, 20.0)[::-1]  # 19: the 18th of them, as (19 + 1) × 0.9
    assert conformal_quantile(scores, 0.9) == 18.0
    assert fewest_for(0.9) == 9
    assert conformal_quantile(np.arange(9.0), 0.9) == 8.0
    assert fewest_for(0.95) == 19


@pytest.mark.slow
def test_coverage_of_exchangeable_clips_is_what_was_promised():
    """Over many drawings; a quantile without the correction would cover 2 to 3 % less of so few clips."""
    covered: dict[str, list[float]] = {"mood": [], "valence": [], "units": []}
    for seed in range(40):
        said, true = world(340, seed=seed)
        fitted, _, _ = fit_calibration(
            predictions(said[:40], true[:40]), CalibrationMethod(coverage=0.8), "x", num_resamples=0
        )
        rest = predictions(fitted.apply(said[40:], LABELS), true[40:])
        for name, one in measured_coverage(rest, fitted).items():
            covered[name].append(one["covered"])
    for name, shares in covered.items():
        deviation = np.std(shares) / np.sqrt(len(shares))
        assert np.mean(shares) >= 0.8 - 2.5 * deviation, name
        assert np.mean(shares) <= 0.8 + 1 / 21 + 2.5 * deviation + (0.05 if name != "valence" else 0), name


def test_calibrating_mends_a_model_that_is_too_sure_and_is_measured_on_other_clips():
    said, true = world(600)
    made, reports, notes = fit_calibration(predictions(said, true), CalibrationMethod(), "x")
    assert not notes
    for report in reports:
        assert report.fitted.num_fitted == report.fitted.num_held_out == 300
        for name in ("ece", "brier", "rmse"):
            if name in report.before:
                assert report.after[name][0] < report.before[name][0]
                assert report.after[name][1].low <= report.after[name][0] <= report.after[name][1].high
    assert made.tasks["valence"].maps[0].slope == pytest.approx(0.5, abs=0.1)
    assert made.clips == {"clips": 600, "sha256": "x", "subjects": None}


def test_halves_have_no_subject_in_common():
    groups = [f"s{i % 13}" for i in range(130)]
    first = first_half(groups, seed=0)
    assert first.sum() == 70
    assert not {g for g, f in zip(groups, first, strict=True) if f} & {
        g for g, f in zip(groups, first, strict=True) if not f
    }
    assert (first_half(groups, seed=1) != first).any()
    assert (first_half(groups, seed=0) == first).all()


def test_too_few_clips_are_refused_in_one_line_and_a_task_that_lacks_labels_is_left_alone_aloud():
    said, true = world(15)
    with pytest.raises(
        ViperError, match=r"too few clips to calibrate: mood has 15 labelled clips of at least 20"
    ):
        fit_calibration(predictions(said, true), CalibrationMethod(), "x")
    with pytest.raises(ViperError, match="mood has 197 labelled clips of at least 198"):
        fit_calibration(predictions(*world(197)), CalibrationMethod(coverage=0.99), "x")
    assert fit_calibration(predictions(*world(198)), CalibrationMethod(coverage=0.99), "x", num_resamples=2)
    said, true = world(60)
    true[5:, :3] = np.nan
    made, _, notes = fit_calibration(predictions(said, true), CalibrationMethod(), "x")
    assert list(made.tasks) == ["valence", "units"]
    assert notes == [
        "left as it is: mood has 5 labelled clips of at least 20 in two halves without a common subject"
    ]
    assert (made.apply(said, LABELS)[:, :3] == said[:, :3]).all()


def test_numbers_that_do_not_rise_with_their_labels_are_left_as_they_are():
    said, true = world(60)
    true[:, 3] = -said[:, 3]
    made, _, notes = fit_calibration(predictions(said, true), CalibrationMethod(), "x")
    assert made.tasks["valence"].maps == (Line(1.0, 0.0),)
    assert notes == ["valence: its labels do not increase with the predictions; left as it is"]


# --- what is said, and the file -----------------------------------------------------------------------


def calibration() -> Calibration:
    tasks = {
        "mood": TaskCalibration("class", 0.5, reach=(0.7,)),
        "valence": TaskCalibration("number", maps=(Line(0.5, 0.1),), bounds=(-3.0, 3.0), reach=(0.4,)),
        "units": TaskCalibration("labels", 0.25, reach=(0.4, 0.6)),
    }
    return Calibration(tasks, 0.9, {"clips": 40, "sha256": "ab", "subjects": 4})


def test_intervals_stay_in_the_range_and_sets_have_the_winner_whatever_their_limit():
    values = dict(zip(LABELS.names, [0.5, 0.31, 0.19, 2.9, 0.45, 0.65], strict=True))
    said = calibration().said(values, LABELS)
    assert said["intervals"] == {"valence": [2.5, 3.0]}
    assert said["sets"] == {"mood": ["Calm", "Glad"], "units_au1": [0], "units_au2": [1]}
    assert said["coverage"] == 0.9
    unsure = TaskCalibration("class", reach=(0.1,))
    assert unsure.classes(np.array([0.3, 0.4, 0.3])) == [1]
    assert TaskCalibration("labels", reach=(0.6,)).states(0, 0.45) == [0, 1]
    nothing = calibration().said(dict.fromkeys(LABELS.names), LABELS)
    assert nothing["intervals"] == {"valence": None}
    assert nothing["sets"]["mood"] is None


def test_a_calibration_comes_back_from_its_file(tmp_path):
    write_calibration(calibration(), tmp_path)
    assert read_calibration(tmp_path, LABELS) == calibration()
    steps = TaskCalibration("number", maps=(Steps((0.0, 0.1 + 0.2), (0.0, 1 / 3)),))
    one = Calibration({"valence": steps}, 0.5, {"clips": 1, "sha256": "", "subjects": None})
    write_calibration(one, tmp_path)
    assert read_calibration(tmp_path, LABELS) == one
    assert read_calibration(tmp_path / "other", LABELS) is None


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("schema",), 2),
        (("tasks", "mood", "kind"), "labels"),
        (("tasks", "mood", "inverse_temperature"), 0),
        (("tasks", "mood", "reach"), [0.1, 0.2]),
        (("tasks", "valence", "maps"), [{"slope": "1", "intercept": 0}]),
        (("tasks", "valence", "maps"), [{"x": [1, 0], "y": [0, 1]}]),
        (("tasks", "valence", "bounds"), [1]),
        (("tasks", "sadness"), {}),
        (("coverage",), 1.5),
        (("clips",), None),
    ],
)
def test_a_file_that_does_not_fit_its_model_is_refused(tmp_path, place, value):
    data = calibration().to_json()
    *way, last = place
    inner = json.loads(json.dumps(data))
    whole = inner
    for name in way:
        inner = inner[name]
    inner[last] = value
    (tmp_path / "calibration.json").write_text(json.dumps(whole))
    with pytest.raises(CheckpointError, match=r"calibration\.json.*calibrate again"):
        read_calibration(tmp_path, LABELS)
