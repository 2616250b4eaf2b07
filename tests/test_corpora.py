"""test_corpora.py: recipes of facts: what a made-up tree of each corpus comes to, up to its measure."""

from __future__ import annotations

import csv
import dataclasses
import json
import runpy
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from viper_e2e.commands.cli import main
from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import ClipDecoder
from viper_e2e.errors import ViperError
from viper_e2e.packing.recipe import Corpus, corpus_rows
from viper_e2e.packing.recipe_sources import Names, Table
from viper_e2e.shards import ShardSet
from viper_e2e.tables.task_columns import TaskColumns

ROOT = Path(__file__).resolve().parent.parent
DATASETS = ROOT / "datasets"
PAGE = ROOT / "docs" / "corpora.md"


@dataclass(frozen=True)
class Case:
    """What the made-up tree of a corpus comes to."""

    clips: dict[str, int]
    """Packed, by split."""
    told: tuple[str, ...]
    """Each oddity of the tree that has a line of its own, by a part of it."""
    measure: str
    """Of the corpus's papers, as `metrics.json` has it (of a task: under `tasks`)."""
    test: str = "test"
    """Split that is scored."""
    scored: int | None = None
    """Its clips that have a label of the task; None: all."""
    code: int = 0
    broken: tuple[str, ...] = ()
    """Clips whose fault is seen when they are decoded."""
    words: tuple[str, ...] = ()
    """Of the command line."""


