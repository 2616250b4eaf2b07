"""test_no_face.py: a clip without a face is never scored without a word, and bars begin where zero is."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from support.media import make_clip, tone
from support.predictions import predictions_of

from viper_e2e.commands.cli import main
from viper_e2e.config.presets import micro
from viper_e2e.labels import LabelSet
from viper_e2e.model.prediction import Prediction, failed
from viper_e2e.model.records import is_faceless, record_of
from viper_e2e.model.viper import ViPER
from viper_e2e.report.confusion import confusion_matrices
from viper_e2e.report.drawing import span_of
from viper_e2e.report.overlay import bar_panel
from viper_e2e.report.record_rows import records_table, signed_bar

VALENCE = LabelSet(("Valence", "Arousal"), -1.0, 1.0)


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Path:
    """A folder with a random micro model and a clip that shows no face."""
    folder = tmp_path_factory.mktemp("no-face")
    torch.manual_seed(0)
    ViPER(micro()).save_pretrained(folder / "model")
    make_clip(folder / "clip.mp4")
    return folder


def infer(folder: Path, output: str, *words: str) -> int:
    given = ["--checkpoint", str(folder / "model"), "--num-workers", "0", "--output", str(folder / output)]
    return main(["infer", str(folder / "clip.mp4"), *given, *words])


@pytest.mark.slow
def test_the_record_and_the_table_say_so(scored, capsys):
    assert infer(scored, "a.json") == 0
    (record,) = json.loads((scored / "a.json").read_text())
    assert record["valid"]
    assert record["face_found"] == 0
    assert "no face was found: the whole picture was scored" in record["warning"]
    assert all(value is not None for value in record["intensities"].values())
    assert "none: no face was found" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
@pytest.mark.parametrize("windows", [(), ("--window-seconds", "1")])
def test_numbers_can_be_left_out_while_the_clip_stays_valid(scored, windows, capsys):
    assert infer(scored, "b.csv", "--no-face", "nan", *windows) == 0
    with (scored / "b.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        assert "no face was found: no numbers (--no-face nan)" in row["warning"]
        assert row["fear"] == ""
        assert row["valid"].lower() in ("true", "1")
    assert "–" in capsys.readouterr().out


def test_a_clip_that_nobody_looked_at_or_that_failed_is_not_blind():
    broken = failed("a.mp4", "is empty", ["visual"])
    heard = Prediction("a.mp4", face_found=0.0, present={"audio": True, "visual": False})
    seen = replace(heard, present={"visual": True}, intensities={"fear": 0.5})
    for one in (broken, heard, replace(seen, face_found=0.01)):
        assert not one.is_faceless
        assert not is_faceless(record_of(one))
        assert one.without_faceless() is one
    assert seen.is_faceless
    assert is_faceless(record_of(seen))
    blank = seen.without_faceless()
    assert (blank.intensities, blank.is_valid) == ({"fear": None}, True)


def test_a_model_that_only_hears_tells_nothing_of_faces(tmp_path):
    clip = make_clip(
        tmp_path / "a.mp4", frames=[np.zeros((64, 96, 3), np.uint8)] * 4, sound=tone(1.0, 16_000, 1)
    )
    model = ViPER(replace(micro(), modalities=("audio",)), LabelSet(("fear",))).eval()
    record = model.predict(clip)
    assert record["present"] == {"audio": True}
    assert record["face_found"] is None
    console = Console(file=io.StringIO(), width=80)
    console.print(records_table([record], ("fear",)))
    assert "–" in console.file.getvalue()
    assert "%" not in console.file.getvalue()


def test_eval_counts_them_and_leaves_them_out_where_wanted():
    given = predictions_of(np.full((4, 7), 0.5), np.full((4, 7), 0.4))
    given.face_share[:] = [0.0, 0.5, 0.0, 1.0]
    given.present[:] = [[True], [True], [False], [True]]
    assert given.faceless.tolist() == [True, False, False, False]
    assert given.without_faceless().scored.tolist() == [False, True, True, True]
    assert given.scored.all()


# --- bars ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "limits", "drawn"),
    [
        (1.0, (-1.0, 1.0), "    ████"),
        (-1.0, (-1.0, 1.0), "████    "),
        (-0.5, (-1.0, 1.0), "  ██    "),
        (-0.125, (-1.0, 1.0), "   ▐    "),
        (0.5, (-1.0, 1.0), "    ██  "),
        (0.0, (-1.0, 1.0), "        "),
        (-9.0, (-1.0, 1.0), "████    "),
        (0.5, (0.0, 1.0), "████    "),
        (50.0, (0.0, 100.0), "████    "),
        (4.0, (1.0, 8.0), "████    "),
        (-4.0, (-8.0, -1.0), "    ████"),
        (0.0, (0.0, 0.0), "        "),
    ],
)
def test_a_bar_begins_where_zero_is(value, limits, drawn):
    assert signed_bar(value, limits, 8) == drawn


def test_every_bar_fits_its_place():
    for value in np.linspace(-1.2, 1.2, 97):
        for limits in ((-1.0, 1.0), (-0.3, 1.0), (0.0, 1.0), (-99.0, 1.0)):
            assert len(signed_bar(float(value), limits, 7)) == 7
            begin, end = span_of(float(value), limits)
            assert 0 <= begin <= end <= 1


def test_the_table_draws_negative_values_to_the_left():
    record = record_of(failed("a.mp4", "", ["visual"])) | {"valid": True, "face_found": 1.0}
    record["intensities"] = {"valence": -0.19, "arousal": 0.0}
    console = Console(width=60, file=io.StringIO())
    console.print(records_table([record], ("valence", "arousal"), width=60, limits=(-1.0, 1.0)))
    assert "█" not in console.file.getvalue().replace("▐█", "")


def test_the_overlay_draws_negative_values_to_the_left():
    left, right = (
        np.asarray(bar_panel({"valence": value}, (640, 480), (-1.0, 1.0)))[..., :3] == (86, 180, 233)
        for value in (-1.0, 1.0)
    )
    columns = [np.flatnonzero(found.all(2).any(0)) for found in (left, right)]
    assert columns[0].max() <= columns[1].min() + 2


@pytest.mark.slow
def test_of_valence_and_arousal_none_dominates(tmp_path):
    given = predictions_of(np.full((4, 7), 0.5), np.full((4, 7), 0.4))
    assert tmp_path / "a/confusion_dominant.png" in confusion_matrices(given, tmp_path / "a")
    from dataclasses import replace

    signed = replace(given, labels=replace(given.labels, minimum=-1.0))
    files = confusion_matrices(signed, tmp_path / "b")
    assert not [path for path in files if "dominant" in path.name]
    assert files[0].name == "confusion.png"
