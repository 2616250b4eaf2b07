"""The command `viper`: what is wrong is one line with the file and the next step; exit codes mean something."""

from __future__ import annotations

import csv
import gc
import json
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from support.media import make_clip

from viper_e2e.commands.cli import COMMANDS, main
from viper_e2e.model.viper import ViPER
from viper_e2e.tables import write_labels


def infer(checkpoint: Path, *words: object) -> int:
    return main(["infer", *map(str, words), "--checkpoint", str(checkpoint), "--num-workers", "0"])


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) == 1, text
    return lines[0]


# --- the command itself ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_tells_its_options(command, capsys):
    with pytest.raises(SystemExit) as exit:
        main([command, "--help"])
    assert exit.value.code == 0
    told = capsys.readouterr().out
    assert f"usage: viper {command}" in told
    assert "--help" in told


def test_the_overview_names_every_command(capsys):
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"  {command} " in told for command in COMMANDS)


def test_an_unknown_command_is_told_the_nearest(capsys):
    assert main(["trian"]) == 1
    assert "did you mean train?" in one_line(capsys.readouterr().err)


def test_nothing_given_is_an_error_that_shows_the_commands(capsys):
    assert main([]) == 1
    assert "commands:" in capsys.readouterr().out


# --- clips that can't be read, and clips that must work ---------------------------------------------


def text(path: Path) -> None:
    path.write_text("this is no video")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n")


def cut(path: Path) -> None:
    data = make_clip(path).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def sound_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
        block.sample_rate = 16_000
        container.mux(stream.encode(block))
        container.mux(stream.encode(None))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (text, "is text, not a clip; name the video itself"),
        pytest.param(empty, "is empty; copy it again", marks=pytest.mark.campaign),
        (playlist, "is an HLS playlist, not a clip; convert it"),
        pytest.param(cut, "damaged or incomplete: copy it again", marks=pytest.mark.campaign),
        (sound_only, "holds only sound (mp4), no pictures; to score it with a black one: ffmpeg"),
    ],
)
def test_a_clip_that_cannot_be_read_says_why_and_the_others_go_on(tmp_path, checkpoint, make, told, capsys):
    make(tmp_path / "bad.mp4")
    make_clip(tmp_path / "good.mp4")
    out = tmp_path / "out.json"
    assert infer(checkpoint, tmp_path / "bad.mp4", tmp_path / "good.mp4", "--output", out) == 2
    bad, good = json.loads(out.read_text())
    assert not bad["valid"]
    assert bad["clip"].endswith("bad.mp4")
    assert told in bad["error"]
    assert "\n" not in bad["error"]
    assert good["valid"]
    assert good["error"] is None
    assert "not read" in capsys.readouterr().out


@pytest.mark.slow
def test_nothing_scored_is_exit_code_1(tmp_path, checkpoint):
    text(tmp_path / "bad.mp4")
    assert infer(checkpoint, tmp_path / "bad.mp4") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "present"),
    [
        ({"num_frames": 1}, True),
        pytest.param({"num_frames": 3}, True, marks=pytest.mark.campaign),
        pytest.param({"width": 64, "height": 64}, True, marks=pytest.mark.campaign),
        ({"sound": None}, False),
        pytest.param({"rate": 8_000}, True, marks=pytest.mark.campaign),
        ({"channels": 6, "rate": 48_000}, True),
    ],
    ids=["1 frame", "3 frames", "64x64", "no sound", "8 kHz mono", "5.1"],
)
def test_unusual_clips_work(tmp_path, checkpoint, options, present):
    make_clip(tmp_path / "clip.mp4", **options)
    out = tmp_path / "out.json"
    assert infer(checkpoint, tmp_path / "clip.mp4", "--output", out, "--faces") == 0
    (record,) = json.loads(out.read_text())
    assert record["present"] == {"visual": True, "audio": present}
    assert all(0 < value < 1 for value in record["intensities"].values())
    assert len(record["boxes"]) == min(4, options.get("num_frames", 30))


