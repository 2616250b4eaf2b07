from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from support.loader_fakes import TWO_LABELS, FakeShards
from support.predictions import NASTY, E, cells, predictions, predictions_of

from viper_e2e.errors import ViperError
from viper_e2e.labels import HUME_REACTION, LabelSet
from viper_e2e.model.calibration import Calibration, TaskCalibration
from viper_e2e.model.prediction import Prediction, failed
from viper_e2e.model.predictions import Predictions
from viper_e2e.scoring import scores_of


def assert_equal(a: Predictions, b: Predictions) -> None:
    """But for what was computed, of which a file has six digits."""
    for name in vars(a):
        if name in ("predicted", "face_share"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-5, err_msg=name)
            continue
        np.testing.assert_equal(getattr(a, name), getattr(b, name), err_msg=name)


@pytest.mark.parametrize("subjects", [None, [None, "s1", *["=s2"] * 7]])
def test_a_csv_gives_the_same_rows_back(tmp_path, subjects):
    written = predictions(keys=NASTY, file_ids=NASTY, subjects=subjects)
    written.write_csv(tmp_path / "predictions.csv")
    assert_equal(Predictions.read_csv(tmp_path / "predictions.csv"), written)


def test_an_empty_set_is_a_header_alone(tmp_path):
    none = np.zeros(0)
    empty = predictions(
        keys=[], file_ids=[], shards=[], errors=[], valid=none.astype(bool), present=np.zeros((0, 2), bool),
        predicted=np.zeros((0, E)), true=np.zeros((0, E)), face_share=none, duration_seconds=none,
    )  # fmt: skip
    empty.write_csv(tmp_path / "predictions.csv")
    assert_equal(Predictions.read_csv(tmp_path / "predictions.csv"), empty)


def test_no_text_in_a_csv_can_be_run_as_a_formula(tmp_path):
    predictions(keys=NASTY, file_ids=NASTY, shards=NASTY, errors=NASTY, subjects=NASTY).write_csv(
        tmp_path / "p.csv"
    )
    header, *rows = cells(tmp_path / "p.csv")
    texts = [header.index(name) for name in ("key", "file_id", "shard", "subject", "error")]
    found = [row[i] for row in rows for i in texts]
    assert len(found) == 5 * len(NASTY)
    assert not [text for text in found if text[0] in "=+-@\t\r"]


def test_a_carriage_return_does_not_tear_a_line(tmp_path):
    predictions(errors=["a\rb"] * 9).write_csv(tmp_path / "p.csv")
    assert Predictions.read_csv(tmp_path / "p.csv").errors == ["a b"] * 9


