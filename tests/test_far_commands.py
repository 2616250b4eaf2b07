"""`--read ahead` and `--cache` in the commands."""

from __future__ import annotations

import json

from viper_e2e.commands.cli import main


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
