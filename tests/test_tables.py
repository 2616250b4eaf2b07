from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from rich.cells import cell_len
from support.predictions import predictions_of
from support.tables import NAMES, record, shown

from viper_e2e.model.prediction import failed
from viper_e2e.model.records import record_of
from viper_e2e.report.record_rows import bar, records_table, stdout_console
from viper_e2e.report.tables import metrics_table
from viper_e2e.scoring.task_scores import TaskScores, scores_of

MODALITIES = ("visual", "audio", "textual")


def test_a_bar_grows_by_eighths_and_is_clamped():
    assert bar(0.0, 4) == "    "
    assert bar(1.0, 4) == "████"
    assert bar(0.5, 4) == "██  "
    assert bar(1 / 32, 4) == "▏   "
    assert bar(-1.0, 2) == "  "
    assert bar(9.0, 2) == "██"
    drawn = {bar(i / 1000, 4) for i in range(1001)}
    assert len(drawn) == 4 * 8 + 1
    assert {len(b) for b in drawn} == {4}


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
@pytest.mark.parametrize("num_clips", [1, 3, 12])
def test_a_table_fits_into_its_terminal_with_every_number_in_it(width, num_clips):
    clips = [record("a/very/long/folder/with/the/name/of/a_clip_0012.mp4")] * (num_clips - 1) + [record()]
    text = shown(records_table(clips, NAMES, width=width), width)
    assert max(map(cell_len, text.splitlines())) <= width
    for number in ("0.72", "0.10", "0.05", "0.00", "0.33", "0.21", "0.98", "94%"):
        assert text.count(number) == num_clips
    assert text.count("V · T") == num_clips
    assert "a.mp4" in text
    folded = "".join(line.split(" ")[0] for line in text.splitlines())
    assert num_clips == 1 or "of/a_clip_0012.mp4" in folded


def test_a_wide_terminal_shows_whole_names_and_one_line_per_clip():
    text = shown(records_table([record(str(i)) for i in range(5)], NAMES, width=120), 120)
    header, rows = text.splitlines()[:2], text.splitlines()[2:7]
    for word in ("adoration", "amusement", "anxiety", "disgust", "empathic", "pain", "fear", "surprise"):
        assert any(word in line for line in header)
    assert all("0.72 ██▉" in row for row in rows)


def test_a_narrow_terminal_keeps_many_clips_on_a_line_each():
    text = shown(records_table([record(str(i)) for i in range(9)], NAMES, width=80), 80)
    assert [line.count("0.72") for line in text.splitlines()].count(1) == 9
    assert "adora…" in text
    assert len(text.splitlines()) < 16


def test_a_narrow_terminal_gives_a_few_clips_whole_names():
    text = shown(records_table([record()], NAMES, width=80), 80)
    assert all(name.replace("_", " ") in text for name in NAMES)


def test_any_number_of_emotions_fits():
    names = [f"emotion_number_{i}" for i in range(40)]
    many = record() | {"intensities": dict.fromkeys(names, 0.25)}
    text = shown(records_table([many], names, width=100), 100)
    assert text.count("0.25") == 40
    assert max(map(cell_len, text.splitlines())) <= 100


@pytest.mark.parametrize("width", [80, 120])
def test_a_clip_that_could_not_be_read_has_its_reason_in_its_row(width):
    reason = "is no video (it begins with 'hello'); give mp4, mov, mkv, webm, avi, flv, ts or ogg"
    clips = [record(), record_of(failed("broken.mp4", reason, MODALITIES))]
    text = shown(records_table(clips, NAMES, width=width), width)
    assert "broken.mp4" in text
    for word in ("not read:", "begins", "'hello');", "ogg"):
        assert word in text


def test_only_failed_clips_make_a_table_too():
    text = shown(records_table([record_of(failed("x.mp4", "is cut short", MODALITIES))], NAMES, width=120), 120)
    assert "not read: is cut short" in text


def test_names_of_clips_are_shown_not_obeyed():
    text = shown(records_table([record("[red]a[/red]\x1b[31m.mp4")], NAMES, width=120), 120)
    assert "[red]a[/red]" in text
    assert "\x1b" not in text


def test_windows_are_named_by_their_time():
    records = [
        record(window_seconds=[6.0, 18.0]),
        record(window_seconds=[18.0, 29.5]),
        record(window_seconds=None),
    ]
    text = shown(records_table(records, NAMES, width=120), 120)
    for name in ("a.mp4 6–18 s", "a.mp4 18–29.5 s", "a.mp4 (mean)"):
        assert name in text


def test_without_a_terminal_tables_are_wide(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.delenv("COLUMNS", raising=False)
    assert stdout_console().width == 120
    monkeypatch.setenv("COLUMNS", "90")
    assert stdout_console().width == 90


def test_bars_follow_the_range_of_the_labels():
    text = shown(records_table([record(values=[50.0] * 7)], NAMES, width=140, limits=(0.0, 100.0)), 140)
    assert " 50.00 ██ " in text


def test_modalities_with_one_initial_are_told_apart():
    present = {"visual": True, "audio": True, "textual": True, "action_units": True}
    text = shown(records_table([record(present=present)], NAMES, width=120), 120)
    assert "V A T AU" in text
    assert "A audio" in text
    assert "AU action units" in text


# --- metrics --------------------------------------------------------------------------------------


def scored(num_clips: int = 40, num_resamples: int = 50) -> TaskScores:
    rng = np.random.default_rng(0)
    true = rng.random((num_clips, 7))
    predicted = true + 0.3 * rng.random((num_clips, 7))
    predicted[:, 6] = 0.4
    return scores_of(predictions_of(predicted, true), num_resamples=num_resamples).whole


def test_metrics_stand_with_their_intervals_within_80_columns():
    result = scored()
    text = shown(metrics_table(result), 80)
    assert max(map(len, text.splitlines())) <= 80
    of_first = result.column_intervals["adoration"]["pearson"]
    value = result.by_column["adoration"]["pearson"]
    assert f"{value:.3f} [{of_first.low:.3f}, {of_first.high:.3f}]" in text
    assert f"{result.values['mse']:.3f} [{result.intervals['mse'].low:.3f}" in text
    assert text.count("[") == 3 * 8 - 1
    assert "40 clips; in brackets 95 % bootstrap intervals" in text


def test_what_is_undefined_is_a_dash_and_explained():
    text = shown(metrics_table(scored(num_resamples=0)), 80)
    line = next(line for line in text.splitlines() if line.startswith("surprise"))
    assert line.split()[1] == "–"
    assert "-0.000" not in text
    assert "predictions do not vary, counted as 0: surprise" in " ".join(text.split())
    assert "[" not in text