def test_numbers_can_be_read_and_labels_are_left_as_they_are(tmp_path):
    given = predictions(predicted=np.full((9, E), 1 / 3), true=np.full((9, E), 1 / 3))
    given.write_csv(tmp_path / "p.csv", bom=True)
    assert (tmp_path / "p.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    assert_equal(Predictions.read_csv(tmp_path / "p.csv"), given)
    with (tmp_path / "p.csv").open(encoding="utf-8-sig", newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["predicted_fear"], row["true_fear"]) == ("0.333333", repr(1 / 3))


def test_a_csv_is_the_same_to_the_byte_as_in_earlier_versions(tmp_path):
    given = replace(
        predictions_of(
            [[1 / 3, -1e-7], [np.inf, 12345678.9]], [[0.1, np.nan], [1e22, 1.0]], TWO_LABELS, [True, False]
        ),
        file_ids=["[1]", "=1+1"],
        errors=[None, "is cut short"],
        subjects=["'s", None],
        face_share=np.array([2 / 3, np.nan]),
        duration_seconds=np.array([3.14159, np.nan]),
    )
    given.write_csv(tmp_path / "p.csv")
    reach = TaskCalibration("intensities", reach=(0.25, 0.5), bounds=(0.0, 1.0))
    calibration = Calibration({"intensities": reach}, 0.9, {"clips": 9})
    given.write_csv(tmp_path / "all.csv", exact=True, calibration=calibration)
    header = (
        "key,file_id,shard,subject,error,valid,duration_seconds,face_share,"
        "predicted_joy,predicted_fear,true_joy,true_fear,present_visual"
    )
    assert (tmp_path / "p.csv").read_text() == (
        f"{header}\n0,[1],,''s,,1,3.142,0.666667,0.333333,-1e-07,0.1,,1\n"
        "1,'=1+1,,,is cut short,0,,,inf,1.23457e+07,1e+22,1.0,1\n"
    )
    assert (tmp_path / "all.csv").read_text() == (
        f"{header},joy_lower,joy_upper,fear_lower,fear_upper\n"
        "0,[1],,''s,,1,3.142,0.6666666666666666,0.3333333333333333,-1e-07,0.1,,1,"
        "0.08333333333333331,0.5833333333333333,0.0,0.4999999\n"
        "1,'=1+1,,,is cut short,0,,,inf,12345678.9,1e+22,1.0,1,,,,\n"
    )


def test_of_clips_that_are_numbers_alone_nothing_else_is_known(tmp_path):
    given = Predictions.of_numbers(TWO_LABELS, np.eye(2), 1 - np.eye(2))
    given.write_csv(tmp_path / "p.csv")
    assert cells(tmp_path / "p.csv")[1] == [*[""] * 5, "1", "", "", "1", "0", "0.0", "1.0"]
    assert (given.errors, given.subjects, given.words) == ([None, None], None, None)
    assert given.scored.all()


def test_clips_that_were_not_found_whole_are_rows_that_failed():
    read = Prediction("k000", 0, intensities={"joy": 0.5, "fear": float("nan")}, present={"visual": True})
    lost = failed("k001", "is damaged", ("visual",))
    given = [failed("odd", "has no videos", ("visual",)), replace(lost, index=1), read]
    columns = Predictions.of(given, TWO_LABELS, ("visual",), FakeShards([2]))
    assert (columns.keys, columns.file_ids) == (["k000", "k001", "odd"], ["[0]", "[1]", ""])
    assert columns.errors == [None, "is damaged", "has no videos"]
    assert columns.valid.tolist() == [True, False, False]
    assert columns.keys_without_number == ["k000"]
    np.testing.assert_array_equal(columns.true, [[0.0, 1.0], [0.01, 0.99], [np.nan] * 2])
    assert not columns.scored.any()


def test_missing_values_are_empty_cells(tmp_path):
    predictions().write_csv(tmp_path / "p.csv")
    header, *rows = cells(tmp_path / "p.csv")
    assert rows[2][header.index("predicted_fear")] == ""
    assert rows[3][header.index("true_empathic_pain")] == ""
    assert rows[2][header.index("valid")] == "0"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("key,a\n", "not predictions for adoration"),
        ("HEADER\nx,y\n", "row 2 has 2 cells, expected 24; the file is torn"),
        ("HEADER\n" + ",".join(["x"] * 24), "row 2: 'x' is not a number"),
    ],
)
def test_a_csv_that_is_not_ours_is_named(tmp_path, content, message):
    path = tmp_path / "p.csv"
    predictions().write_csv(path)
    header = path.read_text().splitlines()[0]
    path.write_text(content.replace("HEADER", header))
    with pytest.raises(ViperError, match=message):
        Predictions.read_csv(path)


def test_another_label_set_is_an_error(tmp_path):
    predictions().write_csv(tmp_path / "p.csv")
    with pytest.raises(ViperError, match=r"differs in: .*predicted_joy"):
        Predictions.read_csv(tmp_path / "p.csv", LabelSet(("Joy", "Fear")))


def test_paths_that_cannot_be_used_are_one_line_errors(tmp_path):
    with pytest.raises(ViperError, match="cannot be written"):
        predictions().write_csv(tmp_path / "nowhere" / "p.csv")
    with pytest.raises(ViperError, match="cannot be read as predictions"):
        Predictions.read_csv(tmp_path / "p.csv")


def test_a_submission_has_every_clip_in_the_challenges_form(tmp_path):
    given = predictions(keys=[f"k{i}" for i in range(9)])
    fallback = [0.1 * i for i in range(E)]
    missing = given.write_submission(tmp_path / "submission.csv", fallback)
    header, *rows = cells(tmp_path / "submission.csv")
    assert header == [
        "File_ID", "Adoration", "Amusement", "Anxiety", "Disgust", "Empathic-Pain", "Fear", "Surprise"
    ]  # fmt: skip
    assert [row[0] for row in rows] == given.file_ids
    assert missing == ["k2"]
    values = np.array([[float(cell) for cell in row[1:]] for row in rows])
    np.testing.assert_array_equal(values[2], fallback)
    np.testing.assert_array_equal(values[given.valid], given.predicted[given.valid])


def test_a_prediction_that_is_no_number_gets_the_fallback_too(tmp_path):
    given = predictions()
    given.predicted[5, 1] = np.inf
    assert given.write_submission(tmp_path / "s.csv", [0.5] * E) == ["00002", "00005"]


