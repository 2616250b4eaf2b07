"""Trackers: what they are given of a run, and that none of them can hold it up."""

import json
import multiprocessing
import os
import signal
import sqlite3

import pytest
from support.training_runs import make_corpus, run

from viper_e2e.config import Trackers
from viper_e2e.errors import ViperError
from viper_e2e.training import tracker_process
from viper_e2e.training.tracker_child import Start
from viper_e2e.training.tracker_process import TrackerProcess
from viper_e2e.training.trackers import PACKAGES, check_installed

RUN = """
import sys

class Run:
    id = name = "a"
    def log(self, values, step=None): {log}
    def finish(self): {finish}

class Config(dict):
    def update(self, values, allow_val_change): pass

config = Config()

def init(**given): {begin}
"""
"""A package `trackio` as accelerate uses it, with what it does written in."""


@pytest.fixture
def trackio(tmp_path, monkeypatch):
    """Puts a package of this name and behaviour before the real one, also for processes that are started."""

    def put(begin="return Run()", log="pass", finish="pass"):
        (tmp_path / "packages").mkdir()
        (tmp_path / "packages" / "trackio.py").write_text(RUN.format(begin=begin, log=log, finish=finish))
        monkeypatch.syspath_prepend(tmp_path / "packages")

    return put


def start(folder, *, resume=False):
    return Start("project", "run", folder / "trackers", resume)


def test_trackers_are_read_in_any_order_and_none_is_none():
    assert Trackers.parse("mlflow, tensorboard").names == ("tensorboard", "mlflow")
    assert str(Trackers.parse("mlflow,tensorboard")) == "tensorboard,mlflow"
    assert not Trackers.parse("none")
    with pytest.raises(ViperError, match="did you mean trackio"):
        Trackers.parse("trakio")


@pytest.mark.parametrize("name", PACKAGES)
def test_a_tracker_that_is_not_installed_is_refused_before_work(monkeypatch, name):
    monkeypatch.setattr("viper_e2e.training.trackers.find_spec", lambda name: None)
    with pytest.raises(ViperError, match=f"pip install {PACKAGES[name]}"):
        check_installed(Trackers((name,)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ({"begin": "raise RuntimeError('no such server')"}, "RuntimeError: no such server"),
        pytest.param({"finish": "raise KeyError('lost')"}, "KeyError: 'lost'", marks=pytest.mark.campaign),
        pytest.param({"log": "import os; os._exit(3)"}, "ended with exit code 3", marks=pytest.mark.campaign),
    ],
)
def test_a_tracker_that_fails_is_told_once_and_never_raises(tmp_path, trackio, behaviour, said):
    trackio(**behaviour)
    told = []
    tracker = TrackerProcess("trackio", start(tmp_path), told.append)
    for step in range(3):
        tracker.numbers({"loss": 1.0}, step)
    tracker.close()
    (line,) = told
    assert said in line
    assert "trackio.log" in line


@pytest.mark.campaign
@pytest.mark.slow
def test_a_tracker_that_hangs_holds_up_nothing(tmp_path, trackio, monkeypatch):
    trackio(log="import time; time.sleep(1000)")
    monkeypatch.setattr(tracker_process, "END_SECONDS", 0.1)
    monkeypatch.setattr(tracker_process, "MAX_WAITING", 50)
    told = []
    tracker = TrackerProcess("trackio", start(tmp_path), told.append)
    for step in range(100_000):  # more than its pipe and its queue hold
        tracker.numbers({f"loss {i}": 1.0 for i in range(20)}, step)
        if told:
            break
    tracker.close()
    (line,) = told
    assert "messages behind" in line


@pytest.mark.campaign
@pytest.mark.slow
def test_a_signal_to_the_whole_group_does_not_end_a_tracker(tmp_path, trackio):
    trackio(log="open(sys.path[0] + '/seen', 'a').write(str(step))")
    told = []
    tracker = TrackerProcess("trackio", start(tmp_path), told.append)
    tracker.numbers({"loss": 1.0}, 1)
    (child,) = (child for child in multiprocessing.active_children() if child.name == "trackio")
    while not (tmp_path / "packages" / "seen").exists():
        assert child.is_alive()
    os.kill(child.pid, signal.SIGTERM)
    os.kill(child.pid, signal.SIGINT)
    tracker.numbers({"loss": 1.0}, 2)
    tracker.close()
    assert (tmp_path / "packages" / "seen").read_text() == "12"
    assert not told


@pytest.mark.campaign
def test_trackio_and_mlflow_show_a_run_and_go_on_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    corpus, folder = make_corpus(tmp_path / "corpus"), tmp_path / "run"
    words = [f"--val-shards={corpus}/shards/val-*.tar", "--batch-size=4", "--log-with=trackio,mlflow"]
    run(corpus, folder, *words, "--epochs=1")
    run(corpus, folder, *words, "--epochs=2", "--resume")
    assert not (folder / "tensorboard").exists()
    losses = [json.loads(line)["train_loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]

    with sqlite3.connect(tmp_path / "trackio" / "viper_e2e.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by step").fetchall()
    numbers = [json.loads(metrics) for _, _, metrics in rows]
    logged = [record["train_loss"] for record in numbers if "train_loss" in record]
    assert {name for name, _, _ in rows} == {f"{tmp_path.name}/run"}
    assert logged == pytest.approx(losses)

    import mlflow

    (found,) = mlflow.search_runs(experiment_names=["viper_e2e"], output_format="list")
    assert found.info.run_name == f"{tmp_path.name}/run"
    assert found.info.status == "FINISHED"
    history = mlflow.MlflowClient().get_metric_history(found.info.run_id, "train_loss")
    assert [point.value for point in history] == pytest.approx(losses)
    assert found.data.params["model.fusion.dim"]
    assert found.data.params["batch_size"] == "4"
    assert "curves.png" in str(list((tmp_path / "mlruns").rglob("*.png")))


@pytest.mark.slow
def test_a_run_says_so_and_goes_on_without_a_tracker_that_fails(tmp_path, trackio, capfd):
    trackio(begin="raise RuntimeError('no such server')")
    corpus = make_corpus(tmp_path / "corpus", num_train=2, num_val=0)
    run(corpus, tmp_path / "run", "--epochs=1", "--batch-size=2", "--log-with=trackio")
    said = " ".join(capfd.readouterr().err.split())
    assert "trackio no longer receives this run: RuntimeError: no such server" in said
    assert (tmp_path / "run" / "checkpoints" / "last").exists()