CASES = {
    "blemore": Case(
        clips={"train": 3, "val": 1, "test": 2},
        told=("A99_sad_int1_ver1: no video", "expected 3,050 rows, found 7", "fold 0 is val"),
        measure="emotions.salience",
        code=2,
    ),
    "meld": Case(
        clips={"train": 3, "val": 1, "test": 2},
        told=(
            "dia110_utt7.mp4: no video",
            "1 clip with a video but no usable row",
            "no row names: test/output_repeated_splits_test/final_videos_testdia1_utt1.mp4",
            "macOS leaves behind is not a clip: ._dia1_utt1.mp4",
            "train_splits/dia125_utt3.mp4: is known to be broken",
            "dia38_utt4.mp4: is known to be cut far too long: 305 s",
            "train_sent_emo.csv: 1 control character read as the Windows letter",
            "expected 9,989 rows of train, found 3: see https://github.com/declare-lab/MELD",
            "neutral 1 (expected 4,710)",
        ),
        measure="emotion.weighted_f1",
        code=2,
        broken=("train__train_splits__dia125_utt3",),
    ),
    "mer2023": Case(
        clips={"train": 3, "test": 3, "noise": 3, "semi": 3},
        told=(
            "expected about 3,373 rows of train, found 3",
            "not checked against the corpus: the row counts",
        ),
        measure="overall.f1_mse",
    ),
    "mer2024": Case(
        clips={"train": 6},
        told=(
            "no row names: video-unlabeled/samplenew3_00000001.mp4",
            "expected about 5,030 rows of train, found 6",
        ),
        measure="emotion.weighted_f1",
        test="train",
    ),
    "mer2025": Case(
        clips={"train": 6, "candidates": 2},
        told=("1 .wav, 1 .npy", "expected 20,000 rows of candidates, found 2"),
        measure="emotion.weighted_f1",
        test="train",
    ),
    "mer2026": Case(
        clips={"train": 6, "candidates": 2},
        told=("expected 9,395 rows of train, found 6", "which face is the listener's"),
        measure="emotion.weighted_f1",
        test="train",
    ),
    "mafw": Case(
        clips={"train": 7, "test": 2},
        told=(
            "00010.mp4: no video",
            "no row names: data/clips/09999.mp4",
            "1 clip is not in the training list of fold 3: data/clips/00001.mp4",
            "fold 1 is test",
        ),
        measure="emotion.uar",
        code=2,
    ),
    "dfew": Case(
        clips={"train": 8, "test": 2},
        told=("left out: 9: no video", "expected 9,356 rows of train, found 9"),
        measure="emotion.war",
        code=2,
    ),
    "ferv39k": Case(
        clips={"train": 4, "test": 2},
        told=("Crime/Sad/0004: no video", "2 .csv, 1 .jpg", "expected about 31,088 rows of train, found 4"),
        measure="emotion.war",
        code=2,
    ),
    "ravdess": Case(
        clips={"train": 6, "test": 4},
        told=(
            "2 clips have a name unknown to this recipe and are left out: Actor_01/02-01-04-01-01-01-01.mp4",
            "fold 1 is test",
            "expected 1,440 rows, found 10",
            "1 .wav",
        ),
        measure="emotion.uar",
        words=("--fold", "1"),
    ),
    "crema_d": Case(
        clips={"train": 2, "test": 3},
        told=(
            "1002_DFA_DIS_XX.flv: is text, not a clip",
            "1076_MTI_NEU_XX.flv: is called faulty by the corpus's own page",
            "expected 7,438 rows, found 6",
        ),
        measure="emotion.uar",
        code=2,
        words=("--fold", "1"),
    ),
    "enterface05": Case(
        clips={"train": 8, "val": 4, "test": 4},
        told=(
            "subject 6/anger/s6_an.avi: is a recording of all sentences, uncut",
            "1 clip has a name unknown to this recipe and is left out: subject 1/notes.avi",
            "expected about 1,257 rows, found 16",
        ),
        measure="emotion.uar",
    ),
    "savee": Case(
        clips={"train": 9, "test": 3},
        told=("left out: AudioVisualClip/JE_x01.avi", "1 .wav", "expected about 480 rows, found 12"),
        measure="emotion.uar",
    ),
    "mead": Case(
        clips={"train": 4, "val": 4, "test": 4},
        told=("3 .m4a", "3 clips have a name unknown to this recipe and are left out: M003/video/top/"),
        measure="emotion.uar",
        words=("--views", "front,down"),
    ),
    "ch_sims": Case(
        clips={"train": 4, "val": 1, "test": 2},
        told=(
            "label_M.csv line 9: is in the indexes of no split",
            "no row names: Raw/aqgy3_0001/0011.mp4",
            "expected about 1,368 rows of train, found 4",
        ),
        measure="sentiment.acc5_steps",
    ),
    "msp_improv": Case(
        clips={"train": 3, "test": 4},
        told=(
            "MSP-IMPROV-S01A-M02-P-FM02.avi: no video",
            "1 line is not understood and left out: Evalution.txt line 25",
            "expected 8,438 rows, found 8",
        ),
        measure="valence.ccc",
        code=2,
    ),
    "iemocap": Case(
        clips={"train": 4, "test": 4},
        told=(
            "2 files that macOS leaves behind are not clips: ._Ses01F_impro01.txt",
            "1 .wav",
            "neutral 2 (expected 1,708)",
            "fold 1 is test",
        ),
        measure="emotion.war",
        scored=3,
    ),
    "cmu_mosei": Case(
        clips={"train": 2, "val": 2, "test": 2},
        told=("broken01.mp4", "no row names: Raw/Videos/Full/Combined/unlabelled1.mp4"),
        measure="present.weighted_f1",
        code=2,
    ),
    "affwild2": Case(
        clips={"train": 11, "val": 3},
        told=(
            "1 label file has no video: Annotations/VA_Estimation_Challenge/Train_Set/gone9.txt",
            "Train_Set/1-30-640x360.txt (41 lines, 40 frames)",
            "1 window has labels for fewer than half of its frames and is left out",
            "Train_Set/video7.txt from 0 s",
        ),
        measure="overall.mean_ccc",
        test="val",
    ),
    "afew_va": Case(
        clips={"train": 4, "val": 2, "test": 4},
        told=("1 label file has no video: 01/005/005.json", "6 .png, 6 .json"),
        measure="arousal.ccc",
    ),
    "hume_reaction": Case(
        clips={"train": 3, "val": 2, "test": 1},
        told=("[00006]: no video", "expected 15,806 rows of train, found 3"),
        measure="mean_pearson",
        test="val",
        code=2,
    ),
}

IN_EVERY_TEST = ("blemore", "meld", "mer2023", "mafw")
"""Of which `make test` walks the whole way: one of each kind of labels; `make campaign` that of the others."""


@pytest.fixture
def packed(tmp_path, script):
    """Packs the made-up tree of a corpus: the folder of its shards, the exit code, and what was printed."""

    def pack(name: str) -> tuple[Path, int, str]:
        assert script(name, "--make-fake", str(tmp_path / "tree"))[0] == 0
        words = ["--corpus", str(tmp_path / "tree"), "--out", str(tmp_path / "out"), *CASES[name].words]
        return (tmp_path / "out", *script(name, *words))

    return pack


def table(out: Path) -> list[dict[str, str]]:
    with (out / "labels.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", CASES)
