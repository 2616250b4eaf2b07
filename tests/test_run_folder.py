"""A run folder belongs to one living process, and is never overwritten by accident."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from viper_e2e.errors import ViperError
from viper_e2e.runtime.outfiles import write_text
from viper_e2e.training.data_record import write_data
from viper_e2e.training.run_folder import RunFolder, check_goes_on

HOLD = """
import sys
from pathlib import Path
from viper_e2e.training.run_folder import RunFolder
run = RunFolder(Path(sys.argv[1]), resume=False)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path):
    run = RunFolder(tmp_path / "run", resume=False)
    run.write_settings({"lr": 0.1})
    run.release()
    with pytest.raises(ViperError, match="--resume"):
        RunFolder(tmp_path / "run", resume=False)
    RunFolder(tmp_path / "run", resume=True).release()


@pytest.mark.parametrize("inside", ["", "run"])
def test_a_file_where_the_folder_should_be_is_told_with_the_option(tmp_path, inside):
    (tmp_path / "file").write_text("a letter")
    with pytest.raises(ViperError, match=r"--run-dir .*file.*: is not a folder and cannot be created"):
        RunFolder(tmp_path / "file" / inside, resume=False)


def test_resuming_where_nothing_is_tells_so(tmp_path):
    with pytest.raises(ViperError, match="nothing to resume"):
        RunFolder(tmp_path / "run", resume=True)


def test_a_second_process_is_stopped_and_told_the_first_and_a_dead_ones_lock_is_free(tmp_path):
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert first.stdout.readline() == "held\n"
        with pytest.raises(ViperError, match=f"process {first.pid} on"):
            RunFolder(tmp_path / "run", resume=False)
    finally:
        first.kill()
        first.communicate()
    RunFolder(tmp_path / "run", resume=False).release()


def test_further_processes_of_a_run_take_no_lock(tmp_path):
    owner = RunFolder(tmp_path / "run", resume=False)
    helper = RunFolder(tmp_path / "run", resume=False, owner=False)
    helper.log("skipped.jsonl", {"key": "a"})
    owner.log("skipped.jsonl", {"key": "b"})
    lines = (tmp_path / "run" / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["a", "b"]
    owner.release()


def test_settings_and_versions_are_written(tmp_path):
    run = RunFolder(tmp_path / "run", resume=False)
    run.write_settings({"lr": 0.1, "model": {"modalities": ["visual"]}})
    assert yaml.safe_load((run.path / "config.yaml").read_text())["model"] == {"modalities": ["visual"]}
    assert json.loads((run.path / "versions.json").read_text())["torch"].startswith("2.")
    run.release()


def test_a_log_of_an_earlier_version_is_judged_as_its_settings_say(tmp_path):
    run = RunFolder(tmp_path / "run", resume=False)
    assert run.read_metrics().best is None
    run.write_settings({"best_by": "valence.rmse"})
    scores = {"mean_pearson": 0.5, "tasks": {"valence": {"kind": "number", "rmse": 0.25}}, "best_by": -0.25}
    run.log("metrics.jsonl", {"epoch": 0, "step": 1, "train_loss": 0.1, "val": scores})
    judged = run.read_metrics().best.scores.judgement
    assert (judged.measure, judged.value) == ("valence.rmse", 0.25)


class Killed(BaseException):
    """What no handler of the package catches, as none survives ``kill -9``."""


@pytest.mark.parametrize("name", ["config.yaml", "versions.json", "data.json", "metrics.jsonl"])
def test_a_kill_while_a_file_is_written_anew_leaves_what_was_there(tmp_path, monkeypatch, name):
    run = RunFolder(tmp_path / "run", resume=False)
    run.log("metrics.jsonl", {"epoch": 1})

    def write() -> None:
        run.write_settings({"lr": 0.1})
        write_data(run.path, {"labels": ["joy"]})
        run.rewind("metrics.jsonl", lambda record: True)

    write()
    before = (run.path / name).read_bytes()
    whole = Path.write_text

    def cut_short(path: Path, text: str, **how: str) -> int:
        if name.partition(".")[0] not in path.name:
            return whole(path, text, **how)
        path.write_bytes(b"")
        raise Killed

    monkeypatch.setattr(Path, "write_text", cut_short)
    with pytest.raises(Killed):
        write()
    assert before
    assert (run.path / name).read_bytes() == before


def test_what_a_kill_left_half_written_is_gone_when_the_run_goes_on(tmp_path):
    run = RunFolder(tmp_path / "run", resume=False)
    run.write_settings({"lr": 0.1})
    run.release()
    (run.path / ".config.4711.partial.yaml").write_text("lr: 0.")
    RunFolder(run.path, resume=True).release()
    assert not list(run.path.glob(".*"))


def test_a_record_behind_half_a_line_stands_on_a_line_of_its_own(tmp_path, capsys):
    run = RunFolder(tmp_path / "run", resume=False)
    run.log("metrics.jsonl", {"epoch": 0})
    with (run.path / "metrics.jsonl").open("a") as lines:
        lines.write('{"epoch": 1, "ste')  # a full disk, or a kill
    run.log("metrics.jsonl", {"epoch": 2})
    run.log("metrics.jsonl", {"epoch": 3})
    assert [record["epoch"] for record in run.read_log("metrics.jsonl")] == [0, 2, 3]
    run.read_log("metrics.jsonl")
    assert capsys.readouterr().err == f"{run.path / 'metrics.jsonl'}: 1 line is damaged and left out\n"
    run.release()


@pytest.mark.parametrize("damage", [b"\0" * 40 + b"\n", b"[]\n", b"\xff\xfe\n", b"nonsense\n"], ids=repr)
def test_a_damaged_line_of_a_log_costs_itself_alone_and_is_told(damage, tmp_path, capsys):
    run = RunFolder(tmp_path / "run", resume=False)
    run.log("skipped.jsonl", {"epoch": 0})
    with (run.path / "skipped.jsonl").open("ab") as lines:
        lines.write(damage)
    run.log("skipped.jsonl", {"epoch": 1})
    run.rewind("skipped.jsonl", lambda record: record["epoch"] <= 1)
    assert "1 line is damaged and left out" in capsys.readouterr().err
    assert run.read_log("skipped.jsonl") == [{"epoch": 0}, {"epoch": 1}]
    run.release()


def test_who_reads_a_file_while_it_is_replaced_reads_the_old_one_to_its_end(tmp_path):
    path = tmp_path / "scores.json"
    write_text(path, "old " * 100_000)  # more than is read at once
    with path.open() as reader:
        assert reader.read(4) == "old "
        write_text(path, "new")
        assert reader.read() == "old " * 99_999
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("file", "began"),
    [("sweep.json", "sweep"), ("retrained.json", "ablate --retrain"), ("folds.json", "cv"), ("lock", "train")],
)
def test_a_folder_goes_on_by_the_command_that_began_it_alone(tmp_path, file, began):
    check_goes_on(tmp_path, "train")  # nothing was begun
    (tmp_path / file).touch()
    (tmp_path / "config.yaml").touch()
    check_goes_on(tmp_path, began)
    for other in {"sweep", "ablate --retrain", "cv", "train"} - {began}:
        with pytest.raises(ViperError, match=f"viper {began}; continue it with viper {began} --resume"):
            check_goes_on(tmp_path, other)
