"""Records hold what was said of each clip, and of its windows together."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from support.records import EMOTIONS, MODALITIES, output, records

from viper_e2e.labels import LabelSet
from viper_e2e.model.output import predictions_of, records_of
from viper_e2e.model.prediction import NO_FACE, Prediction, failed
from viper_e2e.model.records import record_of, seconds_counted_once, summary_of
from viper_e2e.runtime import plain_json


def test_a_scored_clip_counts_distinct_frames_only():
    record = records(boxes=True)[0]
    assert record["intensities"] == {"joy": 0.25, "fear": 0.75}
    assert record["present"] == {"visual": True, "audio": False}
    assert record["face_found"] == pytest.approx(2 / 3)
    assert record["frame_seconds"] == [0.0, 0.5, 1.0]
    assert record["boxes"] == [[0, 1, 2, 3, "detected"], [4, 5, 6, 7, "interpolated"], None]


def test_an_unreadable_clip_has_its_reason_and_no_numbers():
    record = records()[1]
    assert (record["valid"], record["error"], record["intensities"]) == (False, "not a video", None)
    assert "boxes" not in record


def test_numbers_that_are_none_make_a_record_invalid():
    broken = output()._replace(intensities=torch.tensor([[float("nan"), 0.5], [0.5, 0.5]]))
    record = records_of(broken, ["a.mp4", "b.mp4"], LabelSet(EMOTIONS), MODALITIES)[0]
    assert (record["valid"], record["intensities"]) == (False, None)
    assert "no number" in record["error"]


# --- windows ----------------------------------------------------------------------------------------


def window(start: float, end: float, joy: float | None, **changes) -> Prediction:
    (one, _) = predictions_of(output(), ["=a.mp4", "b.mp4"], EMOTIONS, MODALITIES, frames=True)
    changes = {"frame_seconds": (0.0,), "intensities": {"joy": joy, "fear": 0.5}} | changes
    return replace(one, **changes).in_window(start, end)


def test_a_window_is_told_on_the_clock_of_its_clip():
    made = record_of(window(6.0, 8.008, 0.5))
    assert (made["start_seconds"], made["end_seconds"], made["duration_seconds"]) == (6.0, 8.008, 2.008)
    assert (made["window_seconds"], made["frame_seconds"]) == ([6.0, 8.008], [6.0])


def test_each_second_counts_once_in_a_clips_mean():
    windows = [window(0.0, 2.0, 0.0), window(2.0, 4.0, 0.0), window(2.1, 4.1, 1.0, face_found=0.0)]
    whole = record_of(summary_of(windows))
    assert whole["window_seconds"] is None
    assert whole["intensities"] == pytest.approx({"joy": 1.05 / 4.1, "fear": 0.5})
    assert whole["face_found"] == pytest.approx(2 / 3 * 3.05 / 4.1)
    assert (whole["start_seconds"], whole["end_seconds"], whole["duration_seconds"]) == (0.0, 4.1, 4.1)
    assert whole["valid"]


def test_a_summary_says_what_could_not_be_scored():
    rest = failed("=a.mp4", "the frame at 4.2 s is damaged", MODALITIES, start_seconds=4.0)
    whole = record_of(summary_of([window(0.0, 2.0, 0.2), window(2.0, 4.0, 0.4), rest]))
    assert whole["valid"]
    assert whole["intensities"]["joy"] == pytest.approx(0.3)
    assert whole["end_seconds"] == 4.0
    assert "not scored from 4 s on: the frame at 4.2 s is damaged" in whole["warning"]
    assert "a second sound track was left out" in whole["warning"]


@pytest.mark.parametrize(
    ("joy", "told"), [(0.9, NO_FACE), (None, "no face was found: no numbers (--no-face nan)")]
)
def test_what_windows_warn_of_is_told_of_their_seconds_alone(joy, told):
    def faceless(start: float) -> Prediction:
        return window(start, start + 1.0, joy, face_found=0.0, warning=told)

    def seen(start: float) -> Prediction:
        return window(start, start + 1.0, 0.5)

    some = [seen(0.0), faceless(1.0), faceless(1.5), seen(3.0), faceless(4.0)]
    assert f"{told}, from 1 to 2.5 s, from 4 to 5 s" in summary_of(some).warning.split("; ")
    many = [make(float(second)) for second in range(10) for make in [(seen, faceless)[second % 2]]]
    stretches = "from 1 to 2 s, from 3 to 4 s, from 5 to 6 s and 2 more stretches"
    assert f"{told}, {stretches}" in summary_of(many).warning
    assert summary_of([faceless(0.0), faceless(1.0)]).warning == told


def test_unheard_sound_is_summed_up_once_for_a_clip():
    def deaf(seconds: float) -> dict:
        note = f"{seconds:.1f} of 8.0 s of sound are not used (--window-seconds 6 uses all)"
        return {"unheard_seconds": seconds, "warning": f"{note}; a second sound track was left out"}

    whole = record_of(summary_of([window(0.0, 8.0, 0.2, **deaf(2.0)), window(8.0, 16.0, 0.4, **deaf(3.0))]))
    assert whole["unheard_seconds"] == 5.0
    told = "5.0 s of sound are not used (--window-seconds 6 uses all)"
    assert whole["warning"] == f"a second sound track was left out; {told}"


def test_the_summary_of_a_clip_that_was_not_read_says_why():
    nothing = failed("b.mp4", "not a video", MODALITIES)
    assert summary_of([nothing]) == nothing


def test_a_window_without_numbers_is_left_out_of_the_mean():
    whole = summary_of([window(0.0, 2.0, 0.8), window(2.0, 4.0, None)])
    assert whole.intensities == {"joy": 0.8, "fear": 0.5}


def test_a_window_of_which_the_model_gave_no_number_is_one_that_failed():
    broken = record_of(window(2.0, 4.0, float("nan")))
    assert (broken["valid"], broken["intensities"], broken["window_seconds"]) == (False, None, [2.0, 4.0])
    whole = summary_of([window(0.0, 2.0, 0.8), window(2.0, 4.0, float("nan"))])
    assert "not scored from 2 s to 4 s: the model gave no number" in whole.warning


# --- what a journal keeps ---------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0.1, float("nan"), None])
def test_a_prediction_comes_back_out_of_json_as_it_was(number):
    (one, _) = predictions_of(output(), ["a", "b"], EMOTIONS, MODALITIES, boxes=True, hidden=("audio",))
    for made in (replace(one, intensities={"joy": 0.5, "fear": number}), window(6.0, 8.0, 0.5)):
        again = Prediction.from_json(json.loads(plain_json.dumps(made.to_json())))
        assert record_of(again) == record_of(made) or number is None
        assert replace(again, intensities=None) == replace(made, intensities=None)


def test_records_that_earlier_versions_kept_are_read():
    broken = failed("b.mp4", "not a video", MODALITIES, stage="container")
    for made in (*map(Prediction.from_json, records(boxes=True)), window(6.0, 8.0, 0.5), broken):
        again = Prediction.from_json(json.loads(json.dumps(record_of(made))))
        assert record_of(again) == record_of(made)


def test_a_clip_of_which_nothing_was_seen_or_heard_says_so():
    empty = output()._replace(present=torch.zeros(2, 2, dtype=torch.bool), notes=((), ()))
    (record, _) = records_of(empty, ["a.mp4", "b.mp4"], LabelSet(EMOTIONS), MODALITIES)
    assert record["valid"]
    assert record["warning"] == "nothing could be seen or heard: the model answered without any input"


@pytest.mark.parametrize(
    ("spans", "parts"),
    [
        ([(0, 2), (2, 4)], [2, 2]),
        ([(0, 2), (1, 3), (2, 4)], [1.5, 1, 1.5]),
        ([(0, 2), (2, 4), (4, 6), (4.6, 6.6)], [2, 2, 1.3, 1.3]),
        ([(0, 2), (5, 6)], [2, 1]),
        ([(0, 3), (0, 3)], [1.5, 1.5]),
        ([(0, 1)], [1]),
        ([(1, 1)], [0]),
        ([], []),
    ],
)
def test_each_second_counts_once(spans, parts):
    spans = [(float(start), float(end)) for start, end in spans]
    assert seconds_counted_once(spans) == pytest.approx(parts)


def test_the_seconds_of_many_windows_add_up_to_the_clip():
    starts = [hop * 0.5 for hop in range(7177)]
    bounds = [(start, start + 12.0) for start in starts]
    assert sum(seconds_counted_once(bounds)) == pytest.approx(3600.0)
