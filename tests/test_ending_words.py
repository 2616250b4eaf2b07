"""test_ending_words.py: a run ends by saying where its model is and what to do next, as it can be typed."""

from __future__ import annotations

import shlex
from dataclasses import replace
from types import SimpleNamespace

import pytest

from viper_e2e.commands.packing import tell_next
from viper_e2e.config import TrainConfig
from viper_e2e.experiments.closing_lines import finished_lines, seeds_lines, stopped_line
from viper_e2e.labels import HUME_REACTION
from viper_e2e.packing import PackReport, SplitReport
from viper_e2e.runtime import TellOnce, console, table


def run(folder, best: dict[str, float], val_shards: str | None = "val-{0..3}.tar") -> SimpleNamespace:
    parts = SimpleNamespace(
        config=TrainConfig(val_shards=val_shards),
        saver=SimpleNamespace(has_last=lambda _: True),
        folder=SimpleNamespace(last=folder / "checkpoints/last", best=folder / "checkpoints/best", path=folder),
        processes=SimpleNamespace(count=1),
        validation=SimpleNamespace(judged_by="mean Pearson"),
    )
    return SimpleNamespace(run=parts, state=SimpleNamespace(best=best, step=120), total_steps=600)


@pytest.fixture
def unchecked(monkeypatch):
    """The same functions, also where annotations are checked."""
    return lambda function: getattr(function, "__wrapped__", function)


def test_a_finished_run_names_its_best_model_and_the_next_command(tmp_path, unchecked):
    made = run(tmp_path / "my run", {"best": 0.87661})
    first, following = unchecked(finished_lines)(made, is_alone=True).splitlines()
    assert unchecked(finished_lines)(made, is_alone=False) == first
    assert first == f"best model: {tmp_path / 'my run/checkpoints/best'} (validation, mean Pearson 0.8766)"
    words = shlex.split(following.removeprefix("next: "))
    assert words[:3] == ["viper", "eval", "--checkpoint"]
    assert words[3] == str(tmp_path / "my run/checkpoints/best")
    assert words[4:6] == ["--shards", "val-{0..3}.tar"]


def test_an_error_that_chose_the_best_model_has_its_own_sign(tmp_path, unchecked):
    made = run(tmp_path, {"best": -0.5867})
    made.run.validation.judged_by = "valence.rmse"
    assert "(validation, valence.rmse 0.5867)" in unchecked(finished_lines)(made, is_alone=True)


def test_where_pearson_is_undefined_the_best_model_is_named_by_its_error(tmp_path, unchecked):
    made = run(tmp_path, {"best_mse": -0.0123})
    first, following = unchecked(finished_lines)(made, is_alone=True).splitlines()
    best = tmp_path / "checkpoints/best"
    assert first == f"best model: {best} (validation, MSE 0.0123; mean Pearson is undefined)"
    assert following.startswith(f"next: viper eval --checkpoint {best} ")


def test_a_model_that_clips_of_training_chose_is_named(tmp_path, unchecked):
    made = run(tmp_path, {"best": 0.5}, None)
    made.run.config = replace(made.run.config, inner_val=0.1)
    first, following = unchecked(finished_lines)(made, is_alone=True).splitlines()
    assert first.startswith(f"best model: {tmp_path / 'checkpoints/best'}")
    assert following == f"next: viper infer CLIP --checkpoint {tmp_path / 'checkpoints/best'}"


def test_a_run_without_validation_names_what_it_has(tmp_path, unchecked):
    told = unchecked(finished_lines)(run(tmp_path, {}, None), is_alone=True)
    assert told.startswith(f"trained model: {tmp_path / 'checkpoints/last'}\nnext: viper infer CLIP")


@pytest.mark.parametrize("given", [["--run-dir", "a b", "--lr", "1"], ["--run-dir", "a b", "--resume"]])
def test_a_stopped_run_says_what_is_saved_and_how_it_goes_on(tmp_path, unchecked, given):
    told, again = unchecked(stopped_line)(run(tmp_path, {}), ["viper", "train", *given]).splitlines()
    assert told.startswith(
        f"stopped after step 120 of 600; saved in {tmp_path / 'checkpoints/last'}; continue with"
    )
    assert shlex.split(again) == ["viper", "train", *[w for w in given if w != "--resume"], "--resume"]


def test_seeds_end_with_the_best_of_them_and_the_next_command(tmp_path):
    first, following = seeds_lines(tmp_path, {"best": 3}, 2, "val-*.tar").splitlines()
    model = tmp_path / "seed-3/checkpoints/best"
    assert first == f"best in validation: seed 3, {model}"
    words = ["viper", "eval", "--checkpoint", str(model), "--shards", "val-*.tar"]
    assert shlex.split(following.removeprefix("next: "))[:6] == words
    told = seeds_lines(tmp_path, {"seeds": []}, 2, None)
    assert told == f"next: viper infer CLIP --checkpoint {tmp_path / 'seed-2/checkpoints/last'}"


def test_what_trainings_of_a_command_have_in_common_is_told_once(capsys):
    told, changed = TellOnce(), table("model", ("branch",), [("audio",)])
    for made in (
        table("model", ("branch",), [("visual",)]),
        table("model", ("branch",), [("visual",)]),
        changed,
    ):
        told.table(made)
        told.problems(["one is odd", "another [is] odd"])
        told.line("a note")
    said = capsys.readouterr().err
    assert [said.count(word) for word in ("visual", "audio", "[is] odd", "a note")] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("splits", "is_dry", "told"),
    [
        (("train", "val"), False, ["check", "train --train-shards 'o/train-*.tar' --val-shards 'o/val-*.tar'"]),
        (("train", "test"), False, ["check", "train --train-shards 'o/train-*.tar' --inner-val 0.1"]),
        (("test",), False, ["check"]),
        (("train",), True, []),
    ],
)
def test_packing_ends_with_the_commands_that_go_on_with_its_shards(capsys, splits, is_dry, told):
    found = tuple(SplitReport(name, clips=2, unlabelled=0, subjects=2, shards=1, bytes=9) for name in splits)
    tell_next(PackReport("o", HUME_REACTION, found, (), (), is_dry=is_dry))
    lines = capsys.readouterr().err.splitlines()
    if is_dry:
        assert lines == ["next: the same command without --dry-run"]
    assert len(lines) == max(1, len(told))
    assert all(line.startswith(f"next: viper {words}") for line, words in zip(lines, told, strict=False))


def test_names_in_square_brackets_stand_in_tables_as_they_are(capsys):
    console.print(table("of [a]", ("[b]", "clips"), [("[joy]", 1), ("", "")]))
    said = capsys.readouterr().err
    assert all(name in said for name in ("of [a]", "[b]", "[joy]"))
