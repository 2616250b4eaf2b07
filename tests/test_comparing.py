"""`viper compare`: the same clips, differences that are more than chance, tables as papers print them."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from support.predictions import predictions_of

from viper_e2e.commands.cli import main
from viper_e2e.commands.comparison import names_of
from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.model import Predictions
from viper_e2e.report.comparison import (
    comparison_latex,
    comparison_markdown,
    comparison_note,
    latex_text,
    p_value,
)
from viper_e2e.scoring import compare, on_common_clips, read_scored, task_scores
from viper_e2e.scoring.comparing import holm
from viper_e2e.tasks import Task

LABELS = LabelSet(
    ("mood glad", "mood sad", "valence"),
    -1.0,
    1.0,
    tasks=(Task("mood", "class", 2), Task("valence", "number", 1, -1.0, 1.0)),
)


def made(
    noise: float, *, seed: int = 0, num_subjects: int = 30, each: int = 4, lean: float = 0.0
) -> Predictions:
    """Of clips whose label is the same for every seed and noise; some have no label of one of the tasks."""
    truth = np.random.default_rng(99)
    valence = truth.uniform(-1, 1, num_subjects * each)
    glad = truth.random(num_subjects * each) < 0.5
    rng = np.random.default_rng(seed)
    said = np.clip(glad + rng.normal(0, noise, len(glad)), 0.0, 1.0)
    number = valence + rng.normal(0, noise, len(glad)) + lean
    true = np.column_stack([glad, ~glad, valence]).astype(float)
    true[3, :2], true[5, 2] = np.nan, np.nan
    found = predictions_of(np.column_stack([said, 1 - said, number]), true, LABELS)
    return replace(found, subjects=[f"s{i // each}" for i in range(len(glad))])


def test_a_run_does_not_differ_from_itself_and_scores_are_those_of_eval():
    run = made(0.4)
    mood, valence = compare([run, run])
    scores = task_scores(run, num_resamples=2000)
    for found, name in ((mood, "mood"), (valence, "valence")):
        assert dict(found.values[0]) == dict(found.values[1]) == pytest.approx(dict(scores[name].values))
        assert dict(found.intervals[0]) == dict(scores[name].intervals)
        for difference in found.differences[0].values():
            assert (difference.value, difference.p) == (0.0, 1.0)
            assert (difference.interval.low, difference.interval.high) == (0.0, 0.0)
    assert (mood.num_clips, valence.num_clips, mood.over) == (119, 119, "subjects")


def test_what_helps_every_clip_a_little_is_seen_though_the_intervals_overlap():
    run = made(0.4)
    better = replace(
        run, predicted=np.where(np.isnan(run.true), run.predicted, 0.9 * run.predicted + 0.1 * run.true)
    )
    _, valence = compare([run, better])
    gain = valence.differences[0]["mae"]
    assert gain.value < 0
    assert gain.interval.high < 0
    assert gain.p < 0.002
    assert valence.intervals[0]["mae"].low < valence.intervals[1]["mae"].high


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.04], [0.04]),
        ([0.5, 0.6, 0.02], [1.0, 1.0, 0.06]),
        ([0.01, float("nan"), 0.02], [0.02, float("nan"), 0.02]),
    ],
)
def test_holm_corrects_from_the_smallest_on(given, wanted):
    """The values that statsmodels' ``multipletests(…, method="holm")`` gives."""
    assert holm(given) == pytest.approx(wanted, nan_ok=True)


def test_several_runs_are_told_apart_after_holms_correction():
    first, others = made(0.5), [made(0.5, seed=seed) for seed in (1, 2, 3)]
    (_, valence) = compare([first, *others], num_resamples=200)
    for measure in valence.measures:
        found = [of_run[measure] for of_run in valence.differences]
        assert [one.p_holm for one in found] == holm([one.p for one in found])
    names = ["a", "b", "c", "d"]
    assert "Holm's correction over the 3 runs" in comparison_markdown([valence], names)
    assert "p after Holm < .05" in comparison_markdown([valence], names)
    assert "after Holm" in comparison_latex([valence], names)
    (_, two) = compare([first, others[0]], num_resamples=200)
    assert all(one.p_holm == one.p for one in two.differences[0].values())
    assert "Holm" not in comparison_markdown([two], names[:2])


