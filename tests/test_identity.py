"""Labels are matched by name, clips and models by content: in another order right, of another kind refused."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from support.training_runs import run

import viper_e2e
from viper_e2e.commands.cli import main
from viper_e2e.encoders import TokenCache
from viper_e2e.errors import ViperError
from viper_e2e.model.checkpoint import write_json
from viper_e2e.packing import PackOptions, pack
from viper_e2e.scoring.journal import ResultJournal
from viper_e2e.tables import write_labels

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(corpus, tmp_path_factory) -> Path:
    """The folder of a run of three steps on labels `Joy, Fear`."""
    words = ("--epochs=3", "--batch-size=4", "--lr=0.02", f"--val-shards={corpus}/shards/val-*.tar")
    return run(corpus, tmp_path_factory.mktemp("model") / "run", *words)


def packed_as(corpus: Path, folder: Path, titles: dict[str, str]) -> Path:
    """The same clips with other titles or another order: new title → the column its values come from."""
    with (corpus / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [{"File_ID": r["File_ID"], "Split": r["Split"]} | {t: r[c] for t, c in titles.items()} for r in rows]
    folder.mkdir(parents=True, exist_ok=True)
    write_labels(folder / "labels.csv", kept)
    assert pack(corpus / "videos", folder / "labels.csv", folder / "shards").exit_code == 0
    return folder / "shards"


def command(name: str, model: Path, shards: Path, out: Path, *words: str) -> int:
    given = [f"--checkpoint={model}", f"--shards={shards}/val-*.tar", f"--out={out}", "--num-workers=0"]
    return main([name, *given, *words])


def scores(name: str, out: Path) -> dict[str, float | None]:
    if name == "eval":
        return json.loads((out / "metrics.json").read_text())["pearson"]
    return json.loads((out / "ablation.json").read_text())["rows"][0]["pearson"]


def test_labels_in_another_order_give_the_same_scores(corpus, model, tmp_path):
    best = model / "checkpoints" / "best"
    swapped = packed_as(corpus, tmp_path, {"Fear": "Fear", "JOY": "Joy"})
    for name in ("eval", "ablate"):
        words = ("--submission",) if name == "eval" else ()
        assert command(name, best, corpus / "shards", tmp_path / f"{name} a") == 0
        assert command(name, best, swapped, tmp_path / f"{name} b", *words) == 0
        assert scores(name, tmp_path / f"{name} a") == scores(name, tmp_path / f"{name} b")
    with (tmp_path / "eval b/predictions.csv").open() as file:
        rows = {row["key"]: row for row in csv.DictReader(file)}
    assert (rows["9"]["true_joy"], rows["9"]["true_fear"]) == (repr(1 / 3), "1.0")
    # A submission is in the words of the corpus that is scored.
    with (tmp_path / "eval b/submission.csv").open() as file:
        submitted = {row["File_ID"]: row for row in csv.DictReader(file)}
    assert list(submitted["[9]"]) == ["File_ID", "Fear", "JOY"]
    for title, name in (("JOY", "joy"), ("Fear", "fear")):
        assert f"{float(submitted['[9]'][title]):.6g}" == rows["9"][f"predicted_{name}"]


@pytest.mark.parametrize(
    ("titles", "said"),
    [
        ({"Valence": "Joy", "Arousal": "Fear"}, "missing: joy, fear; more: valence, arousal"),
        ({"Joy": "Joy", "Fear": "Fear", "Anger": "Joy"}, "labels joy, fear, anger; the model has joy, fear"),
        ({"Joy": "Joy"}, "missing: fear"),
    ],
)
def test_other_labels_are_refused_before_anything_is_scored(
    corpus, model, tmp_path, titles, said, monkeypatch, capsys
):
    monkeypatch.setattr("viper_e2e.commands.common.scored", lambda *_: pytest.fail("scored"))
    other = packed_as(corpus, tmp_path, titles)
    for name in ("eval", "ablate"):
        assert command(name, model / "checkpoints" / "best", other, tmp_path / name) == 1
        assert said in capsys.readouterr().err


def test_validation_labels_are_matched_by_name(corpus, model, tmp_path, capsys):
    swapped = packed_as(corpus, tmp_path, {"Fear": "Fear", "Joy": "Joy"})
    words = ("--epochs=3", "--batch-size=4", "--lr=0.02", f"--val-shards={swapped}/val-*.tar")
    again = run(corpus, tmp_path / "run", *words)
    assert (again / "metrics.jsonl").read_text() == (model / "metrics.jsonl").read_text()
    other = packed_as(corpus, tmp_path / "other", {"Valence": "Joy", "Fear": "Fear"})
    given = [f"--train-shards={corpus}/shards/train-*.tar", f"--val-shards={other}/val-*.tar"]
    assert main(["train", "--preset=micro", *given, f"--run-dir={tmp_path}/new"]) == 1
    assert "missing: joy; more: valence" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_metrics_and_the_model_card_say_of_what_they_are(corpus, model, tmp_path):
    best = model / "checkpoints" / "best"
    assert command("eval", best, corpus / "shards", tmp_path / "out") == 0
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["checkpoint"] == {"source": str(best), "sha256": viper_e2e.load(best).content_id}
    assert metrics["shards"]["clips"] == 4
    assert len(metrics["shards"]["sha256"]) == 64
    card = (best / "README.md").read_text()
    assert "- Trained on 8 clips (sha256" in card
    assert f"- Validated on 4 clips (sha256 {metrics['shards']['sha256'][:16]}…) after step" in card
    assert f"pearson {metrics['mean_pearson']:.4f}" in card


def test_a_model_whose_card_was_edited_loads(model, tmp_path):
    shutil.copytree(model / "checkpoints" / "best", tmp_path / "model")
    before = viper_e2e.load(tmp_path / "model").content_id
    with (tmp_path / "model/README.md").open("a") as card:
        card.write("\nTrained by us.\n")
    assert viper_e2e.load(tmp_path / "model").content_id == before
    (tmp_path / "model/README.md").unlink()
    assert viper_e2e.load(tmp_path / "model").content_id == before


def test_the_folder_of_a_run_stands_for_its_best_checkpoint(corpus, model, tmp_path, caplog):
    assert viper_e2e.load(model).content_id == viper_e2e.load(model / "checkpoints" / "best").content_id
    assert f"taking {model}/checkpoints/best" in caplog.text
    seeds = tmp_path / "runs" / "seed-0"
    shutil.copytree(model, seeds)
    with pytest.raises(ViperError, match=r"did you mean .*seed-0/checkpoints/best"):
        viper_e2e.load(tmp_path / "runs")


@pytest.mark.slow
def test_ablation_in_two_processes_is_that_of_one(corpus, model, fork_server, tmp_path):
    words = [f"--checkpoint={model}/checkpoints/best", f"--shards={corpus}/shards/train-*.tar"]
    words = ["ablate", *words, "--num-workers=0", "--batch-size=2"]
    assert main([*words, f"--out={tmp_path}/one"]) == 0
    children = fork_server.fork_processes(2, "command", [*words, f"--out={tmp_path}/two"])
    assert [child.wait() for child in children] == [0, 0], children[0].said
    one, two = (json.loads((tmp_path / n / "ablation.json").read_text()) for n in ("one", "two"))
    assert [row["modalities"] for row in one["rows"]] == [row["modalities"] for row in two["rows"]]
    for a, b in zip(one["rows"], two["rows"], strict=True):
        for name in ("mean_pearson", "low", "high"):
            assert a[name] == pytest.approx(b[name], abs=1e-6), (a, b)


def test_a_score_that_is_undefined_is_null_in_json(corpus, model, tmp_path):
    (tmp_path / "constant").mkdir()
    rows = [{"File_ID": f"[{i}]", "Split": "val", "Joy": 0.5, "Fear": i / 8} for i in range(3)]
    write_labels(tmp_path / "constant/l.csv", rows)
    pack(corpus / "videos", tmp_path / "constant/l.csv", tmp_path / "constant/shards")
    assert command("ablate", model / "checkpoints/best", tmp_path / "constant/shards", tmp_path / "out") == 0
    text = (tmp_path / "out/ablation.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert {row["pearson"]["joy"] for row in found["rows"]} == {None}
    write_json(tmp_path / "a.json", {"a": [np.nan, {"b": float("inf")}], "c": 1.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [None, {"b": None}], "c": 1.5}


# --- models, clips and their tokens -----------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded(model):
    return viper_e2e.load(model / "checkpoints" / "best")


def test_one_clip_is_a_batch_of_one_and_no_clip_an_empty_batch(loaded, corpus):
    path = str(corpus / "videos" / "0.mp4")
    assert loaded(path).intensities.shape == (1, 2)
    assert torch.equal(loaded(path).intensities, loaded([path]).intensities)
    assert torch.equal(loaded(Path(path).read_bytes()).intensities, loaded([path]).intensities)
    assert loaded([]).intensities.shape == (0, 2)
    assert loaded([]).errors == ()
    assert loaded.predict([]) == []
    assert all(stream.tokens.shape[0] == 0 for stream in loaded([], keep_streams=True).streams.values())
    assert loaded.predict(path)["intensities"] == loaded.predict([path])[0]["intensities"]


def test_tokens_are_those_of_the_encoder_and_the_weights_that_made_them(loaded, model, corpus):
    clips = [str(corpus / "videos" / "0.mp4")]
    other = viper_e2e.load(model / "checkpoints" / "best")
    with torch.no_grad():
        for parameter in other.encoders["visual"].parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    wanted = other(clips).intensities
    prepared, cache = other.prepare(clips), TokenCache()
    first = loaded(prepared, cache=cache).intensities
    assert torch.equal(first, loaded(clips).intensities)
    assert torch.equal(other(prepared, cache=cache).intensities, wanted)
    assert not torch.equal(first, wanted)
    # The same encoder with other weights, in place and in another dtype.
    other.load_state_dict(loaded.state_dict())
    assert torch.equal(other(prepared, cache=cache).intensities, first)
    kept = {name: tokens.tokens for name, tokens in cache.with_tokens(prepared[0]).tokens.items()}
    other(prepared, cache=cache)
    after = cache.with_tokens(prepared[0]).tokens
    assert all(after[name].tokens is tokens for name, tokens in kept.items()), "encoded twice"
    other.set_compute_dtype(torch.bfloat16)
    assert torch.equal(other(prepared, cache=cache).intensities, other(clips).intensities)
    assert not torch.equal(other(prepared, cache=cache).intensities, first)


def test_a_cached_clip_of_another_model_is_refused(loaded, model, corpus):
    clips = loaded.prepare([str(corpus / "videos" / "0.mp4")])
    cache = TokenCache()
    loaded(clips, cache=cache)
    cached = [loaded.cacheable(clips[0], cache)]
    assert torch.equal(loaded(cached).intensities, loaded(clips).intensities)
    with pytest.raises(ViperError, match="cached for another model"):
        viper_e2e.load(model / "checkpoints" / "best")(cached)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vizual", "--backbone vizual: this model has visual, audio; did you mean visual?"),
        ("image_text", "--backbone image_text: this model has visual, audio"),
        ("visual", "--backbone visual: the checkpoint holds its own weights of visual"),
        ("sentence_bank", "--sentence-bank: this model has visual, audio"),
    ],
)
def test_a_backbone_that_nothing_is_taken_from_is_an_error(model, corpus, name, said, tmp_path, capsys):
    best = model / "checkpoints" / "best"
    with pytest.raises(ViperError) as error:
        viper_e2e.load(best, overrides={name: "/somewhere"})
    assert said in str(error.value)
    option = "--sentence-bank=/x" if name == "sentence_bank" else f"--backbone={name}=/x"
    clip = str(corpus / "videos/0.mp4")
    for words in (["infer", clip], ["export", f"--out={tmp_path}/out"]):
        assert main([*words, f"--checkpoint={best}", option]) == 1
        assert said in capsys.readouterr().err


# --- what was scored before -------------------------------------------------------------------------


@pytest.fixture
def interrupted(monkeypatch):
    """`interrupted(words)`: `viper` stops after it has written down its first clip; how many it scored."""

    class Stopped(Exception):
        pass

    add = ResultJournal.add

    def run_to(words: list[str], stop_after: int | None) -> int:
        seen: list[str] = []

        def counting(self, outcomes) -> None:
            add(self, outcomes)
            seen.extend(outcomes)
            if stop_after is not None and len(seen) >= stop_after:
                raise Stopped

        monkeypatch.setattr(ResultJournal, "add", counting)
        with contextlib.suppress(Stopped):
            main(words)
        return len(seen)

    return run_to


def test_a_clip_that_was_replaced_is_scored_again(corpus, model, tmp_path, interrupted):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.mp4").write_bytes((corpus / "videos/0.mp4").read_bytes())
    words = [
        "infer",
        str(folder),
        f"--checkpoint={model}/checkpoints/best",
        "--num-workers=0",
        "--batch-size=1",
    ]
    words += [f"--output={tmp_path}/o.json"]
    assert interrupted(words, 2) == 2
    # Another clip under the same name, of the same size and time.
    path = folder / "a.mp4"
    stat = path.stat()
    data = (corpus / "videos/11.mp4").read_bytes()[: stat.st_size]
    path.write_bytes(data + bytes(stat.st_size - len(data)))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert interrupted(words, None) == 2
    records = {Path(r["clip"]).name: r for r in json.loads((tmp_path / "o.json").read_text())}
    assert records["a.mp4"]["intensities"] != records["b.mp4"]["intensities"]


def test_shards_packed_anew_and_a_model_trained_anew_are_scored_anew(corpus, model, tmp_path, interrupted):
    shards = packed_as(corpus, tmp_path, {"Joy": "Joy", "Fear": "Fear"})
    shutil.copytree(model / "checkpoints" / "best", tmp_path / "model")
    words = ["eval", f"--checkpoint={tmp_path}/model", f"--shards={shards}/val-*.tar", f"--out={tmp_path}/out"]
    words += ["--num-workers=0", "--batch-size=1"]
    assert interrupted(words, 2) == 2
    assert interrupted(words, 1) == 1, "two of four were known"
    # Moved shards are the same ones.
    shutil.move(shards, tmp_path / "moved")
    words[2] = f"--shards={tmp_path}/moved/val-*.tar"
    # One clip of the four is another now, in a shard of the same name and number of clips.
    (tmp_path / "v").mkdir()
    for path in (corpus / "videos").iterdir():
        source = corpus / "videos/0.mp4" if path.stem == "8" else path
        (tmp_path / "v" / path.name).write_bytes(source.read_bytes())
    pack(tmp_path / "v", tmp_path / "labels.csv", tmp_path / "moved", PackOptions(overwrite=True))
    num_left = interrupted([*words], 1) and len(set(scored_names(tmp_path / "out/parts")))
    assert num_left == 4
    # Another model in the same folder.
    changed = viper_e2e.load(tmp_path / "model")
    with torch.no_grad():
        next(changed.fusion.parameters()).add_(0.1)
    changed.save_pretrained(tmp_path / "model")
    assert interrupted(words, None) == 4


def scored_names(folder: Path) -> list[str]:
    return [json.loads(line)["name"] for path in folder.iterdir() for line in path.read_text().splitlines()]


# --- clips in training and validation -----------------------------------------------------------------


def test_clips_and_subjects_that_validation_shares_with_training_are_named(corpus, tmp_path, capsys):
    words = ["train", "--preset=micro", f"--train-shards={corpus}/shards/train-*.tar", "--num-workers=0"]
    words += [f"--val-shards={corpus}/shards/train-*.tar", f"--run-dir={tmp_path}/run", "--max-steps=1"]
    assert main(words) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "--val-shards: 8 of 8 clips are in --train-shards too" in told
    assert "--val-shards: 8 subjects are in --train-shards too" in told
