"""`viper index`: shards of other programs get the index that ours have, and nothing is lost by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.http_server import serving
from support.tars import write_foreign

from viper_e2e.commands.cli import main
from viper_e2e.shards import ShardError, ShardSet, index_path

MEMBERS = [
    ("a.mp4", b"a" * 900),
    ("a.json", json.dumps({"intensities": {"Joy": 0.5, "Fear": 2.0}, "subject": "s"}).encode()),
    ("b/c.mp4", b"b" * 700),
    ("b/c.wav", b"w" * 100),
]


def test_an_index_says_what_walking_the_shard_says(tmp_path, capsys):
    shard = str(write_foreign(tmp_path / "train-000000.tar", MEMBERS))
    before = ShardSet(shard)
    assert main(["index", shard]) == 0
    after = ShardSet(shard)
    assert Path(index_path(shard)).is_file()
    assert (after.labels, after.shards[0].split) == (before.labels, before.shards[0].split)
    for i in range(2):
        assert after.read(i) == before.read(i)
        assert all(member.sha256 for member in after.entry(i).members.values())
    assert main(["index", shard]) == 0
    assert "is there already" in capsys.readouterr().err


def test_bytes_that_change_after_the_index_was_made_are_found(tmp_path):
    shard = write_foreign(tmp_path / "train-000000.tar", MEMBERS)
    assert main(["index", str(shard)]) == 0
    data = bytearray(shard.read_bytes())
    data[data.index(b"aaaa")] = 0
    shard.write_bytes(data)
    with pytest.raises(Exception, match="does not match the sha256"):
        ShardSet(str(shard)).read(0)


def test_a_shard_with_faults_gets_no_index_that_would_hide_them(tmp_path, capsys):
    good = write_foreign(tmp_path / "good-000000.tar", MEMBERS)
    odd = write_foreign(tmp_path / "odd-000000.tar", [*MEMBERS, ("d.mp4", b"d"), ("d.mov", b"d")])
    torn = tmp_path / "torn-000000.tar"
    torn.write_bytes(good.read_bytes()[:2000])
    assert main(["index", str(tmp_path / "*.tar")]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "sample 'd' left out: has 2 videos" in told
    assert "incomplete; copy or pack it again" in told
    assert [Path(index_path(str(path))).is_file() for path in (good, odd, torn)] == [True, False, False]


def test_shards_at_an_address_get_their_indexes_in_a_folder(tmp_path, capsys):
    shard = write_foreign(tmp_path / "train-000000.tar", MEMBERS)

    def behave(handler) -> bool:
        name = handler.path.partition("?")[0]
        return handler.say(404) if name != "/train-000000.tar" else handler.ranged(shard.read_bytes()) or True

    with serving(behave) as server:
        address = f"{server.url}/train-000000.tar?signature=secret"
        assert main(["index", address]) == 1
        assert "add --out FOLDER" in capsys.readouterr().err
        assert main(["index", address, f"--out={tmp_path / 'out'}"]) == 0
    index = tmp_path / "out/train-000000.index.json"
    assert "secret" not in index.read_text()
    index.rename(tmp_path / index.name)
    assert ShardSet(str(shard)).read(1).sound == b"w" * 100


def test_a_damaged_index_is_made_anew_when_asked_to_be(tmp_path):
    shard = str(write_foreign(tmp_path / "train-000000.tar", MEMBERS))
    Path(index_path(shard)).write_text("{")
    with pytest.raises(ShardError, match="not valid JSON"):
        ShardSet(shard)
    assert main(["index", shard, "--overwrite"]) == 0
    assert len(ShardSet(shard)) == 2


@pytest.mark.parametrize(
    ("value", "name"), [("1.0", "1"), ("1", "1"), ("1.5", "1.5"), ("NaN", None), ('""', None)]
)
def test_a_subject_that_is_a_number_in_the_json_is_who_a_table_calls_so(tmp_path, value, name):
    record = ("a.json", b'{"intensities": {"Joy": 0.5}, "subject": %s}' % value.encode())
    shard = write_foreign(tmp_path / "train-000000.tar", [MEMBERS[0], record])
    assert ShardSet(str(shard)).entry(0).subject == name