def test_subjects_are_drawn_whole():
    """Clips of a person that are all alike are worth one."""
    few, other = (made(0.4, seed=seed, each=1) for seed in (1, 2))

    def repeated(run: Predictions, subjects: list | None) -> Predictions:
        rows = np.repeat(np.arange(len(run)), 6)
        return replace(
            predictions_of(run.predicted[rows], run.true[rows], LABELS),
            subjects=subjects and [subjects[i] for i in rows],
        )

    def width(runs: list[Predictions]) -> float:
        interval = compare(runs)[1].differences[0]["mae"].interval
        return interval.high - interval.low

    by_subject = width([repeated(run, run.subjects) for run in (few, other)])
    assert by_subject == pytest.approx(width([few, other]), rel=1e-9)
    assert by_subject > 1.8 * width([repeated(run, None) for run in (few, other)])
    assert compare([repeated(few, None), repeated(other, None)])[0].over == "clips"


@pytest.mark.slow
def test_runs_that_are_equally_good_are_rarely_told_apart():
    found = [
        compare([made(0.5, seed=2 * i), made(0.5, seed=2 * i + 1)], num_resamples=300)[1]
        .differences[0]["mae"]
        .p
        for i in range(60)
    ]
    assert np.mean(np.array(found) < 0.05) < 0.15
    assert 0.3 < np.mean(found) < 0.7


def test_clips_are_matched_by_name_and_what_is_not_common_is_told():
    run, other = made(0.4), made(0.4, seed=1)
    order = np.random.default_rng(0).permutation(len(other))
    part = Predictions.joined([other], [other.keys[i] for i in order]).only(np.arange(len(other)) >= 20)
    (one, two), notes = on_common_clips([run, part], ["one", "two"])
    assert one.keys == two.keys
    assert len(one) == 100
    assert notes == ["one: 20 of its 120 clips are not in all runs: left out"]
    by_key = dict(zip(other.keys, other.predicted.tolist(), strict=True))
    assert [by_key[key] for key in two.keys] == two.predicted.tolist()


def test_subjects_that_are_other_people_in_another_run_are_told():
    run = made(0.4)
    renamed = replace(run, subjects=[f"person {name}" for name in run.subjects])
    unknown = replace(run, subjects=None)
    assert on_common_clips([unknown, run, renamed], ["a", "b", "c"])[1] == []
    moved = replace(run, subjects=[run.subjects[-1], *run.subjects[1:]])
    (note,) = on_common_clips([unknown, run, moved], ["a", "b", "c"])[1]
    assert note == "c: its clips have other subjects than in b; the bootstrap draws those of b"


def test_the_folder_of_several_seeds_says_which_can_be_compared(tmp_path):
    (tmp_path / "cv/seed-3").mkdir(parents=True)
    (tmp_path / "cv/seed-3/predictions.csv").touch()
    with pytest.raises(ViperError, match=r"for each seed; name one: .*seed-3$"):
        read_scored(str(tmp_path / "cv"))


def test_columns_are_matched_by_name():
    run = made(0.4)
    labels = LabelSet(("valence", "mood sad", "mood glad"), -1.0, 1.0, tasks=(LABELS.tasks[1], LABELS.tasks[0]))
    turned = replace(run, labels=labels, predicted=run.predicted[:, ::-1], true=run.true[:, ::-1])
    runs, _ = on_common_clips([run, turned], ["one", "two"])
    assert np.array_equal(runs[0].predicted, runs[1].predicted)


def test_other_clips_or_labels_are_refused_and_named():
    run = made(0.4)
    relabelled = run.true.copy()
    relabelled[[1, 7], 2] += 0.5
    other_set = predictions_of(np.zeros((2, 1)), np.zeros((2, 1)), LabelSet(("Joy",)))
    doubled = replace(run, keys=["0", *run.keys[:-1]])
    for other, message in (
        (replace(run, true=relabelled), r"b: 2 of 120 clips have other labels than in a: 1, 7;"),
        (replace(run, keys=[f"x{key}" for key in run.keys]), "a and b have no clip in common"),
        (other_set, "b: labels joy; a has"),
        (doubled, "b: 1 clip is in it twice"),
    ):
        with pytest.raises(ViperError, match=message):
            on_common_clips([run, other], ["a", "b"])


def write(folder, run: Predictions):
    folder.mkdir(parents=True)
    run.write_csv(folder / "predictions.csv")
    (folder / "metrics.json").write_text(json.dumps({"labels": run.labels.to_json()}))
    return folder


