"""What people name: whatever it is called and wherever it lies, it is scored once, or told."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.http_server import serving
from support.media import make_clip
from support.odd_names import ODD_NAMES
from support.optional import package
from support.tars import record, write_foreign

from viper_e2e.commands.cli import main
from viper_e2e.errors import ViperError
from viper_e2e.runtime import likely_path
from viper_e2e.scoring.sources import find_inputs
from viper_e2e.scoring.tabular import write_records


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> bytes:
    return make_clip(tmp_path_factory.mktemp("clip") / "a.mp4", num_frames=4).read_bytes()


def infer(checkpoint: Path, *words: object) -> int:
    return main(["infer", *map(str, words), "--checkpoint", str(checkpoint), "--num-workers", "0"])


# --- folders ----------------------------------------------------------------------------------------


def test_a_folder_is_searched_for_everything_that_can_be_read(tmp_path, clip):
    words = "a.mp4 b.MOV c.m4v d.3gp e.MTS f.ogv g.Mkv h.webm i.wmv j.MPG k.vob l.m2ts m.mpeg n.qt o.f4v"
    names = words.split()
    deep = tmp_path / "x.mp4" / "deep"
    deep.mkdir(parents=True)
    for name in names:
        (deep / name).write_bytes(clip)
    for name in ("._a.mp4", ".hidden.mp4", "Thumbs.db", "notes.txt", "readme", "code.ts", "song.ogg"):
        (deep / name).write_text("nothing")
    (deep / "broken.mp4").symlink_to("nowhere.mp4")
    listening = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(deep)  # a socket's path has at most 108 bytes
    listening.bind("socket.mp4")
    os.chdir(here)
    found = find_inputs([str(tmp_path)])
    listening.close()
    assert [path.name for path in found.sources[0].paths] == sorted(names)
    told = " ".join(found.notes)
    assert "5 files do not have the extension of a clip" in told
    assert all(kind in told for kind in ("1 .db", "1 .txt", "1 without an ending", "1 .ts", "1 .ogg"))
    assert "broken.mp4 (a broken link)" in told
    assert "socket.mp4 (a socket)" in told
    assert "._a.mp4" not in told
    assert not found.closed


def test_linked_folders_are_followed_once_and_loops_end(tmp_path, clip):
    (tmp_path / "videos").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(clip)
    (tmp_path / "elsewhere" / "b.mp4").write_bytes(clip)
    (tmp_path / "videos" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "videos" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "videos")
    (paths,) = [source.paths for source in find_inputs([str(tmp_path / "videos")]).sources]
    assert sorted(path.name for path in paths) == ["a.mp4", "b.mp4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may enter every folder")
def test_a_closed_folder_is_a_problem_of_its_own(tmp_path, clip):
    (tmp_path / "a.mp4").write_bytes(clip)
    (tmp_path / "closed").mkdir(mode=0)
    found = find_inputs([str(tmp_path)])
    assert len(found.sources[0]) == 1
    assert "closed: cannot be searched (Permission denied)" in found.closed[0]


@pytest.mark.slow
def test_a_file_that_may_not_be_looked_at_fails_alone(tmp_path, checkpoint, clip, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(clip)
    (tmp_path / "b.mp4").write_bytes(clip)
    stat = Path.stat

    def refused(path: Path, **how: bool) -> os.stat_result:
        if path.name == "b.mp4":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **how)

    monkeypatch.setattr(Path, "stat", refused)
    out = tmp_path / "o.json"
    assert infer(checkpoint, tmp_path / "a.mp4", tmp_path / "b.mp4", "--output", out) == 2
    good, bad = json.loads(out.read_text())
    assert good["valid"]
    assert bad["error"] == "cannot be read (Permission denied)"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("vidoes", "no such file or folder; did you mean videos?"),
        ("videos/a.mov", "no such file or folder; did you mean videos/a.mp4?"),
        ("nothing*.mp4", "no such file or folder"),
    ],
)
def test_a_mistyped_name_is_told_before_the_model_is_loaded(given, said, tmp_path, clip, monkeypatch, capsys):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(clip)
    monkeypatch.chdir(tmp_path)
    assert infer(tmp_path / "no model", given) == 1
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_one_mistyped_name_among_others_is_one_failed_clip(tmp_path, checkpoint, clip, capsys):
    (tmp_path / "a.mp4").write_bytes(clip)
    assert infer(checkpoint, tmp_path / "a.mp4", tmp_path / "b.mp4") == 2
    assert "no such file" in capsys.readouterr().err


# --- names ------------------------------------------------------------------------------------------

HIDDEN = ["..mp4"]


@pytest.fixture(scope="module")
def scored(tmp_path_factory, checkpoint) -> Path:
    """Records of clips with all these names."""
    if sys.platform != "linux":
        pytest.skip("other systems refuse some of these names")
    folder = tmp_path_factory.mktemp("odd") / "clips [1]"
    folder.mkdir()
    clip = make_clip(folder.parent / "one.mp4", num_frames=1, sound=None).read_bytes()
    for name in ODD_NAMES:
        (folder / name).write_bytes(clip)
    out = folder.parent / "o.json"
    assert infer(checkpoint, folder, "--output", out) == 0
    return out


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
def test_every_odd_name_is_scored_and_told(suffix, tmp_path, scored):
    out = scored
    if suffix != ".json":
        out = tmp_path / f"o{suffix}"
        write_records(json.loads(scored.read_text(encoding="utf-8")), out)
    if suffix == ".csv":
        told = [row["clip"] for row in csv.DictReader(out.open(encoding="utf-8-sig", newline=""))]
    elif suffix == ".parquet":
        parquet = package("pyarrow.parquet")
        told = parquet.read_table(out).column("clip").to_pylist()
    else:
        text = out.read_text(encoding="utf-8")
        records = json.loads(text) if suffix == ".json" else [json.loads(line) for line in text.splitlines()]
        told = [record["clip"] for record in records]
    names = {name for name in ODD_NAMES if name not in HIDDEN}
    names = names - {os.fsdecode(b"caf\xe9.mp4")} | {"caf\\xe9.mp4"}
    assert set(told) == {f"{scored.parent}/clips [1]/{name}" for name in names}


@pytest.mark.parametrize("name", [name for name in ODD_NAMES if "\n" not in name])
def test_every_odd_name_is_found_when_it_is_named(name, tmp_path, clip, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(clip)
    Path("other1.mp4").write_bytes(clip)
    (source,) = find_inputs([f"./{name}" if name.startswith("-") else name]).sources
    assert [path.name for path in source.paths] == [name]
    assert source.read(0).video == source.paths[0]


def test_a_pattern_is_one_where_no_such_file_is(tmp_path, clip, monkeypatch):
    folder = tmp_path / "takes [1]"
    folder.mkdir()
    for name in ("a1.mp4", "a2.mp4", "b1.mp4"):
        (folder / name).write_bytes(clip)
    monkeypatch.chdir(tmp_path)
    (source,) = find_inputs(["takes [1]/a*.mp4"]).sources
    assert [path.name for path in source.paths] == ["a1.mp4", "a2.mp4"]


@pytest.mark.parametrize("pattern", ["s [1]/train-*.tar", "s [1]/train-{0..1}.tar", "s [1]/train-[0-1].tar"])
def test_shards_in_a_folder_with_brackets_are_found(pattern, tmp_path, monkeypatch):
    folder = tmp_path / "s [1]"
    folder.mkdir()
    for n in range(2):
        write_foreign(folder / f"train-{n}.tar", [(f"{n}.mp4", b"a"), (f"{n}.json", record(n))])
    monkeypatch.chdir(tmp_path)
    (source,) = find_inputs([pattern]).sources
    assert len(source) == 2


# --- shards -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("command", ["infer", "eval"])
def test_samples_left_out_of_a_foreign_shard_are_named_and_cost_the_exit_code(
    command, tmp_path, checkpoint, clip, capsys
):
    bad = b'{"intensities": {"adoration": '
    members = [("a.mp4", clip), ("b.mp4", clip), ("c.mp4", clip), ("c.json", bad)]
    shard = write_foreign(tmp_path / "a.tar", members)
    if command == "infer":
        assert infer(checkpoint, shard) == 2
    else:
        words = ["--shards", str(shard), "--out", str(tmp_path / "out"), "--num-workers", "0"]
        assert main(["eval", "--checkpoint", str(checkpoint), *words]) == 2
    assert "sample 'c' left out" in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_a_shard_without_a_usable_sample_says_why(tmp_path, checkpoint, capsys):
    shard = write_foreign(tmp_path / "a.tar", [("v1.0_clip.mp4", b"a")])
    assert infer(checkpoint, shard) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "nothing to score" in told
    assert "a name ends at its first dot" in told


# --- addresses --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("windows", [(), ("--window-seconds", "1")])
def test_a_clip_behind_an_address_is_scored(windows, tmp_path, checkpoint, clip):
    with serving(lambda handler: handler.ranged(clip) or True) as server:
        url = f"{server.url}/clip.mp4?signature=secret"
        out = tmp_path / "o.json"
        assert infer(checkpoint, url, *windows, "--output", out) == 0
    records = json.loads(out.read_text())
    assert records[-1]["clip"] == f"{server.url}/clip.mp4"
    assert records[-1]["valid"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "said"),
    [(404, "nothing is there (HTTP 404)"), (403, "HTTP 403 (Forbidden)"), (401, "HTTP 401: needs a login")],
)
def test_an_address_where_no_clip_is_fails_alone(status, said, tmp_path, checkpoint, clip):
    (tmp_path / "a.mp4").write_bytes(clip)
    with serving(lambda handler: handler.say(status)) as server:
        out = tmp_path / "o.json"
        assert infer(checkpoint, f"{server.url}/clip.mp4", tmp_path / "a.mp4", "--output", out) == 2
    assert said in json.loads(out.read_text())[0]["error"]


@pytest.mark.slow
def test_an_address_is_not_fetched_beyond_the_limit(tmp_path, checkpoint, clip):
    with serving(lambda handler: handler.ranged(clip) or True) as server:
        out = tmp_path / "o.json"
        words = (f"{server.url}/clip.mp4", "--max-bytes", "1kB", "--output", out)
        assert infer(checkpoint, *words) == 1
        assert all(asked["Range"] == "bytes=0-0" for asked in server.asked)
    assert "at most 1,000 are allowed" in json.loads(out.read_text())[0]["error"]


@pytest.mark.parametrize("address", ["http://example.org/a.mp4", "file:///etc/passwd"])
def test_other_schemes_are_refused_at_once(address):
    with pytest.raises(ViperError, match="is refused"):
        find_inputs([address])


# --- terminals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "surroundings",
    [
        pytest.param({"PYTHONIOENCODING": "ascii"}, id="ascii", marks=pytest.mark.campaign),
        pytest.param(
            {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "POSIX"},
            id="posix",
            marks=pytest.mark.campaign,
        ),
    ],
)
def test_a_terminal_that_is_not_utf8_shows_what_it_can(surroundings, tmp_path, checkpoint):
    make_clip(tmp_path / "Zoë.mp4", num_frames=1, sound=None)
    words = ["infer", str(tmp_path), "--checkpoint", str(checkpoint), "--num-workers", "0"]
    code = f"import sys; from viper_e2e.commands.cli import main; sys.exit(main({words!r}))"
    environment = {**os.environ, **surroundings, "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    assert b"##" in done.stdout


@pytest.mark.parametrize(
    ("missing", "near"),
    [("nothere.mp4", None), ("tvo_r.mp4", "two_r.mp4"), ("two_r.mov", "two_r.mp4")],
)
def test_a_name_is_likely_by_its_stem_and_not_by_its_ending(tmp_path, missing, near):
    for name in ("two_r.mp4", "two_r.srt", "speech.mp4"):
        (tmp_path / name).touch()
    assert likely_path(str(tmp_path / missing)) == (near and str(tmp_path / near))
    assert likely_path(str(tmp_path / "nowhere" / missing)) is None