def test_a_made_up_tree_is_packed_and_its_oddities_are_told(name, packed, tmp_path, capsys):
    case = CASES[name]
    out, code, said = packed(name)
    assert code == case.code, said
    missing = [part for part in case.told if part not in said]
    assert not missing, said
    shards = ShardSet(str(out / "*.tar"))
    splits = Counter(shards.shard_of(n).split for n in range(len(shards)))
    assert splits == case.clips
    found = tmp_path / "found.json"
    code = main(["check", "--shards", str(out / "*.tar"), "--num-workers", "0", "--output", str(found)])
    capsys.readouterr()
    text = found.read_text()
    assert code == (2 if case.broken else 0), text
    assert all(key in text for key in case.broken)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in IN_EVERY_TEST else pytest.mark.campaign)
        for name in CASES
    ],
)
def test_the_whole_way_ends_in_the_measure_of_the_field(name, packed, tmp_path, capsys):
    """Made-up tree → shards → a model of the smallest size → scores."""
    case = CASES[name]
    out, _, _ = packed(name)
    run = tmp_path / "run"
    words = [f"--train-shards={out}/train-*.tar", f"--run-dir={run}", "--num-workers=0", "--batch-size=4"]
    assert main(["train", "--preset=micro", *words, "--epochs=1"]) == 0
    scored = [f"--checkpoint={run}/checkpoints/last", f"--shards={out}/{case.test}-*.tar", "--num-workers=0"]
    main(["eval", *scored, f"--out={tmp_path}/scores"])
    capsys.readouterr()
    found = json.loads((tmp_path / "scores/metrics.json").read_text())
    task, _, measure = case.measure.rpartition(".")
    found = found["tasks"][task] if task else found
    assert found["num_clips"] == (case.scored or case.clips[case.test])
    assert measure in found["intervals_95"]


def test_labels_of_blends_are_shares_and_one_emotion_is_1(packed):
    out, _, _ = packed("blemore")
    rows = {row["Path"]: row for row in table(out)}
    blend, single = rows["A437_mix_disg_hap_30_70_ver1"], rows["A102_ang_int1_ver1"]
    assert (blend["disgust"], blend["happiness"], blend["neutral"]) == ("0.3", "0.7", "0")
    assert single["anger"] == "1"


def test_words_keep_their_apostrophes_commas_and_scripts(packed):
    out, _, _ = packed("meld")
    assert table(out)[0]["Text"] == "Well, you’re here, and, oh"


def test_a_clip_without_a_single_label_is_packed_without_one(packed):
    out, _, _ = packed("dfew")
    (row,) = [row for row in table(out) if row["Path"].endswith("/12.mp4")]
    assert row["Emotion"] == ""


def test_a_turn_is_a_stretch_of_time_and_the_half_of_the_picture_with_who_speaks(packed):
    out, _, _ = packed("iemocap")
    shards = ShardSet(str(out / "test-*.tar"))
    decode, bright = ClipDecoder(DecodingConfig()), {}
    for n in range(len(shards)):
        sample = shards.read(n)
        clip = decode(sample.video, name=sample.key, segment=sample.segment)
        assert clip.frames.shape[1:] == (64, 96, 3)
        assert clip.duration_seconds == pytest.approx(0.9, abs=0.13)
        bright[sample.key] = clip.frames.mean()
    left, right = (bright[f"Ses01F_impro01_{who}000"] for who in "FM")
    assert right - left == pytest.approx(40, abs=8)


@pytest.mark.slow
def test_labels_of_frames_become_those_of_windows(packed, script, tmp_path):
    out, _, _ = packed("affwild2")
    rows = {row["File_ID"]: row for row in table(out)}
    first = rows["1-30-640x360_1"]
    assert (float(first["Start"]), float(first["End"])) == (2.0, 4.0)
    assert float(first["valence"]) == pytest.approx(sum(n / 100 for n in range(16, 32)) / 16)
    assert "video7_0" not in rows
    assert [rows[f"46-30-484x360_{side}_0"]["Side"] for side in ("left", "right")] == ["left", "right"]
    for challenge, row in (("expr", {"expression": "Anger"}), ("au", {"AU1": "0.5", "AU2": "0.5"})):
        words = ["--corpus", str(tmp_path / "tree"), "--out", str(tmp_path / challenge)]
        assert script("affwild2", *words, "--challenge", challenge)[0] == 0
        rows = {one["File_ID"]: one for one in table(tmp_path / challenge)}
        assert row.items() <= rows["1-30-640x360_1"].items()


def test_a_turn_without_agreement_keeps_its_numbers(packed):
    out, _, _ = packed("msp_improv")
    (row,) = [row for row in table(out) if "S01A-M01-P-FM02" in row["Path"]]
    assert (row["Emotion"], row["Valence"], row["Subject"]) == ("", "2.500000", "M01")


def test_clips_get_the_zeros_back_that_a_table_has_lost(packed):
    out, _, _ = packed("ch_sims")
    assert [row["Path"] for row in table(out)][2:4] == ["Raw/video_0001/0010.mp4", "Raw/video_0001/0011.mp4"]


