"""test_recipes.py: each recipe turns a tiny copy of its corpus's layout into shards."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from viper_e2e.commands import recipe_options
from viper_e2e.config import RecipeOptions, Size
from viper_e2e.labels import HUME_REACTION
from viper_e2e.shards import ShardSet

DATASETS = Path(__file__).resolve().parent.parent / "datasets"
MP4 = b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(500)
FLV = b"FLV\x01\x05\0\0\0\x09" + bytes(500)
WAV = b"RIFF\x24\0\0\0WAVEfmt " + bytes(100)
SEVEN = ",".join(HUME_REACTION.columns)


def put(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


@pytest.fixture
def recipe(script):
    """Runs a recipe on a corpus; its exit code and what it printed."""

    def run(name: str, corpus: Path, out: Path, *more: str) -> tuple[int, str]:
        return script(name, "--corpus", corpus, "--out", out, *more)

    return run


def samples(out: Path) -> dict[str, tuple[str, str | None, dict[str, float] | None]]:
    """key → (split, subject, intensities that are not zero)."""
    shards = ShardSet(str(out / "*.tar"))
    found = {}
    for n in range(len(shards)):
        entry, split = shards.entry(n), shards.shard_of(n).split
        values = entry.intensities and dict(zip(shards.labels.names, entry.intensities, strict=True))
        found[entry.key] = (split, entry.subject, values and {k: v for k, v in values.items() if v})
    return found


def test_ravdess(tmp_path, recipe):
    corpus = tmp_path / "RAVDESS"
    for name in (
        "Actor_01/01-01-06-02-02-01-01.mp4",  # strong fear
        "Actor_01/02-01-06-02-02-01-01.mp4",  # the same without sound: left aside
        "Actor_18/01-01-01-01-01-02-18.mp4",  # neutral
        "Actor_23/01-02-03-01-01-01-23.mp4",  # happy, sung
        "Actor_24/01-01-08-01-01-01-24.mp4",
        "Actor_24/notes.mp4",
    ):
        put(corpus / name, MP4)
    code, text = recipe("ravdess", corpus, tmp_path / "out")
    assert code == 0, text
    assert samples(tmp_path / "out") == {
        "01-01-06-02-02-01-01": ("train", "01", {"fearful": 1.0}),
        "01-01-01-01-01-02-18": ("val", "18", {"neutral": 0.5}),
        "01-01-08-01-01-01-24": ("test", "24", {"surprised": 0.5}),
    }
    assert recipe("ravdess", corpus, tmp_path / "both", "--channels", "speech,song")[0] == 0
    assert samples(tmp_path / "both")["01-02-03-01-01-01-23"] == ("test", "23", {"happy": 0.5})
    code, text = recipe("ravdess", corpus, tmp_path / "no", "--channels", "whisper")
    assert (code, text) == (1, "error: --channels whisper: allowed are speech, song\n")


def test_crema_d(tmp_path, recipe):
    for name in ("1001_DFA_ANG_XX", "1008_IEO_HAP_HI", "1009_IEO_SAD_LO", "1040_ITH_SAD_X", "1091_TIE_NEU_XX"):
        put(tmp_path / "CREMA-D/VideoFlash" / f"{name}.flv", FLV)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    put(tmp_path / "CREMA-D/VideoFlash/1002_DFA_DIS_XX.flv", pointer)
    code, text = recipe("crema_d", tmp_path / "CREMA-D", tmp_path / "out")
    assert code == 2, text
    assert "left out: 1002_DFA_DIS_XX" in text
    assert samples(tmp_path / "out") == {
        "1001_DFA_ANG_XX": ("train", "1001", {"anger": 0.5}),
        "1008_IEO_HAP_HI": ("val", "1008", {"happy": 0.8}),
        "1009_IEO_SAD_LO": ("test", "1009", {"sad": 0.2}),
        "1040_ITH_SAD_X": ("train", "1040", {"sad": 0.5}),
        "1091_TIE_NEU_XX": ("train", "1091", {"neutral": 0.5}),
    }


def test_hume_reaction_from_the_baselines_folders(tmp_path, recipe):
    corpus = tmp_path / "c2_muse_reaction"
    put(
        corpus / "labels.csv",
        f"File_ID,{SEVEN}\n[00001],1,0,0,0,0,0,0.5\n[00002],0,1,0,0,0,0,0\n[00003],,,,,,,\n",
    )
    put(
        corpus / "partition.csv",
        "File_ID,Partition\n[00001],train\n[00002],devel\n[00003],test\n[00004],test\n",
    )
    for n in range(1, 5):
        put(corpus / f"raw/{n:05d}.mp4", MP4)
        put(corpus / f"wav/{n:05d}.wav", WAV)
    code, text = recipe("hume_reaction", corpus, tmp_path / "out")
    assert code == 0, text
    assert samples(tmp_path / "out") == {
        "00001": ("train", None, {"adoration": 1.0, "surprise": 0.5}),
        "00002": ("val", None, {"amusement": 1.0}),
        "00003": ("test", None, None),
        "00004": ("test", None, None),
    }
    shards = ShardSet(str(tmp_path / "out/*.tar"))
    assert shards.labels == HUME_REACTION
    assert shards.read(0).file_id.startswith("[0000")
    assert shards.read(0).sound == WAV


def test_hume_reaction_from_one_table(tmp_path, recipe):
    put(
        tmp_path / "c/data_info.csv", f"File_ID,Split,{SEVEN}\n[7],Train,1,0,0,0,0,0,0\n[8],Val,0,0,0,0,1,0,0\n"
    )
    for n in (7, 8):
        put(tmp_path / f"c/mp4/{n}.mp4", MP4)
    code, text = recipe("hume_reaction", tmp_path / "c", tmp_path / "out")
    assert code == 0, text
    assert samples(tmp_path / "out") == {
        "7": ("train", None, {"adoration": 1.0}),
        "8": ("val", None, {"empathic_pain": 1.0}),
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "labels.csv: cannot be read"),
        ({"data_info.csv": "File_ID,Split,Joy\n1,Train,1\n"}, "data_info.csv: no column 'Adoration'"),
        ({"data_info.csv": f"File_ID,Split,{SEVEN}\n1,Rest,1,0,0,0,0,0,0\n"}, "split 'Rest' of '1'"),
        ({"data_info.csv": f"File_ID,Split,{SEVEN}\n1,Val,1,0,0,0,0,0,0\n"}, "nothing to pack"),
    ],
)
def test_a_corpus_that_is_not_there_is_one_line(tmp_path, recipe, files, message):
    (tmp_path / "c").mkdir()
    for name, text in files.items():
        put(tmp_path / "c" / name, text)
    code, text = recipe("hume_reaction", tmp_path / "c", tmp_path / "out")
    assert code == 1
    assert message in text
    assert "Traceback" not in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ravdess", "crema_d", "hume_reaction"])
def test_recipes_run_by_path_from_anywhere(tmp_path, name):
    command = [sys.executable, str(DATASETS / f"{name}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "--corpus" in done.stdout


@pytest.mark.parametrize("name", ["ravdess", "crema_d"])
def test_splits_are_by_actor_and_never_empty(name, monkeypatch):
    monkeypatch.syspath_prepend(str(DATASETS))
    split_of = runpy.run_path(str(DATASETS / f"{name}.py"))["split_of"]
    actors = range(1, 25) if name == "ravdess" else range(1001, 1092)
    splits = [split_of(actor) for actor in actors]
    assert min(splits.count(split) for split in ("train", "val", "test")) >= 4
    assert splits.count("train") > len(splits) / 2


def test_the_folder_is_no_package():
    assert not (DATASETS / "__init__.py").exists()  # it would hide Hugging Face's `datasets`


def test_a_wrong_option_of_a_recipe_is_one_line(tmp_path, monkeypatch, capsys):
    given = ["ravdess.py", "--corpus", str(tmp_path), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*given, "--shard-size", "1MB"])
    assert recipe_options(RecipeOptions).shard_size == Size(10**6)
    monkeypatch.setattr(sys, "argv", [*given, "--shard-size", "much"])
    with pytest.raises(SystemExit) as ended:
        recipe_options(RecipeOptions)
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(
        "ravdess.py: --shard-size 'much' is not a size; write, for example, 2GB"
    )
