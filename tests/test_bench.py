"""`viper bench` measures every stage on the user's shards and names what limits them; it writes nothing."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from support.media import make_clip

from viper_e2e.commands.bench import Speeds, advice
from viper_e2e.commands.cli import main
from viper_e2e.config.presets import micro
from viper_e2e.labels import LabelSet
from viper_e2e.model.stages import StageClock
from viper_e2e.model.viper import ViPER
from viper_e2e.shards import ShardWriter

SPEEDS = Speeds(
    read=1000.0,
    loaded=10.0,
    computed=40.0,
    trained=9.0,
    waiting=0.7,
    shares={"visual": 0.6, "detection": 0.3, "crops, backward, optimizer": 0.1},
    num_workers=2,
    num_cores=16,
    frozen=True,
    is_half=False,
    backboned=frozenset({"visual"}),
)


@pytest.mark.slow
def test_the_command_measures_and_writes_nothing(tmp_path, capfd, monkeypatch):
    clip = make_clip(tmp_path / "clip.mp4", num_frames=8, fps=8).read_bytes()
    (tmp_path / "shards").mkdir()
    with ShardWriter(tmp_path / "shards", "some", None, shard_size=10**8) as writer:
        for i in range(3):
            writer.add(f"{i}", {"mp4": clip}, file_id=str(i))
        writer.add("bad", {"mp4": b"not a clip"}, file_id="bad")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    words = ["--preset=micro", "--num-workers=0", "--batch-size=2", "--seconds=0.4"]
    assert main(["bench", f"--shards={tmp_path}/shards/some-*.tar", *words]) == 0
    told = capfd.readouterr().err
    for word in (
        "read from shards",
        "decoded in this process",
        "training from shards",
        "detection",
        "fusion",
        "limited by",
        "1 clip could not be used: bad; `viper check --shards …` says why",
    ):
        assert word in told
    assert sorted(tmp_path.rglob("*")) == before


def test_shards_without_a_readable_clip_are_named(tmp_path, capfd):
    with ShardWriter(tmp_path, "bad", None, shard_size=10**8) as writer:
        writer.add("0", {"mp4": b"not a clip"}, file_id="0")
    words = ["--preset=micro", "--num-workers=0", "--seconds=0.1"]
    assert main(["bench", f"--shards={tmp_path}/bad-*.tar", *words]) == 1
    assert "viper check" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "--num-workers 8"),
        ({"computed": 200.0}, "--num-workers 16"),
        ({"num_workers": 16}, "all 16 cores"),
        ({"read": 12.0}, "limited by reading"),
        ({"waiting": 0.01}, "--mixed-precision auto"),
        ({"waiting": 0.01}, "limited by computing, most of all by visual (60%)"),
        ({"waiting": 0.01, "shares": {"detection": 0.9}}, "--model.faces.detect-seconds"),
        ({"waiting": 0.01, "frozen": False, "is_half": True}, "--unfreeze"),
        ({"waiting": 0.01, "num_workers": 16}, "--num-workers 15"),
    ],
)
def test_what_limits_is_named_with_the_setting_to_change(changes, expected):
    assert expected in "\n".join(advice(replace(SPEEDS, **changes)))


def test_waiting_at_the_start_of_short_epochs_is_told_from_slow_decoding():
    lines = advice(replace(SPEEDS, loaded=80.0, waiting=0.4))
    assert "measure on more clips" in lines[0]
    assert lines[1].startswith("limited by computing")
    assert "measure on more clips" not in "\n".join(advice(replace(SPEEDS, loaded=80.0, waiting=0.01)))


def test_clips_are_only_cached_where_all_encoders_are_frozen():
    frozen, trained = (advice(replace(SPEEDS, frozen=value)) for value in (True, False))
    assert "--reuse-memory" in "\n".join(frozen)
    assert "--reuse-memory" not in "\n".join(trained)


def test_the_clock_counts_every_stage_until_it_is_closed(tiny_clip):
    model = ViPER(micro()).eval()
    clock = StageClock(model)
    with torch.no_grad():
        model([tiny_clip()])
    assert set(clock.seconds) == {"detection", "visual", "audio", "fusion"}
    assert all(seconds > 0 for seconds in clock.seconds.values())
    counted = dict(clock.seconds)
    clock.close()
    with torch.no_grad():
        model([tiny_clip()])
    assert clock.seconds == counted


@pytest.mark.slow
def test_training_tells_its_speed_and_where_its_time_goes(tmp_path, capfd):
    clip = make_clip(tmp_path / "clip.mp4", num_frames=8, fps=8).read_bytes()
    labels = LabelSet(("Joy", "Fear"))
    with ShardWriter(tmp_path, "train", labels, shard_size=10**8) as writer:
        for i in range(2):
            writer.add(f"{i}", {"mp4": clip}, file_id=str(i), intensities=(0.5 * i, 1.0))
    words = ["--preset=micro", "--num-workers=0", "--batch-size=2", "--epochs=1", f"--run-dir={tmp_path}/run"]
    assert main(["train", f"--train-shards={tmp_path}/train-*.tar", *words]) == 0
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "clips/s" in line]
    for word in ("waiting", "detection", "visual", "audio", "fusion"):
        assert re.search(rf"\b{word} \d+%", line), line