def test_the_fold_held_out_is_asked_for(script, tmp_path):
    tree, out = tmp_path / "tree", tmp_path / "out"
    script("mafw", "--make-fake", str(tree))
    code, said = script("mafw", "--corpus", str(tree), "--out", str(out), "--fold", "3")
    assert "fold 3 is test" in said
    assert {row["Fold"] for row in table(out) if row["Split"] == "test"} == {"3"}
    code, said = script("mafw", "--corpus", str(tree), "--out", str(out), "--fold", "9")
    assert (code, said) == (1, "error: --fold 9: MAFW has the folds 1, 2, 3, 4, 5\n")


def test_facts_are_printed_and_no_folder_is_written_over(script, tmp_path):
    code, said = script("meld", "--facts")
    assert code == 0
    assert "reported: weighted F1" in said
    assert "9,989 train" in said
    code, said = script("meld", f"--make-fake={tmp_path}")
    assert code == 1
    assert "name a folder that is not there yet" in said


# --- the base -----------------------------------------------------------------------------------

TINY = Corpus(
    name="Tiny",
    about="two clips",
    link="https://example.org/tiny",
    licence="none",
    measure="WAR",
    split="none",
    tasks=(TaskColumns("emotion", "class", ("Emotion",), ("glad", "sad")),),
    sources=(
        Table(
            table="labels.csv",
            row={"Path": "{name}", "Split": "train", "Emotion": "{code}"},
            words={"code": {"1": "glad", "2": "sad"}},
        ),
    ),
    rows={"train": 2},
    classes={"train": {"glad": 1, "sad": 1}},
)


def read(tmp_path: Path, text: str, corpus: Corpus = TINY):
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    return corpus_rows(corpus, tmp_path)


def test_a_folder_that_is_as_expected_is_told_nothing(tmp_path):
    found = read(tmp_path, "\ufeffname, code\na, 1\nb,2\n")
    assert found.notes == []
    assert found.rows == [
        {"Path": "a", "Split": "train", "Emotion": "glad"},
        {"Path": "b", "Split": "train", "Emotion": "sad"},
    ]


def test_what_differs_is_told_with_the_place_to_look(tmp_path):
    assert read(tmp_path, "name,code\na,1\nb,3\n").notes == [
        "Tiny: 1 row is left out: labels.csv line 3: code is '3', none of 1, 2",
        "Tiny: expected 2 rows of train, found 1: see https://example.org/tiny",
        "Tiny: numbers of clips by class in train: sad 0 (expected 1)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "labels.csv: cannot be read"),
        ("name\na\n", "no 'code' among name"),
        ("name,code\n", "no clips of this corpus found"),
    ],
)
def test_a_folder_of_something_else_is_one_line(tmp_path, text, message):
    with pytest.raises(ViperError, match=message):
        read(tmp_path, text) if text else corpus_rows(TINY, tmp_path)


def test_files_that_fit_no_name_are_counted_and_named(tmp_path):
    for name in ("a_1.mp4", "b_2.mp4", "notes.mp4"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypisom")
    source = Names(pattern=r"(?P<who>\w)_(?P<code>\d)\.mp4", row={"Path": "{path}", "Subject": "{who}"})
    found = corpus_rows(dataclasses.replace(TINY, sources=(source,), rows={}, classes={}), tmp_path)
    assert [row["Subject"] for row in found.rows] == ["a", "b"]
    assert found.notes == ["Tiny: 1 clip has a name unknown to this recipe and is left out: notes.mp4"]


def row_of(name: str, corpus: Corpus) -> str:
    """The line of a corpus in docs/corpora.md."""
    about = "about " * corpus.rows_unverified
    counts = ", ".join(f"{n:,}{'' if split == 'all' else f' {split}'}" for split, n in corpus.rows.items())
    tasks = ", ".join(f"{task.name} ({task.kind})" for task in corpus.tasks)
    cells = (
        f"[{corpus.name}]({corpus.link})",
        f"`{name}.py`",
        tasks,
        corpus.measure,
        corpus.split,
        f"{about}{counts}" if counts else "not known",
        corpus.licence,
        "; ".join(corpus.unverified) or "–",
    )
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("name", CASES)
def test_the_page_on_corpora_has_what_the_recipe_says(name, monkeypatch):
    monkeypatch.syspath_prepend(str(DATASETS))
    corpus = runpy.run_path(str(DATASETS / f"{name}.py"))["CORPUS"]
    assert row_of(name, corpus) in PAGE.read_text(encoding="utf-8").splitlines()