def test_few_subjects_are_told_beside_p():
    one, other = made(0.2), made(0.6, seed=1)
    many = compare([one, other], num_resamples=20)[0]
    assert many.num_drawn == len(set(one.subjects or one.keys))
    few = [replace(run, subjects=[str(i % 3) for i in range(len(run.keys))]) for run in (one, other)]
    note = comparison_note(compare(few, num_resamples=20)[0])
    assert note.endswith(
        "paired bootstrap over subjects (only 3: far too narrow, and p is smaller than it should be)"
    )
    clips = [replace(run, subjects=None) for run in (one, other)]
    assert comparison_note(compare(clips, num_resamples=20)[0]).endswith("bootstrap over clips")


def test_the_command_prints_and_writes_tables(tmp_path, capsys):
    good, bad = (
        write(tmp_path / "runs/good/eval", made(0.2)),
        write(tmp_path / "runs/50%_bad/eval", made(0.6, seed=1)),
    )
    out = tmp_path / "out"
    assert main(["compare", str(bad), str(good), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "good − 50%_bad" in shown
    assert "paired bootstrap over subjects" in " ".join(shown.split())
    record = json.loads((out / "comparison.json").read_text())
    assert record["tasks"]["valence"]["difference_from_50%_bad"]["good"]["mae"]["value"] < 0
    markdown = (out / "comparison.md").read_text()
    row = next(line for line in markdown.splitlines() if line.startswith("| good"))
    assert re.fullmatch(r"\| good( \| \*\*[\d.]+\*\*(\\\*)?)+ \|", row)
    latex = (out / "comparison.tex").read_text()
    assert r"\toprule" in latex
    assert r"50\%\_bad & " in latex
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == 2
    # A run that was evaluated into its own folder, and a table alone.
    assert main(["compare", str(bad.parent), str(good / "predictions.csv"), "--names", "A,B"]) == 0


def test_what_cannot_be_compared_is_said_in_one_line(tmp_path, capsys):
    good = write(tmp_path / "good", made(0.2))
    (tmp_path / "run/checkpoints/last").mkdir(parents=True)
    lone = tmp_path / "lone"
    lone.mkdir()
    (lone / "predictions.csv").write_bytes((good / "predictions.csv").read_bytes())
    for words, message in (
        ([str(good)], "only one run; name at least two"),
        ([str(good), str(good)], "named twice"),
        ([str(good), str(tmp_path / "none")], "none: no predictions.csv there"),
        ([str(good), str(tmp_path / "run")], "viper eval --checkpoint"),
        ([str(good), str(lone)], "metrics.json: missing"),
        ([str(good), str(lone), "--names", "A"], "give 2 different names"),
    ):
        assert main(["compare", *words]) == 1
        assert message in capsys.readouterr().err


def test_tables_of_an_earlier_version_are_read_where_they_say_enough(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    run = predictions_of([[0.5], [0.25]], [[0.5], [0.0]], LabelSet(("joy",)))
    run.write_csv(folder / "predictions.csv")
    (folder / "metrics.json").write_text(json.dumps({"pearson": {"joy": 0.5}}))
    assert read_scored(str(folder)).predicted.tolist() == [[0.5], [0.25]]
    (folder / "metrics.json").write_text(json.dumps({"pearson": {"joy": 0.5}, "tasks": {"mood": {}}}))
    with pytest.raises(ViperError, match="evaluate again"):
        read_scored(str(folder))


def test_names_are_the_shortest_that_differ():
    assert names_of(["a/run/eval", "b/run/eval"]) == ["a", "b"]
    assert names_of(["x/a", "x/b/c"]) == ["a", "c"]
    assert names_of(["x/a/m", "x/b/m", "y/a/m2"]) == ["a/m", "b/m", "a/m2"]


def test_what_papers_print_is_escaped_and_short():
    assert latex_text(r"a_b & 5% \x") == r"a\_b \& 5\% \textbackslash{}x"
    assert [p_value(p) for p in (0.0004, 0.0131, 0.5, float("nan"))] == ["< .001", "= .013", "= .500", "–"]
    run = made(0.4)
    (mood, _) = compare([run, run], num_resamples=20)
    assert "| a\\|b |" in comparison_markdown([mood], ["a|b", "c"])
    assert r"\uparrow" in comparison_latex([mood], ["a", "b"])
