"""What is shown of each kind of task, in the overlay of a video and on the page of an evaluation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.pages import Page
from support.predictions import predictions_of

from viper_e2e.labels import LabelSet
from viper_e2e.report.overlay import panel_of
from viper_e2e.report.page import write_page
from viper_e2e.report.prediction_bars import MOST_CLASSES, parts_said
from viper_e2e.scoring import scores_of
from viper_e2e.tasks import Task

LABELS = LabelSet(
    ("mood Calm", "mood Glad", "mood Deep Sorrow", "valence", "units AU1", "units AU4"),
    -1.0,
    1.0,
    tasks=(Task("mood", "class", 3), Task("valence", "number", 1, -1.0, 1.0), Task("units", "labels", 2)),
)
VALUES = dict(zip(LABELS.names, (0.2, 0.7, 0.1, -0.5, 0.8, 0.3), strict=True))
CHOSEN, PLAIN = (255, 214, 10), (86, 180, 233)


def test_a_class_has_its_winner_in_words_a_number_its_range_and_labels_what_holds():
    mood, valence, units = parts_said(VALUES, LABELS, {"valence": [-0.9, 0.1]})
    assert mood.heading == "mood: Glad"
    assert [(bar.name, bar.is_chosen) for bar in mood.bars.values()] == [
        ("Calm", False),
        ("Glad", True),
        ("Deep Sorrow", False),
    ]
    assert {bar.limits for bar in mood.bars.values()} == {(0.0, 1.0)}
    (number,) = valence.bars.values()
    assert (valence.heading, number.limits, number.interval) == ("", (-1.0, 1.0), (-0.9, 0.1))
    assert (units.heading, [bar.is_chosen for bar in units.bars.values()]) == ("units", [True, False])


def test_without_numbers_nothing_is_chosen_and_intensities_alone_are_as_before():
    assert [part.heading for part in parts_said(dict.fromkeys(LABELS.names), LABELS)] == ["mood", "", "units"]
    plain = LabelSet(("Joy", "Fear"))
    (part,) = parts_said({"joy": 0.5, "fear": 0.1}, plain)
    assert part.heading == ""
    assert not any(bar.is_chosen or bar.interval for bar in part.bars.values())


def test_of_many_classes_the_most_probable_are_shown_in_the_order_of_the_labels():
    labels = LabelSet(tuple(f"word w{i:02}" for i in range(30)), tasks=(Task("word", "class", 30),))
    values = {name: (i * 7 % 30) / 435 for i, name in enumerate(labels.names)}
    (part,) = parts_said(values, labels)
    assert len(part.bars) == MOST_CLASSES
    assert list(part.bars) == sorted(part.bars)
    assert {values[name] for name in part.bars} == set(sorted(values.values())[-MOST_CLASSES:])


@pytest.mark.parametrize("canvas", [(1280, 720), (160, 120)])
def test_the_panel_fits_and_has_what_is_chosen_in_its_colour(canvas):
    panel = panel_of(
        parts_said(VALUES, LABELS, {"valence": [-0.9, 0.1]}), canvas, "a clip with a long name.mp4"
    )
    assert panel.width <= canvas[0]
    assert panel.height <= canvas[1]
    if canvas[0] > 1000:
        pixels = np.asarray(panel.convert("RGB")).reshape(-1, 3)
        glad, calm, sorrow, valence, raised, not_raised = (0.7, 0.2, 0.1, 0.25, 0.8, 0.3)
        counts = [(pixels == colour).all(1).sum() for colour in (CHOSEN, PLAIN)]
        # Words and lines have these colours too, so that bars alone are no less.
        assert counts[0] / counts[1] > 0.8 * (glad + raised) / (calm + sorrow + valence + not_raised)


def test_the_page_shows_tasks_in_their_measures_and_clips_in_their_words(tmp_path):
    rng = np.random.default_rng(0)
    n = 12
    true = np.concatenate(
        [np.eye(3)[rng.integers(0, 3, n)], rng.uniform(-1, 1, (n, 1)), rng.integers(0, 2, (n, 2))], 1
    )
    said = np.concatenate([rng.dirichlet(np.ones(3), n), rng.uniform(-1, 1, (n, 1)), rng.random((n, 2))], 1)
    true[0, :3] = np.nan
    keys = [f"c{i}" for i in range(n)]
    given = replace(predictions_of(said, true, LABELS), modalities=("audio",), keys=keys)
    scores = scores_of(given, num_resamples=50)
    inside = {"figures": {}, "strips": {}, "config": {}, "versions": {}}
    page = Page(write_page(tmp_path / "r.html", given, scores, **inside).read_text(encoding="utf-8"))
    for words in ("mood, UAR", "valence, CCC", "units, macro F1", "recall", "deep sorrow", "class, 11 clips"):
        assert words in page.text
    assert "mean Pearson" not in page.text
    winner = LABELS.own_titles(*LABELS.parts[0])[said[1, :3].argmax()]
    labelled = LABELS.own_titles(*LABELS.parts[0])[true[1, :3].argmax()]
    assert f"mood: {winner} (labelled {labelled})" in page.text
    assert "nan" not in page.text
