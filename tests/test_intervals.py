"""test_intervals.py: people are drawn, not clips, wherever people are known, and what was drawn is said."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from support.media import make_clip, tone
from support.pages import page
from support.pages import predictions as page_predictions
from support.predictions import predictions_of

from viper_e2e.commands.cli import main
from viper_e2e.config.presets import micro
from viper_e2e.labels import LabelSet
from viper_e2e.model import Predictions
from viper_e2e.model.viper import ViPER
from viper_e2e.report import tables
from viper_e2e.scoring import (
    CalibrationMethod,
    fit_calibration,
    score_groups,
    scores_of,
    task_reliability,
    task_scores,
)
from viper_e2e.scoring.bootstrap import drawn, resamples
from viper_e2e.shards import ShardWriter
from viper_e2e.tasks import Task

LABELS = LabelSet(("joy",))
NUM_PEOPLE, CLIPS_EACH = 8, 25


def of_people(labels: LabelSet = LABELS, *, known: bool = True) -> Predictions:
    """Predictions that are as wrong for all clips of a person as for one of them."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(NUM_PEOPLE), CLIPS_EACH)
    true = rng.uniform(0, 1, len(person))
    said = true + 0.6 * rng.standard_normal(NUM_PEOPLE)[person]
    columns = [said, 1 - said][: len(labels)], [true, 1 - true][: len(labels)]
    found = predictions_of(*(np.stack(values, -1) for values in columns), labels)
    return replace(found, subjects=[f"p{i}" for i in person] if known else None)


def shown(*made: object) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    for one in made:
        console.print(one)
    return " ".join(console.export_text().split())


def test_people_are_drawn_of_intensities_where_they_are_known():
    scores, of_clips = scores_of(of_people()).whole, scores_of(of_people(known=False)).whole
    spans = (one.intervals["pearson"] for one in (scores, of_clips))
    width, narrow = (span.high - span.low for span in spans)
    assert width > 1.5 * narrow
    assert (scores.over, of_clips.over) == ("subjects", "clips")
    assert "intervals over subjects" in shown(tables.metrics_table(scores))


def test_tables_of_tasks_and_groups_say_what_was_drawn():
    predictions = of_people()
    (task,) = task_scores(predictions).values()
    assert "95 % bootstrap intervals over subjects" in shown(*tables.task_tables(task))
    half = ["one" if subject == "p0" else "others" for subject in predictions.subjects or ()]
    (groups,) = score_groups(predictions, {"Site": half})
    text = shown(*tables.group_tables(groups))
    assert "95 % bootstrap intervals over subjects (of one over clips)" in text
    assert "too narrow, over fewer than 20: others" in text
    record = groups.to_json()["groups"]
    assert record["one"]["intensities"]["intervals_over"] == "clips"
    assert record["others"]["intensities"]["intervals_over"] == "subjects"


def test_calibration_and_reliability_say_what_was_drawn():
    moods = LabelSet(("mood glad", "mood sad"), tasks=(Task("mood", "class", 2),))
    predictions = of_people(moods)
    sharp = replace(predictions, true=np.round(predictions.true))
    ((reliability, _),) = task_reliability(sharp).values()
    assert reliability.to_json()["intervals_over"] == "subjects"
    _, (report,), _ = fit_calibration(of_people(), CalibrationMethod(), "sha", num_resamples=20)
    assert "intervals over subjects" in shown(tables.calibration_table(report))


@pytest.mark.parametrize(
    ("subjects", "told"),
    [
        (["a", "b"], "only 2: far too narrow"),
        ([f"{i}" for i in range(12)], "only 12: too narrow"),
        ([f"{i}" for i in range(20)], ""),
        ([None] * 20, ""),
        ([None] * 9, "only 9: far too narrow"),
        (["a"] * 30, "all of one subject: nothing is known of others"),
        (
            [None, *(f"{i}" for i in range(29))],
            "the subjects of 1 of 30 are not known, so that none are drawn: too narrow where people recur",
        ),
    ],
)
def test_what_makes_intervals_too_narrow_is_told_wherever_they_are(subjects, told):
    found = drawn(np.ones((len(subjects), 3)), np.array(subjects, object))
    assert found.caution == told
    assert len(found.sums) == len(subjects) or found.over == "subjects"


def test_an_interval_over_few_has_the_width_that_is_told_of_it():
    rng = np.random.default_rng(0)
    for count, covered in ((2, (0.3, 0.6)), (10, (0.85, 0.93)), (20, (0.9, 0.96))):
        sums = rng.standard_normal((600, count))
        (counts,) = resamples(count, 400, seed=1)
        low, high = np.quantile(sums @ counts.T / count, [0.025, 0.975], axis=1)
        assert covered[0] < ((low < 0) & (high > 0)).mean() < covered[1]


@pytest.mark.parametrize("over", ["subjects", "clips"])
def test_the_page_says_what_was_drawn(tmp_path, over):
    subjects = [f"p{i % 5}" for i in range(30)] if over == "subjects" else None
    few = " (only 5: far too narrow)" if subjects else ""
    assert f"intervals over {over}{few}." in page(tmp_path, page_predictions(30, subjects=subjects)).text


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[str, str, Path]:
    """Options that name a model and shards of six clips of three people, and where to write."""
    folder = tmp_path_factory.mktemp("people")
    torch.manual_seed(0)
    labels = LabelSet(("joy", "fear"))
    ViPER(micro(), labels).save_pretrained(folder / "model")
    with ShardWriter(folder, "test", labels, shard_size=10**9) as writer:
        for i in range(6):
            frames = [np.full((32, 32, 3), 40 * i, np.uint8)] * 3
            clip = make_clip(folder / f"{i}.mp4", frames=frames, sound=tone(0.3, 16_000, 1, 200 * (i + 1)))
            values = (i / 5, (i % 3) / 2)
            writer.add(f"{i}", {"mp4": clip.read_bytes()}, file_id="", intensities=values, subject=f"p{i // 2}")
    return f"--checkpoint={folder / 'model'}", f"--shards={folder}/test-*.tar", folder


@pytest.mark.slow
@pytest.mark.parametrize(("command", "file"), [("eval", "metrics.json"), ("ablate", "ablation.json")])
def test_commands_draw_people_and_say_so(world, capsys, command, file):
    *words, folder = world
    assert main([command, *words, f"--out={folder / command}", "--num-workers=0"]) in (0, 2)
    assert "intervals over subjects (only 3: far too narrow)" in " ".join(capsys.readouterr().out.split())
    record = json.loads((folder / command / file).read_text())
    said = [row["intervals_over"] for row in record.get("rows", [record])]
    assert set(said) == {"subjects"}
    assert {row["intervals_caution"] for row in record.get("rows", [record])} == {"only 3: far too narrow"}