@pytest.mark.slow
def test_a_portrait_clip_that_is_stored_lying_is_scored_upright(tmp_path, checkpoint):
    lying = make_clip(tmp_path / "lying.mp4", sound=None)
    with av.open(str(lying)) as source, av.open(str(tmp_path / "portrait.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.dts is not None]
        for packet in packets:
            packet.stream = stream
            target.mux(packet)
    data = (tmp_path / "portrait.mp4").read_bytes()
    # The display matrix of the track: 90 degrees.
    upright = np.array([65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30], ">i4").tobytes()
    turned = np.array([0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    where = data.index(upright, data.index(b"tkhd"))
    (tmp_path / "portrait.mp4").write_bytes(data[:where] + turned + data[where + 36 :])
    out = tmp_path / "out.json"
    assert infer(checkpoint, tmp_path / "portrait.mp4", "--output", out, "--faces") == 0
    assert json.loads(out.read_text())[0]["boxes"] == [None] * 4
    model = ViPER.from_pretrained(checkpoint)
    frames = model.decoder(tmp_path / "portrait.mp4").frames
    assert frames.shape[1:3] == (96, 64)


@pytest.mark.slow
def test_a_folder_is_searched_and_windows_are_rows(drawn_plots, tmp_path, checkpoint):
    (tmp_path / "deep").mkdir()
    make_clip(tmp_path / "deep" / "clip.mkv", num_frames=45)
    out, plot = tmp_path / "out.csv", tmp_path / "plot.png"
    words = ("--window-seconds", 2, "--hop-seconds", 1, "--output", out, "--plot", plot)
    assert infer(checkpoint, tmp_path / "deep", *words) == 0
    rows = list(csv.DictReader(out.open()))
    assert [row["start_seconds"] for row in rows] == ["0", "1"]
    assert len(list(csv.DictReader((tmp_path / "out.summary.csv").open()))) == 1
    assert plot.stat().st_size > 5000


def test_a_folder_without_clips_is_one_line(tmp_path, checkpoint, capsys):
    assert infer(checkpoint, tmp_path) == 1
    assert f"{tmp_path}: no clip in this folder" in one_line(capsys.readouterr().err)


# --- shards, labels, checkpoints --------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path) -> Path:
    (tmp_path / "videos").mkdir()
    for name in "abc":
        make_clip(tmp_path / "videos" / f"{name}.mp4", num_frames=4)
    return tmp_path


def labels(folder: Path, rows: list[dict]) -> Path:
    write_labels(folder / "labels.csv", rows)
    return folder / "labels.csv"


def row(name: str, **changes: object) -> dict:
    return {"File_ID": f"[{name}]", "Split": "train", "Joy": 0.5, "Fear": 0.25} | changes


def pack(corpus: Path) -> int:
    words = ["--videos", corpus / "videos", "--labels", corpus / "labels.csv", "--out", corpus / "shards"]
    return main(["pack", *map(str, words)])


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([row("a"), row("nowhere")], "nowhere"),
        ([row("a"), row("b"), row("b")], "b"),
        ([row("a"), row("b", Joy="much")], "much"),
    ],
    ids=["missing file", "duplicate id", "not a number"],
)
def test_bad_rows_of_labels_are_listed_and_the_rest_is_packed(corpus, rows, told, capsys):
    labels(corpus, rows)
    assert pack(corpus) == 2
    said = capsys.readouterr().out
    assert told in said
    assert (corpus / "shards" / "train-000000.tar").stat().st_size > 0


def test_a_column_that_is_no_emotion_is_named(corpus, capsys):
    labels(corpus, [row("a", Mood="gloomy"), row("b", Mood="sunny")])
    assert pack(corpus) == 0
    assert "text, not used (line 2: 'gloomy')" in capsys.readouterr().out
    labels(corpus, [row("a", Episode=23), row("b", Episode=41)])
    assert pack(corpus) == 1
    assert one_line(capsys.readouterr().err).endswith("to continue, add --ignore Episode")


def test_a_shard_cut_in_the_middle_is_named(corpus, checkpoint, capsys):
    labels(corpus, [row(name) for name in "abc"])
    assert pack(corpus) == 0
    shard = corpus / "shards" / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:5000])
    assert infer(checkpoint, shard) in (1, 2)
    captured = capsys.readouterr()
    assert "train-000000.tar" in captured.out + captured.err


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "manifest.json"])
@pytest.mark.parametrize("harm", ["gone", "flipped"])
def test_a_checkpoint_with_a_missing_or_damaged_file_names_it(tmp_path, checkpoint, file, harm, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    if harm == "gone":
        (broken / file).unlink()
    else:
        data = bytearray((broken / file).read_bytes())
        data[len(data) // 2] ^= 0x20
        (broken / file).write_bytes(data)
    assert infer(broken, make_clip(tmp_path / "clip.mp4")) == 1
    assert file in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("module", ["viper_e2e", "viper_e2e.commands.cli"])
def test_python_dash_m_is_the_command(module):
    told, wrong = (
        subprocess.run([sys.executable, "-m", module, word], capture_output=True, text=True, check=False)
        for word in ("--version", "infr")
    )
    assert (told.returncode, told.stdout.split()[0]) == (0, "viper_e2e")
    assert (wrong.returncode, wrong.stderr) == (1, "viper: no command 'infr'; did you mean infer?\n")


def test_cycles_are_looked_for_again_however_a_command_ends(tmp_path, capsys):
    """While a command imports and loads its model, Python's collector waits."""
    assert main(["infer", str(tmp_path), "--checkpoint", str(tmp_path)]) == 1
    assert gc.isenabled()


@pytest.mark.parametrize("command", ["export", "import-published", "calibrate"])
def test_a_new_folder_is_refused_before_work_by_the_option_that_names_it(tmp_path, capsys, command):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "there").mkdir()
    option = "--to" if command == "calibrate" else "--out"
    given = {
        "export": ["--checkpoint=none"],
        "import-published": ["none.model"],
        "calibrate": ["--checkpoint=none", "--shards=none.tar"],
    }[command]
    for name, said in (("file/new", "cannot be created"), ("there", "already exists; name a new folder")):
        assert main([command, *given, f"{option}={tmp_path / name}"]) == 1
        told = one_line(capsys.readouterr().err)
        assert f"{option} {tmp_path / name}: " in told
        assert said in told