def test_a_clip_without_an_identifier_goes_by_its_key(tmp_path):
    predictions(file_ids=[""] * 9).write_submission(tmp_path / "s.csv", [0.5] * E)
    assert [row[0] for row in cells(tmp_path / "s.csv")[1:]] == predictions().keys


def test_identifiers_in_a_submission_are_verbatim_or_refused(tmp_path):
    harmless = ["[1]", "1", "-abc_D.1", "a b", "'x", "ä", "a=b", "x-1", "0+1"]
    predictions(file_ids=harmless).write_submission(tmp_path / "s.csv", [0.5] * E)
    assert [row[0] for row in cells(tmp_path / "s.csv")[1:]] == harmless
    for formula in ("=1+1", "+1", "-2+3+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "a\r=1", "a\n=1"):
        with pytest.raises(ViperError, match="formula or a line break"):
            predictions(file_ids=[formula, *harmless[1:]]).write_submission(tmp_path / "t.csv", [0.5] * E)
    with pytest.raises(ViperError, match=r"'\[1\]' occurs twice"):
        predictions(file_ids=["[1]", "[1]", *harmless[2:]]).write_submission(tmp_path / "t.csv", [0.5] * E)
    hostile = LabelSet(("=cmd", *HUME_REACTION.columns[1:]))
    with pytest.raises(ViperError, match="'=cmd' would be read as a formula"):
        predictions(labels=hostile).write_submission(tmp_path / "t.csv", [0.5] * E)
    assert not (tmp_path / "t.csv").exists()


def test_scored_are_the_readable_labelled_clips():
    given = predictions()
    assert [i for i, scored in enumerate(given.scored) if not scored] == [2, 3]
    assert np.isnan(given.squared_error).tolist() == (~given.scored).tolist()


@pytest.mark.parametrize("count", [1, 3, 5, 20])
def test_the_best_and_the_worst_are_ordered_and_apart(count):
    given = predictions()
    best, worst = given.best_and_worst(count)
    errors = given.squared_error
    assert not set(best) & set(worst)
    assert len(best) == min(count, 4)
    assert len(worst) == min(count, 3)
    assert best[0] == np.nanargmin(errors)
    assert worst[0] == np.nanargmax(errors)
    assert errors[best].tolist() == sorted(errors[best])
    assert errors[worst].tolist() == sorted(errors[worst], reverse=True)


def test_a_prediction_that_is_no_number_is_named_and_in_no_metric():
    given = predictions()
    whole = scores_of(given, num_resamples=0)
    predicted = given.predicted.copy()
    predicted[0, 0], predicted[1, 1] = np.nan, np.inf
    spoilt = predictions(predicted=predicted)
    assert spoilt.keys_without_number == ["00000", "00001"]
    assert spoilt.scored.sum() == given.scored.sum() - 2
    scores = scores_of(spoilt, num_resamples=0)
    assert np.isfinite([*scores.whole.values.values()]).all()
    rest = predictions(valid=given.valid & ~np.isin(given.keys, spoilt.keys_without_number))
    assert scores == scores_of(rest, num_resamples=0) != whole


def test_exact_tables_give_back_every_digit_and_parts_are_joined_in_any_order(tmp_path):
    whole = predictions(9)
    whole.write_csv(tmp_path / "exact.csv", exact=True)
    assert np.array_equal(
        Predictions.read_csv(tmp_path / "exact.csv").predicted, whole.predicted, equal_nan=True
    )
    even = np.arange(9) % 2 == 0
    keys = whole.keys[::-1]
    joined = Predictions.joined([whole.only(even), whole.only(~even)], keys)
    assert joined.keys == keys
    for name in ("predicted", "true", "present", "face_share"):
        assert np.array_equal(getattr(joined, name), getattr(whole, name)[::-1], equal_nan=name != "present")
    assert joined.errors == whole.errors[::-1]
    with pytest.raises(AssertionError, match="every clip once"):
        Predictions.joined([whole, whole], keys)


@pytest.mark.parametrize("column", ["subjects", "words"])
def test_whatever_is_known_of_a_clip_stays_with_it_where_parts_are_joined(column):
    whole = predictions(9, **{column: [f"of {i}" for i in range(9)]})
    keys = whole.keys[::-1]
    assert getattr(Predictions.joined([whole], keys), column) == [f"of {i}" for i in range(8, -1, -1)]
    first, rest = whole.only(np.arange(9) < 4), predictions(9).only(np.arange(9) >= 4)
    joined = Predictions.joined([first, rest], keys)
    assert getattr(joined, column) == [*[None] * 5, "of 3", "of 2", "of 1", "of 0"]
    assert getattr(Predictions.joined([predictions(9)], keys), column) is None
