"""`viper sweep --optuna`: what is tried next depends on what came out, and on nothing that a kill takes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
from support.counted_work import interrupt_steps
from support.killed_sweeps import swept_with_kills
from support.optional import package
from support.training_runs import arguments, same, validated_arguments, weights

from viper_e2e.commands.cli import main
from viper_e2e.errors import ViperError
from viper_e2e.experiments.axes import Axis, drawn
from viper_e2e.experiments.proposals import Proposals
from viper_e2e.experiments.trial_row import TrialRow

RATE, DROPOUT = Axis("lr", (), 1e-5, 1e-1, is_log=True), Axis("model.fusion.dropout", (), 0.0, 0.5)
LATENTS = Axis("model.fusion.num_latents", (), 2.0, 16.0, is_whole=True)
HEAD = Axis("model.fusion.kind", ("tokens", "ensemble"))
OWN = ("--optuna=3", "--range", "lr=log:1e-4..1e-1", "fusion.dropout=0..0.5", "fusion.num_latents=2,4")


@pytest.fixture(autouse=True)
def optuna():
    return package("optuna")


def swept(proposals, score, rows=()):
    rows = list(rows)
    while len(rows) < proposals.num_trials:
        settings = proposals(rows)
        rows.append(TrialRow(f"trial-{len(rows) + 1}", settings, score=score(settings)))
    return rows


def of_rate(settings):
    """Best at 1e-3, and better with fewer latents."""
    rate, latents = float(settings["lr"]), int(settings["model.fusion.num_latents"])
    return -((math.log10(rate) + 3) ** 2) - latents / 100


def test_what_is_proposed_lies_in_its_range_and_comes_nearer_to_the_best():
    rows = swept(Proposals([RATE, DROPOUT, LATENTS, HEAD], 24, seed=1), of_rate)
    for row in rows:
        assert 1e-5 <= float(row.settings["lr"]) <= 1e-1
        assert 0 <= float(row.settings["model.fusion.dropout"]) <= 0.5
        assert 2 <= int(row.settings["model.fusion.num_latents"]) <= 16
        assert row.settings["model.fusion.kind"] in HEAD.choices
    scores = [row.score for row in rows]
    assert sum(scores[12:]) / 12 > sum(scores[:8]) / 8


def test_from_the_rows_so_far_it_goes_on_as_it_went():
    proposals = Proposals([RATE, LATENTS], 9, seed=3)
    whole = swept(proposals, of_rate)
    read = [TrialRow.from_json(json.loads(json.dumps(row.to_json()))) for row in whole]
    for count in (0, 1, 5, 8):
        assert swept(Proposals([RATE, LATENTS], 9, seed=3), of_rate, read[:count]) == whole
    assert swept(Proposals([RATE, LATENTS], 9, seed=4), of_rate) != whole


def test_nothing_is_tried_twice_and_what_has_no_score_is_not_sought_again():
    axes = [HEAD, Axis("model.fusion.num_latents", (), 1.0, 3.0, is_whole=True)]
    tried = [row.settings for row in swept(Proposals(axes, 6, seed=0), lambda settings: 1.0)]
    assert len({json.dumps(settings) for settings in tried}) == 6
    rows = swept(Proposals([RATE], 8, seed=0), lambda s: None if float(s["lr"]) > 1e-2 else of_rate_alone(s))
    assert any(row.score is None for row in rows)


def test_more_trials_begin_with_the_same_ones():
    few, many = Proposals([RATE, LATENTS], 6, seed=3), Proposals([RATE, LATENTS], 14, seed=3)
    assert swept(many, of_rate)[:6] == swept(few, of_rate)


def test_optuna_is_told_what_failed_and_that_is_no_score(optuna, monkeypatch):
    rows = swept(Proposals([RATE], 8, seed=0), of_rate_alone)
    rows[2] = replace(rows[2], score=None, failed="step 3: not finite")
    studies, create = [], optuna.create_study
    monkeypatch.setattr(optuna, "create_study", lambda **how: studies.append(create(**how)) or studies[-1])
    assert Proposals([RATE], 9, seed=0)(rows)
    told = [trial.state.name for trial in studies[0].trials[: len(rows)]]
    assert told == ["COMPLETE"] * 2 + ["FAIL"] + ["COMPLETE"] * 5


def of_rate_alone(settings):
    return -((math.log10(float(settings["lr"])) + 3) ** 2)


def test_more_trials_than_combinations_are_refused():
    with pytest.raises(ViperError, match=r"--optuna 3: these ranges have 2 combinations; --grid tries each"):
        Proposals([HEAD], 3, seed=0)
    with pytest.raises(ViperError, match=r"--random 3: these ranges have 2 combinations"):
        drawn([HEAD], 3, seed=0)
    assert sorted(trial["model.fusion.kind"] for trial in drawn([HEAD], 2, seed=0)) == ["ensemble", "tokens"]


def test_rounded_numbers_stay_in_their_range():
    narrow = Axis("lr", (), 0.123456, 0.123457)
    for value in (0.123456, 0.1234565, 0.123457):
        assert narrow.low <= float(narrow.written(value)) <= narrow.high
    assert RATE.written(0.00123456) == "0.001235"
    assert LATENTS.read(LATENTS.written(7)) == 7


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--optuna=2",), "need --range"),
        (("--optuna=2", "--random=2", "--range=lr=1..2"), "name what to try: either --grid"),
        (("--optuna=2", "--range=fusion.dropout=0..7", "--val-shards=x"), "--model.fusion.dropout 7"),
        (("--optuna=2", "--range=lr=1..2"), "--val-shards is missing"),
        (("--optuna=9", "--range=loss=mse,ccc"), "2 combinations"),
    ],
)
def test_what_cannot_be_proposed_is_refused_before_work_begins(corpus, tmp_path, capsys, more, said):
    assert main(["sweep", *arguments(corpus, tmp_path / "sweep", *more)]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_without_optuna_its_installation_is_named(monkeypatch, corpus, tmp_path, capsys):
    monkeypatch.setattr("viper_e2e.experiments.proposals.find_spec", lambda name: None)
    assert main(["sweep", *arguments(corpus, tmp_path / "sweep", *OWN)]) == 1
    err = capsys.readouterr().err
    assert err == "viper sweep: --optuna: optuna is not installed; pip install 'optuna>=4'\n"


@pytest.mark.slow
def test_it_is_imported_by_those_who_ask_for_it_alone():
    modules = "viper_e2e.experiments.proposals, viper_e2e.commands.sweeping"
    code = f"import sys, {modules}; print('optuna' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout == "False\n"


@pytest.mark.campaign
def test_a_sweep_stopped_in_its_middle_ends_with_the_same_table(corpus, vit, tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    own = (*OWN, "--epochs=1", "--save-every-steps=1")
    assert main(["sweep", *validated_arguments(corpus, vit, whole, *own)]) == 0
    told = json.loads((whole / "sweep.json").read_text())
    assert told["plan"]["trials"] == [row["settings"] for row in told["trials"]]
    assert {path.name for path in whole.iterdir()} == {
        *("checkpoints", "config.yaml", "data.json", "sweep.json", "sweep.png"),
        *(f"trial-{number}" for number in range(1, 4)),
    }
    interrupt_steps(monkeypatch, {4})
    assert main(["sweep", *validated_arguments(corpus, vit, stopped, *own)]) == 130
    rows = json.loads((stopped / "sweep.json").read_text())
    assert (len(rows["trials"]), len(rows["plan"]["trials"])) == (1, 2)
    assert main(["sweep", f"--run-dir={stopped}", "--resume"]) == 0
    assert (whole / "sweep.json").read_text() == (stopped / "sweep.json").read_text()
    assert same(weights(whole, "best"), weights(stopped, "best"))
    # Its record lost: what was trained is found again.
    (stopped / "sweep.json").unlink()
    assert main(["sweep", *validated_arguments(corpus, vit, stopped, *own), "--resume"]) == 0
    assert (whole / "sweep.json").read_text() == (stopped / "sweep.json").read_text()


@pytest.mark.campaign
@pytest.mark.survival
def test_thirty_kills_leave_the_table_as_it_would_have_been(corpus, vit, tmp_path, fork_server):
    own = ("--epochs=2", "--save-every-steps=1", *OWN)

    def command(folder):
        return ["sweep", *validated_arguments(corpus, vit, folder, *own)]

    for killed in swept_with_kills(fork_server, command, tmp_path, kills=30, seed=6):
        assert (killed / "sweep.json").read_text() == (tmp_path / "whole" / "sweep.json").read_text()
        assert same(weights(killed, "best"), weights(tmp_path / "whole", "best"))
