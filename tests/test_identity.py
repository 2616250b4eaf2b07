"""Labels are matched by name, clips and models by content: in another order right, of another kind refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from training_runs import run

import viper_e2e
from viper_e2e.checkpoint import write_json
from viper_e2e.cli import main
from viper_e2e.errors import ViperError
from viper_e2e.packing import pack, write_labels


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
    assert submitted["[9]"]["JOY"] == rows["9"]["predicted_joy"]
    assert submitted["[9]"]["Fear"] == rows["9"]["predicted_fear"]


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
    monkeypatch.setattr("viper_e2e.engine.evaluation_commands._loader", lambda *_: pytest.fail("scored"))
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
def test_ablation_in_two_processes_is_that_of_one(corpus, model, nursery, tmp_path):
    words = [f"--checkpoint={model}/checkpoints/best", f"--shards={corpus}/shards/train-*.tar"]
    words = ["ablate", *words, "--num-workers=0", "--batch-size=2"]
    assert main([*words, f"--out={tmp_path}/one"]) == 0
    children = nursery.fork_processes(2, "command", [*words, f"--out={tmp_path}/two"])
    assert [child.wait() for child in children] == [0, 0], children[0].said
    one, two = (json.loads((tmp_path / n / "ablation.json").read_text()) for n in ("one", "two"))
    assert [row["modalities"] for row in one["rows"]] == [row["modalities"] for row in two["rows"]]
    for a, b in zip(one["rows"], two["rows"], strict=True):
        for name in ("mean_pearson", "low", "high"):
            assert a[name] == pytest.approx(b[name], abs=1e-4), (a, b)


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
