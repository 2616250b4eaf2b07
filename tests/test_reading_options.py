"""How clips are read: every command has the same options, and each is heeded wherever a clip is opened."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
import torch
from support.media import make_clip

from viper_e2e.commands.cli import main
from viper_e2e.commands.parsing import parse_train
from viper_e2e.commands.reading_options import with_reading_options
from viper_e2e.config import DecodingConfig
from viper_e2e.config.presets import micro
from viper_e2e.config.shared_options import ReadingOptions
from viper_e2e.config.values import Size
from viper_e2e.decoding import ClipDecoder
from viper_e2e.errors import ClipError
from viper_e2e.model.viper import ViPER
from viper_e2e.packing import pack
from viper_e2e.tables import write_labels

GIVEN = ("--max-bytes", "8GB", "--max-side-in", "11008", "--max-seconds", "20000", "--video-track", "2")


def given(**options: object) -> ReadingOptions:
    names = ("max_bytes", "max_side_in", "max_seconds", "video_track", "audio_track")
    return ReadingOptions(**(dict.fromkeys(names) | options))


@pytest.mark.parametrize("command", ["infer", "eval", "ablate", "check", "train", "bench"])
def test_every_command_that_reads_clips_has_the_options(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = capsys.readouterr().out
    if command != "bench":
        assert all(option in told for option in GIVEN[::2])
    else:
        assert "viper train" in told


@pytest.mark.slow
@pytest.mark.parametrize("command", ["viper train", "viper bench"])
def test_training_takes_them_by_their_short_names(command):
    limits = parse_train(["--train-shards", "a.tar", "--run-dir", "r", *GIVEN], command).model.decoding.limits
    assert (limits.max_bytes, limits.max_bytes_in_memory) == (8 * 10**9, 8 * 10**9)
    assert (limits.max_width, limits.max_height, limits.max_pixels) == (11008, 11008, 11008**2)
    assert (limits.max_seconds, limits.max_frames) == (20_000, 2_400_000)


def test_what_is_not_given_stays():
    assert with_reading_options(DecodingConfig(), given()) == DecodingConfig()


def test_a_model_that_is_made_already_heeds_them(tiny_clip):
    model = ViPER(micro()).eval()
    model.decoder(tiny_clip())
    model.set_decoding(with_reading_options(model.config.decoding, given(max_side_in=95)))
    assert model.config.decoding.limits.max_width == 95
    with pytest.raises(ClipError, match=r"96×64; .* \(--max-side-in 96 allows more\)"):
        model.decoder(tiny_clip())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_bytes": Size(1000)}, r"limits.max_bytes allows 1,000 \(--max-bytes 1GB allows more\)"),
        ({"max_seconds": 0.9}, r"limits.max_seconds allows 1 \(--max-seconds 3 allows more\)"),
    ],
)
def test_the_error_names_the_option_that_allows_more(options, said, tiny_clip):
    config = with_reading_options(DecodingConfig(num_frames=2), given(**options))
    with pytest.raises(ClipError, match=said):
        ClipDecoder(config)(tiny_clip())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--max-bytes", "0"), "--max-bytes 0: give a number at least 1"),
        (("--max-side-in", "-1"), "--max-side-in -1: give a number at least 1"),
        (("--max-seconds", "inf"), "--max-seconds inf: give a number above 0"),
        (("--max-side-in", "much"), "--max-side-in much: give a whole number"),
        (("--max-bytes", "much"), "--max-bytes 'much' is not a size; write, for example, 2GB"),
    ],
)
def test_a_limit_that_is_none_is_refused(words, said, capsys):
    with suppress(SystemExit):
        main(["check", "--shards", "none.tar", *words])
    assert said in capsys.readouterr().err


def test_the_default_limits_let_8k_video_and_an_hour_of_4k_through():
    limits = DecodingConfig().limits
    for width, height in ((7680, 4320), (4320, 7680), (5312, 4648), (6016, 3384), (5120, 2880)):
        assert max(width, height) <= limits.max_width == limits.max_height
        assert width * height <= limits.max_pixels
    assert limits.max_bytes >= 400 * 10**9
    assert limits.max_seconds * limits.max_frames >= 3600 * 3600 * 240


def test_a_file_above_2_gib_is_read_by_path(tiny_clip):
    path = tiny_clip()
    with path.open("ab") as file:
        file.truncate(3 * 1024**3)
    assert len(ClipDecoder(DecodingConfig(num_frames=2))(path).frames) == 2


@pytest.mark.slow
def test_infer_and_check_heed_them(tmp_path, capsys):
    torch.manual_seed(0)
    ViPER(micro()).save_pretrained(tmp_path / "model")
    (tmp_path / "videos").mkdir()
    clip = make_clip(tmp_path / "videos" / "a.mp4", num_frames=4)
    write_labels(tmp_path / "labels.csv", [{"File_ID": "a", "Split": "train", "Joy": 0.5}])
    pack(tmp_path / "videos", tmp_path / "labels.csv", tmp_path / "shards")
    shard = tmp_path / "shards" / "train-000000.tar"
    words = (
        "--checkpoint",
        str(tmp_path / "model"),
        "--num-workers",
        "0",
        "--output",
        str(tmp_path / "o.json"),
    )
    assert main(["infer", str(clip), *words, "--max-side-in", "95"]) == 1
    assert "--max-side-in 96 allows more" in json.loads((tmp_path / "o.json").read_text())[0]["error"]
    assert main(["infer", str(shard), *words, "--max-bytes", "1kB"]) == 1
    assert "(see --max-bytes)" in json.loads((tmp_path / "o.json").read_text())[0]["error"]
    report = tmp_path / "check.json"
    assert main(["check", "--shards", str(shard), "--max-side-in", "95", "--output", str(report)]) == 2
    assert "--max-side-in 96 allows more" in json.loads(report.read_text())["clips"][0]["error"]
    capsys.readouterr()


def test_pack_takes_the_limit_of_a_file_too(tiny_clip, tmp_path, capsys):
    size = tiny_clip("videos/a.mp4").stat().st_size if (tmp_path / "videos").mkdir() is None else 0
    (tmp_path / "labels.csv").write_text("File_ID,Split,Joy\na,train,0.5\n")
    words = ["pack", "--videos", str(tmp_path / "videos"), "--labels", str(tmp_path / "labels.csv")]
    assert main([*words, "--out", str(tmp_path / "none"), "--max-bytes", "1kB"]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert f"has {size:,} bytes, at most 1,000 are packed (--max-bytes 1GB allows more" in told
    assert main([*words, "--out", str(tmp_path / "shards"), "--max-bytes", "1MB"]) == 0
