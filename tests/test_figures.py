from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox
from PIL import Image
from support.run_logs import log_of

from viper_e2e.commands import evaluation_plots
from viper_e2e.errors import ViperError
from viper_e2e.labels import HUME_REACTION
from viper_e2e.model.predictions import Predictions
from viper_e2e.report import confusion, drawing, figures, fold_plot
from viper_e2e.scoring import FoldScores, TaskScores
from viper_e2e.tasks import Task

NAMES = HUME_REACTION.names
pytestmark = [pytest.mark.usefixtures("drawn_plots"), pytest.mark.slow]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, to look inside."""
    kept = []
    save = figures.save

    def keep(figure, path):
        kept.append(figure)
        return save(figure, path)

    monkeypatch.setattr(figures, "save", keep)
    monkeypatch.setattr(confusion, "save", keep)
    return kept


def predictions(n: int = 60) -> Predictions:
    rng = np.random.default_rng(0)
    true = rng.random((n, 7))
    predicted = true + 0.2 * rng.standard_normal((n, 7))
    predicted[:, 6] = 0.5
    valid = np.ones(n, bool)
    valid[0], predicted[0], true[1] = False, np.nan, np.nan
    return Predictions(
        HUME_REACTION,
        ("visual",),
        keys=[str(i) for i in range(n)],
        file_ids=[""] * n,
        shards=[""] * n,
        predicted=predicted,
        true=true,
        valid=valid,
        errors=[None if good else "is cut short" for good in valid],
        present=np.ones((n, 1), bool),
        face_share=np.where(valid, rng.integers(0, 5, n) / 4, np.nan),
        duration_seconds=np.where(valid, 3.0, np.nan),
    )


def test_a_model_that_only_hears_has_no_plot_of_faces(monkeypatch, tmp_path):
    monkeypatch.setattr(figures, "predicted_against_true", lambda _, path: path)
    monkeypatch.setattr(figures, "error_against_faces", lambda _, path: path)
    monkeypatch.setattr(
        evaluation_plots, "confusion_matrices", lambda _, folder, *more: [folder / "confusion.png"]
    )
    captions = {"Predicted against true", "True against predicted intensity, in tenths"}
    hearing = replace(predictions(), modalities=("audio",))
    assert set(evaluation_plots.draw_all(hearing, tmp_path)) == captions
    seeing = replace(predictions(), modalities=("visual",))
    assert set(evaluation_plots.draw_all(seeing, tmp_path)) == captions | {"Error against visible faces"}


def epoch(number: int, *, val: bool = True) -> dict:
    scores = {
        "mean_pearson": 0.1 * number,
        "mean_ccc": 0.05 * number,
        "mean_mse": 0.1 / number,
        "pearson": dict.fromkeys(NAMES, 0.1 * number) | {"fear": None},
    }
    return {"epoch": number, "step": 10 * number, "train_loss": 0.1 / number} | ({"val": scores} if val else {})


def window(start: float, clip: str = "talk.mp4", **changes) -> dict:
    values = {name: 0.1 * i + 0.001 * start for i, name in enumerate(NAMES)}
    times = {"window_seconds": [start, start + 12.0]}
    return {"clip": clip, "valid": True, "error": None, "intensities": values} | times | changes


def ablation_rows() -> list[dict]:
    modalities = ("visual", "audio", "textual", "action_units")
    subsets = [s for size in range(1, 5) for s in itertools.combinations(modalities, size)]
    return [
        {
            "modalities": subset,
            "measure": "mean Pearson",
            "score": 0.1 * len(subset),
            "low": 0.1 * len(subset) - 0.15,
            "high": 0.5,
        }
        for subset in reversed(subsets)
    ]


FIGURES = {
    "curves": lambda path: figures.training_curves(log_of(*[epoch(i) for i in range(1, 9)]), path),
    "curves of one epoch": lambda path: figures.training_curves(log_of(epoch(1)), path),
    "curves without validation": lambda path: figures.training_curves(log_of(epoch(1, val=False)), path),
    "scatter": lambda path: figures.predicted_against_true(predictions(), path),
    "faces": lambda path: figures.error_against_faces(predictions(), path),
    "ablation": lambda path: figures.ablation_plot(ablation_rows(), path),
    "ablation without intervals": lambda path: figures.ablation_plot(
        [
            row | {"measure": "mean of mood UAR, valence CCC", "low": None, "high": None}
            for row in ablation_rows()
        ],
        path,
    ),
    "windows": lambda path: figures.windows_plot([window(6.0 * i) for i in range(20)], path),
    "long windows": lambda path: figures.windows_plot([window(600.0 * i) for i in range(20)], path),
    "one window": lambda path: figures.windows_plot([window(0.0)], path),
}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.filterwarnings("error")
def test_a_figure_is_a_readable_png_without_overlaps(name, tmp_path, drawn):
    path = FIGURES[name](tmp_path / "figure.png")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.size[0] >= 600
        assert len(np.unique(np.asarray(picture.convert("L").resize((64, 64))))) > 10
    (figure,) = drawn
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    inside = figure.bbox.expanded(1.001, 1.001)
    for panel in figure.axes:
        low, high = panel.get_xlim()
        ticks = zip(panel.get_xticks(), panel.get_xticklabels(), strict=True)
        labels = [label for at, label in ticks if low <= at <= high and label.get_text()]
        assert_apart([label.get_window_extent(renderer) for label in labels])
        texts = [panel.title, panel.xaxis.label, panel.yaxis.label, *labels]
        boxes = [text.get_window_extent(renderer) for text in texts if text.get_text() and panel.axison]
        boxes += [legend.get_window_extent(renderer) for legend in [panel.get_legend()] if legend]
        for box in boxes:
            assert inside.contains(box.x0, box.y0), box
            assert inside.contains(box.x1, box.y1), box
        assert min((text.get_fontsize() for text in texts if text.get_text()), default=10) >= 8


def assert_apart(boxes: list[Bbox]) -> None:
    for a, b in itertools.pairwise(sorted(boxes, key=lambda box: box.x0)):
        turned = a.height > 1.5 * 12  # slanted labels have overlapping boxes by design
        assert turned or a.x1 <= b.x0 + 1, (a, b)


@pytest.mark.parametrize(
    "folds",
    [
        list("12345"),
        [f"{i}" for i in range(20)],
        [f"Session_{i:02}" for i in range(12)],
        [f"s{i}" for i in range(91)],
    ],
)
def test_names_of_folds_stand_apart_and_end_at_their_points(folds, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(drawing, "save", lambda figure, path: kept.append(figure) or path)
    task = Task("valence", "number", 1)
    one = TaskScores(task, (), 10, {"ccc": 0.5}, {}, {})
    fold_plot({"valence": FoldScores(one, dict.fromkeys(folds, one))}, tmp_path / "folds.png")
    (panel,) = kept[0].axes
    canvas = FigureCanvasAgg(kept[0])
    canvas.draw()
    labels = panel.get_xticklabels()
    assert labels[-1].get_text() == "all"
    for place, label in zip(panel.get_xticks(), labels, strict=True):
        assert label.get_text() == [*folds, "all"][int(place)]
    boxes = [label.get_window_extent(canvas.get_renderer()) for label in labels]
    if not labels[0].get_rotation():
        assert_apart(boxes)
        return
    ends = [panel.transData.transform((place, 0))[0] for place in panel.get_xticks()]
    height = labels[0].get_fontsize() * kept[0].dpi / 72
    assert max(abs(box.x1 - end) for box, end in zip(boxes, ends, strict=True)) < 1.5 * height
    assert min(np.diff(ends)) * np.sin(np.deg2rad(labels[0].get_rotation())) >= height


def test_curves_hold_the_numbers_and_count_epochs_from_one(tmp_path, drawn):
    figures.training_curves(log_of(epoch(1, val=False), epoch(2), epoch(3)), tmp_path / "c.png")
    lines = {line.get_label(): line for panel in drawn[0].axes for line in panel.lines}
    assert lines["training loss"].get_xydata().tolist() == [[2, 0.1], [3, 0.05], [4, pytest.approx(0.1 / 3)]]
    assert lines["Pearson"].get_xydata()[:, 0].tolist() == [3, 4]
    assert np.isnan(lines["fear"].get_ydata()).all()
    assert "empathic pain" in lines


@pytest.mark.parametrize(
    "epochs", [[1], pytest.param([1, 2], marks=pytest.mark.campaign), [4, 5, 6], list(range(1, 16))]
)
def test_every_epoch_of_the_curves_is_inside_of_its_panel(tmp_path, drawn, epochs):
    figures.training_curves(log_of(*[epoch(number) for number in epochs]), tmp_path / "c.png")
    for panel in drawn[0].axes:
        low, high = panel.get_xlim()
        for line in panel.lines:
            assert all(low < x < high for x in line.get_xdata())
            assert line.get_markersize() > 0


def test_a_loss_and_an_error_have_a_panel_each(tmp_path, drawn):
    figures.training_curves(log_of(epoch(1), epoch(2)), tmp_path / "c.png")
    (with_loss,) = [p for p in drawn[0].axes if "training loss" in [line.get_label() for line in p.lines]]
    assert [line.get_label() for line in with_loss.lines] == ["training loss"]
    assert with_loss.get_title() == "training loss"


def test_points_are_the_scored_clips_and_r_is_pearsons(tmp_path, drawn):
    given = predictions()
    figures.predicted_against_true(given, tmp_path / "s.png")
    first, *_, last = drawn[0].axes[:7]
    points = first.collections[0].get_offsets()
    np.testing.assert_allclose(points[:, 0], given.true[given.scored][:, 0])
    np.testing.assert_allclose(points[:, 1], given.predicted[given.scored][:, 0])
    r = np.corrcoef(points.T)[0, 1]
    assert first.get_title() == f"adoration   r = {r:.2f}"
    assert last.get_title() == "surprise   r = –"


def test_every_clip_counts_in_one_range_of_faces(tmp_path, drawn):
    given = predictions()
    figures.error_against_faces(given, tmp_path / "f.png")
    labels = [label.get_text() for label in drawn[0].axes[0].get_xticklabels()]
    assert [label.split("\n")[0] for label in labels] == ["none", "0–25 %", "25–50 %", "50–75 %", "75–100 %"]
    counts = [int(label.split("\n")[1].split()[0]) for label in labels]
    assert sum(counts) == given.scored.sum()
    assert counts[0] == (given.face_share[given.scored] == 0).sum()
    assert counts[4] == (given.face_share[given.scored] == 1).sum()


def test_the_best_subset_is_on_top(tmp_path, drawn):
    figures.ablation_plot(ablation_rows(), tmp_path / "a.png")
    left, right = drawn[0].axes
    assert [label.get_text() for label in left.get_xticklabels()] == [
        "visual",
        "audio",
        "textual",
        "action units",
    ]
    chosen = [len(line.get_xdata()) for line in left.lines]
    assert chosen == sorted(chosen)
    assert chosen[-1] == 4
    assert len(chosen) == len(right.texts) == 15


def test_stretches_without_a_face_are_shaded(tmp_path, drawn):
    times = [{"start_seconds": 6.0 * i, "end_seconds": 6.0 * i + 12} for i in range(4)]
    shares = (1.0, 0.0, 0.0, 0.5)
    made = [window(6.0 * i, **times[i], face_found=share) for i, share in enumerate(shares)]
    figures.windows_plot(made, tmp_path / "w.png")
    (panel,) = drawn[-1].axes
    (shade,) = [patch for patch in panel.patches if patch.get_label() == "no face"]
    assert (shade.get_x(), shade.get_width()) == (6.0, 18.0)
    assert "no face" in [text.get_text() for text in panel.get_legend().get_texts()]


@pytest.mark.parametrize(
    ("span", "text"),
    [((0.0, 0.8), "0.0-0.8 s"), ((53.0, 65.4), "0:53-1:05"), ((3590.0, 3602.0), "0:59:50-1:00:02")],
)
def test_a_stretch_of_time_is_told_as_people_say_it(span, text):
    assert drawing.clock(*span) == text


def test_a_window_that_was_not_scored_is_a_gap_and_the_mean_is_left_out(tmp_path, drawn):
    records = [window(0.0), window(6.0, valid=False, intensities=None), window(12.0)]
    mean = window(0.0, intensities=dict.fromkeys(NAMES, 9.0), window_seconds=None)
    figures.windows_plot([*records, mean], tmp_path / "w.png")
    (panel,) = drawn[0].axes
    assert [line.get_label() for line in panel.lines] == [name.replace("_", " ") for name in NAMES]
    x, y = panel.lines[1].get_data()
    assert list(x) == [6.0, 12.0, 18.0]
    assert np.isnan(y).tolist() == [False, True, False]


def test_a_clips_name_is_no_formula(tmp_path, drawn):
    figures.windows_plot([window(0.0, clip="cost $x^{ in $.mp4")], tmp_path / "w.png")
    assert drawn[0].axes[0].get_title() == "cost $x^{ in $.mp4"


def test_more_emotions_than_colours_are_told_apart(tmp_path, drawn):
    many = window(0.0, intensities={f"e{i}": 0.5 for i in range(20)})
    figures.windows_plot([many], tmp_path / "w.png")
    styles = {(line.get_color(), line.get_linestyle()) for line in drawn[0].axes[0].lines}
    assert len(styles) == 20


def test_nothing_to_draw_or_nowhere_to_draw_it_is_an_error(tmp_path):
    unlabelled = predictions()
    unlabelled.true[:] = np.nan
    for draw in (figures.predicted_against_true, figures.error_against_faces):
        with pytest.raises(ViperError, match="no clip has both"):
            draw(unlabelled, tmp_path / "x.png")
    with pytest.raises(ViperError, match="no epoch is complete"):
        figures.training_curves(log_of(), tmp_path / "x.png")
    with pytest.raises(ViperError, match="no window has been scored"):
        figures.windows_plot([window(0.0, valid=False)], tmp_path / "x.png")
    with pytest.raises(ViperError, match=r"end its name in \.png"):
        figures.windows_plot([window(0.0)], tmp_path / "x.mp4")
    with pytest.raises(ViperError, match="cannot be written"):
        figures.windows_plot([window(0.0)], tmp_path / "nowhere" / "x.png")


@pytest.mark.campaign
def test_matplotlib_waits_until_something_is_drawn_and_needs_no_display():
    code = (
        "import sys, viper_e2e.report.figures as f\n"
        "assert 'matplotlib' not in sys.modules\n"
        "f.sheet(1, panel=(2.0, 2.0))\n"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("backend", ["module://not_installed.anywhere", "nonsense"])
@pytest.mark.campaign
def test_pictures_are_drawn_whatever_backend_the_surroundings_name(tmp_path, backend):
    code = f"""
from viper_e2e.report import figures
figure, (panel,) = figures.sheet(1, panel=(2, 2))
panel.plot([0, 1])
figures.save(figure, {str(tmp_path / "a.png")!r})
import os; assert os.environ["MPLBACKEND"] == {backend!r}
"""
    environment = os.environ | {"MPLBACKEND": backend}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").stat().st_size > 1000
