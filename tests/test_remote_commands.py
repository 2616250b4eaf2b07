"""`--read ahead` and `--cache` in the commands: what they end in is what it is from local disk, bit for bit."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from support.remote_shards import ShardServer, cut_short, serving_shards
from support.training_runs import lines, same, weights

from viper_e2e.commands.cli import main
from viper_e2e.loading import read_ahead
from viper_e2e.shards import remote, stores, whole_shards

FILES = ("eval/predictions.csv", "eval/metrics.json", "records.json", "check.json")


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """No waits, and a login to the store that is here."""
    monkeypatch.setattr(remote, "RETRY_SECONDS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(read_ahead, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(whole_shards, "PIECE_BYTES", 4000)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    stores.forget_logins()
    yield
    stores.forget_logins()


def fail_often(shard_server: ShardServer) -> None:
    """Every third answer: a 503, a body that is cut, or a connection closed without a word."""
    count = itertools.count()

    def fault(handler, data: bytes, first: int, last: int) -> bool:
        number = next(count)
        if number % 3 != 1:
            return False
        if number % 9 == 1:
            return handler.say(503)
        if number % 9 == 4:
            return cut_short(handler, data, first, last, after=(last - first) // 2)
        handler.close_connection = True
        return True

    shard_server.fault = fault


def run_commands(place: str, out: Path, *words: str) -> dict[str, str]:
    """What training, two ways to score and a check leave behind, without where shards and results lie."""
    train, val, model = f"{place}/train-000000.tar", f"{place}/val-000000.tar", f"{out}/run/checkpoints/last"
    how = [f"--train-shards={train}", f"--val-shards={val}", f"--run-dir={out}/run", "--num-workers=0"]
    assert main(["train", "--preset=micro", "--epochs=1", "--batch-size=4", "--lr=0.01", *how, *words]) == 0
    scoring = [f"--checkpoint={model}", "--num-workers=0", *words]
    assert main(["eval", f"--shards={val}", f"--out={out}/eval", *scoring]) == 0
    assert main(["infer", val, f"--output={out}/records.json", *scoring]) == 0
    checking = ["--num-workers=1", f"--output={out}/check.json", *words]
    assert main(["check", f"--shards={train}", *checking]) == 0
    return {name: (out / name).read_text().replace(place, "SHARDS").replace(str(out), "OUT") for name in FILES}


@pytest.mark.slow
def test_commands_that_read_whole_shards_of_a_store_in_trouble_end_as_from_disk(
    corpus, tmp_path, monkeypatch, capsys
):
    folder = corpus / "shards"
    local = run_commands(str(folder), tmp_path / "disk")
    for way, words in {
        "ahead": ["--read=ahead"],
        "cache": [f"--cache={tmp_path}/kept", "--read-ahead-memory=1KB"],
    }.items():
        with serving_shards(folder) as shard_server:
            monkeypatch.setenv("AWS_ENDPOINT_URL", shard_server.url)
            stores.forget_logins()
            fail_often(shard_server)
            capsys.readouterr()
            found = run_commands("s3://corpus", tmp_path / way, *words)
            assert "shards fetched whole" in " ".join(capsys.readouterr().err.split())
            assert shard_server.whole()
        assert found == local
        assert lines(tmp_path / way / "run", "skipped.jsonl") == []
        assert lines(tmp_path / way / "run", "metrics.jsonl") == lines(
            tmp_path / "disk" / "run", "metrics.jsonl"
        )
        assert same(weights(tmp_path / way / "run"), weights(tmp_path / "disk" / "run"))
    originals = {path.read_bytes() for path in folder.glob("*.tar")}
    kept = {path.read_bytes() for path in (tmp_path / "kept").glob("*.tar")}
    assert kept
    assert kept <= originals


def test_a_command_whose_shards_are_all_on_disk_says_that_reading_them_whole_has_no_effect(
    corpus, tmp_path, capsys
):
    for words, given in (
        (["--read=ahead"], "--read ahead"),
        ([f"--cache={tmp_path}/kept"], "--cache"),
        (["--read=ahead", f"--cache={tmp_path}/kept"], "--read ahead, --cache"),
    ):
        shards = str(corpus / "shards" / "val-*.tar")
        assert (
            main(["check", f"--shards={shards}", "--num-workers=0", f"--output={tmp_path}/check.json", *words])
            == 0
        )
        said = " ".join(capsys.readouterr().err.split())
        assert said.count(f"{given}: no effect, as no shard is on a server or in a store") == 1
        assert not (tmp_path / "kept").exists()
        assert json.loads((tmp_path / "check.json").read_text())["clips"]
