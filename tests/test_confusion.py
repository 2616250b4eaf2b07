from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image
from support.predictions import predictions_of

from viper_e2e.errors import ViperError
from viper_e2e.labels import HUME_REACTION, LabelSet
from viper_e2e.model.predictions import Predictions
from viper_e2e.report.confusion import bins, confusion_matrices, dominant_confusion, intensity_confusions


def random_predictions(n: int = 200) -> Predictions:
    rng = np.random.default_rng(0)
    true = rng.random((n, 7))
    predicted = true + 0.3 * rng.standard_normal((n, 7))
    predicted[0], true[1] = np.nan, np.nan
    valid = np.ones(n, bool)
    valid[0] = False
    return predictions_of(predicted, true, valid=valid)


def test_a_bin_holds_its_lower_edge_and_the_last_both():
    values = np.array([0.0, 0.05, 0.1, 0.3, 0.6, 0.7, 0.9, 0.999, 1.0, -3.0, 7.0])
    assert bins(values, HUME_REACTION).tolist() == [0, 0, 1, 3, 6, 7, 9, 9, 9, 0, 9]
    # Labels pass through float32, where 0.7 is a little less and 0.3 a little more.
    tenths = np.arange(10) / 10
    assert bins(tenths.astype(np.float32).astype(np.float64), HUME_REACTION).tolist() == list(range(10))


def test_bins_are_tenths_of_the_labels_range():
    wide = LabelSet(("valence",), minimum=-1.0, maximum=1.0)
    assert bins(np.array([-1.0, -0.85, 0.0, 0.99, 1.0]), wide).tolist() == [0, 0, 5, 9, 9]


def test_rows_are_true_and_columns_predicted():
    true, predicted = np.full((3, 7), 0.25), np.full((3, 7), 0.85)
    predicted[0] = 0.05
    for confusion in intensity_confusions(predictions_of(predicted, true)):
        assert confusion.counts[2].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 2, 0]
        assert confusion.counts.sum() == 3
        assert confusion.shares[2, 8] == pytest.approx(2 / 3)


def test_rows_sum_to_one_and_a_row_without_clips_is_undefined():
    given = random_predictions()
    given.true[:, 2] *= 0.5
    for confusion in intensity_confusions(given):
        sums, counts = confusion.shares.sum(1), confusion.counts.sum(1)
        assert np.isnan(sums).tolist() == (counts == 0).tolist()
        np.testing.assert_allclose(sums[counts > 0], 1)
        assert counts.sum() == given.scored.sum() == 198
    assert np.isnan(intensity_confusions(given)[2].shares[6:]).all()


def test_values_outside_the_range_are_clamped_and_counted():
    true, predicted = np.full((4, 7), 0.5), np.full((4, 7), 0.5)
    true[0, 0], predicted[1, 0], predicted[2, 0], predicted[3, 0] = 1.2, -0.1, -5.0, 1.0
    first, second, *_ = intensity_confusions(predictions_of(predicted, true))
    assert first.clamped == {"true_below": 0, "true_above": 1, "predicted_below": 2, "predicted_above": 0}
    assert first.counts[9, 5] == 1
    assert first.counts[5, 0] == 2
    assert sum(second.clamped.values()) == 0


def test_the_dominant_emotion_is_the_highest_and_of_equals_the_first():
    true, predicted = np.zeros((2, 7)), np.zeros((2, 7))
    true[:, 3] = true[:, 5] = 1
    predicted[0, 6], predicted[1, 3] = -0.1 + 1, 0.4
    counts = dominant_confusion(predictions_of(predicted, true)).counts
    assert counts[3, 6] == counts[3, 3] == 1
    assert counts.sum() == 2


@pytest.mark.slow
def test_files_hold_what_was_counted(drawn_plots, tmp_path):
    given = random_predictions()
    given.true[:, 2] *= 0.5
    files = confusion_matrices(given, tmp_path / "new")
    assert {path.name for path in files} == {path.name for path in (tmp_path / "new").iterdir()}
    assert len(files) == 2 + 7 + 1 + 1
    for path in files[:2]:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert picture.convert("L").getextrema()[0] < 60
    for confusion in intensity_confusions(given):
        with (tmp_path / "new" / f"confusion_{confusion.name}.csv").open() as file:
            header, *rows = csv.reader(file)
        assert header[1:3] == ["0–0.1", "0.1–0.2"]
        assert [int(row[-1]) for row in rows] == confusion.counts.sum(1).tolist()
        counts = [[float(cell or 0) * int(row[-1]) for cell in row[1:-1]] for row in rows]
        np.testing.assert_allclose(counts, confusion.counts, atol=1e-3)
    empty = (tmp_path / "new" / "confusion_anxiety.csv").read_text().splitlines()[-1]
    assert empty == "0.9–1" + "," * 11 + "0"
    clamped = (tmp_path / "new" / "confusion_clamped.csv").read_text().splitlines()
    assert clamped[0] == "emotion,true_below,true_above,predicted_below,predicted_above"
    assert len(clamped) == 8


def test_a_set_without_labels_is_an_error(tmp_path):
    with pytest.raises(ViperError, match="no clip has both a label and a prediction"):
        confusion_matrices(predictions_of(np.ones((3, 7)), np.full((3, 7), np.nan)), tmp_path)
