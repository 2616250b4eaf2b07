"""test_progress.py: a long command is never silent, and a narrow terminal keeps what matters."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from viper_e2e.commands import cli
from viper_e2e.commands.cli import Command
from viper_e2e.runtime import progress
from viper_e2e.runtime.progress import ProgressBar, clock, counting, waiting


def drawn(width: int, note: str = "loss 0.8102", details: str = "") -> str:
    """The bar as it last stands on a terminal of this width."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    bar = ProgressBar(console)
    task = bar.add_task("training", total=12345, completed=1000)
    bar.tasks[0].fields["begun_at"] -= 100.0
    bar.update(task, completed=1234, note=note, details=details)
    return next(line for line in _lines(bar, console) if "training" in line)


def _lines(bar: ProgressBar, console: Console) -> list[str]:
    with console.capture() as captured:
        console.print(bar.get_renderable())
    return captured.get().splitlines()


DETAILS = "0.7 clips/s · waiting 4% · detection 86% · audio 5% · fusion 2% · cached 120"


@pytest.mark.parametrize("width", [80, 110, 160])
def test_a_terminal_shows_bar_count_loss_and_remaining_before_anything_else(width):
    line = drawn(width, details=DETAILS)
    assert len(line.rstrip()) <= width
    assert "training ━" in line
    assert "1234/12345" in line
    assert "loss 0.8102" in line
    assert any(part.count(":") and part.replace(":", "").isdigit() for part in line.split())
    assert "…" not in line
    assert "0.7 clips/s" in line
    assert ("cached 120" in line) == (width == 160)


def test_without_a_terminal_there_is_a_line_now_and_then_even_if_nothing_moves(monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.05)
    console = Console(file=io.StringIO(), width=80)
    with ProgressBar(console) as bar:
        task = bar.add_task("scoring", total=60)
        time.sleep(0.12)
        bar.update(task, advance=20, note="b.mp4")
        time.sleep(0.12)
        bar.update(task, completed=60)
    lines = console.file.getvalue().splitlines()
    assert lines[0].startswith("scoring 0/60 · 0:00 so far")
    assert any(line.startswith("scoring 20/60 · ") and "left · b.mp4" in line for line in lines)
    assert lines[-1].startswith("scoring 60/60 · ")
    assert len(lines) <= 8


def test_what_is_short_or_silent_says_nothing(monkeypatch):
    console = Console(file=io.StringIO(), width=80)
    with ProgressBar(console) as bar:
        bar.update(bar.add_task("scoring", total=2), completed=2)
    assert console.file.getvalue() == ""
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.02)
    with ProgressBar(console, is_silent=True) as bar, waiting("loading", console, is_silent=True):
        bar.add_task("scoring", total=2)
        time.sleep(0.08)
    assert console.file.getvalue() == ""


def test_what_cannot_be_counted_is_named_apart(monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.03)
    console = Console(file=io.StringIO(), width=80)
    with waiting("loading the model", console):
        time.sleep(0.1)
    assert console.file.getvalue().startswith("loading the model · 0:00 so far\n")


def test_what_an_earlier_run_did_does_not_count_for_the_rate():
    console = Console(file=io.StringIO(), width=80)
    with ProgressBar(console) as bar:
        task = bar.add_task("scoring", total=100, completed=90)
        bar.tasks[0].fields["begun_at"] -= 10.0
        bar.update(task, advance=5)
        line = progress.line_of(bar.tasks[0])
    assert line.startswith("scoring 95/100 · 2.0 s each · 0:10 left")


def test_counting_ends_with_the_count(capsys):
    with counting("packing") as tell:
        tell(3, 3)
    assert capsys.readouterr().err.startswith("packing 3/3 · 0:00")


def test_clock():
    assert [clock(seconds) for seconds in (0.0, 59.6, 3725.0)] == ["0:00", "1:00", "1:02:05"]


# --- stopping ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (
            ["infer", "my clip.mp4", "--output", "a.csv"],
            "by the same command: viper infer 'my clip.mp4' --output a.csv",
        ),
        (["infer", "clip.mp4"], "nothing was saved; with --output"),
        (["eval", "--out", "e"], "score the rest by the same command: viper eval --out e"),
        (["pack", "--out", "o"], "nothing was written; start again with: viper pack --out o"),
        (["check", "--shards", "*.tar"], "start again with: viper check --shards '*.tar'"),
    ],
)
def test_ctrl_c_says_what_is_kept_and_how_to_go_on(monkeypatch, capsys, argv, told):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Command, "run", interrupted)
    assert cli.main(argv) == 130
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--run-dir", "RUN"], ["--run_dir=RUN", "--resume"]])
def test_a_training_that_has_begun_is_resumed_after_a_signal_between_its_stages(
    tmp_path, monkeypatch, capsys, words
):
    words = [word.replace("RUN", str(tmp_path)) for word in words]
    monkeypatch.setattr(Command, "run", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert cli.main(["train", *words]) == 143
    assert f"training had not started; start it with: viper train {words[0]}" in capsys.readouterr().err
    (tmp_path / "config.yaml").touch()
    assert cli.main(["train", *words]) == 143
    again = " ".join(["viper train", *words, *([] if "--resume" in words else ["--resume"])])
    assert capsys.readouterr().err.endswith(f"what was saved is kept; continue with: {again}\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_pack_that_is_told_to_stop_leaves_nothing(tmp_path, name):
    number = getattr(signal, name)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mp4").write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(1000))
    (tmp_path / "labels.csv").write_text("File_ID,Split,Joy\na,train,0.5\n")
    words = ["pack", "--videos", "videos", "--labels", "labels.csv", "--out", "out"]
    code = (
        "import sys, time; from viper_e2e.shards import ShardWriter\n"
        "ShardWriter.add = lambda *given, **named: (print('packing', flush=True), time.sleep(60))\n"
        f"from viper_e2e.commands.cli import main; sys.exit(main({words!r}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
    )
    assert process.stdout.readline() == "packing\n"
    assert list((tmp_path / "out").glob(".packing-*"))
    process.send_signal(number)
    told = process.communicate(timeout=30)[1]
    assert process.returncode == 128 + number
    assert "nothing was written" in told
    assert list((tmp_path / "out").iterdir()) == []
