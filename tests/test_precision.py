"""`--mixed-precision auto`: the faster of float32 and bfloat16, once per run, the same for all processes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import yaml
from support.media import make_clip
from support.models import model_of
from support.training_runs import arguments, run, same, settings, weights

from viper_e2e.commands.cli import main, train
from viper_e2e.errors import ViperError
from viper_e2e.model import precision
from viper_e2e.model.precision import Choice, choose_precision, fastest_precision, measured
from viper_e2e.model.viper import ViPER
from viper_e2e.training import reporting


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Plots take longer than all the rest."""
    monkeypatch.setattr(reporting, "figures", Mock())


def chosen(folder: Path) -> str:
    return yaml.safe_load((folder / "config.yaml").read_text())["mixed_precision"]


def always(word: str):
    return lambda model: Choice(word, "the test says so")


# --- the decision ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"visual": (2.0, 1.0)}, "bf16"),
        ({"visual": (1.0, 1.0)}, "no"),
        ({"visual": (1.09, 1.0)}, "no"),
        ({"visual": (1.2, 1.0)}, "bf16"),
        ({"visual": (0.1, 0.2), "audio": (1.0, 0.5)}, "bf16"),
        ({"visual": (0.1, 0.05), "audio": (1.0, 1.2)}, "no"),
        ({}, "no"),
    ],
)
def test_the_sum_over_all_encoders_decides_and_bfloat16_has_to_gain_something(seconds, expected):
    assert choose_precision(seconds).precision == expected


def test_the_reason_tells_what_was_measured():
    told = choose_precision({"visual": (0.4, 0.2), "audio": (0.1, 0.05)}).reason
    assert (
        told
        == "one token of visual, audio takes 500.0 ms in float32, 250.0 ms in bfloat16 (2.00 times as fast)"
    )


def test_the_shortest_turn_of_either_counts():
    turns = itertools.cycle([0.05, 0.01, 0.03, 0.02])  # float32, bfloat16, float32, bfloat16
    now = 0.0
    is_start = True

    def clock() -> float:
        nonlocal now, is_start
        if not is_start:
            now += next(turns)
        is_start = not is_start
        return now

    assert measured(model_of("visual").encoders["visual"], clock) == pytest.approx((0.03, 0.01))


@pytest.mark.slow
@pytest.mark.parametrize("train", ["none", "1"])
def test_measuring_leaves_weights_mode_and_generators_as_they_were(train):
    model = model_of("visual", "audio", "textual", "action_units", train=train).train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    torch.manual_seed(7)
    state = torch.get_rng_state()
    choice = fastest_precision(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert choice.precision in ("no", "bf16")
    assert "one token of visual, audio, textual takes" in choice.reason
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert all(module.training for module in (model, *model.encoders.values()))


@pytest.mark.parametrize(("knows", "expected"), [(True, "bf16"), (False, "no")])
def test_a_gpu_is_asked_not_measured(monkeypatch, knows, expected):
    monkeypatch.setattr(ViPER, "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: knows)
    monkeypatch.setattr(precision, "measured", lambda encoder: pytest.fail("was measured"))
    assert fastest_precision(model_of("visual")).precision == expected


# --- training -------------------------------------------------------------------------------------

FROZEN = ("--epochs=1", "--batch-size=4")


@pytest.mark.slow
def test_what_was_chosen_stands_in_the_run_folder_and_a_resumed_run_keeps_it(
    corpus, tmp_path, monkeypatch, capsys
):
    for name, word in (("asked", "bf16"), ("auto", "auto")):
        monkeypatch.setattr(precision, "fastest_precision", always("bf16"))
        run(corpus, tmp_path / name, *FROZEN, f"--mixed-precision={word}", "--max-steps=1")
        assert chosen(tmp_path / name) == "bf16"
        monkeypatch.setattr(precision, "fastest_precision", always("no"))
        run(corpus, tmp_path / name, *FROZEN, f"--mixed-precision={word}", "--resume")
        assert chosen(tmp_path / name) == "bf16"
    assert capsys.readouterr().err.count("--mixed-precision auto: bf16, since the test says so") == 1
    assert same(weights(tmp_path / "asked"), weights(tmp_path / "auto"))


@pytest.mark.slow
def test_a_run_of_fp16_is_not_resumed_as_something_else(corpus, tmp_path):
    folder = run(corpus, tmp_path / "run", *FROZEN, "--max-steps=1")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("mixed_precision: 'no'", "mixed_precision: fp16"))
    with pytest.raises(ViperError, match="add --mixed-precision fp16"):
        train(settings(corpus, folder, *FROZEN, "--mixed-precision=auto", "--resume"))


@pytest.mark.slow
def test_the_first_seed_decides_for_all(corpus, tmp_path, monkeypatch):
    choices = iter(["bf16"])
    monkeypatch.setattr(precision, "fastest_precision", lambda model: Choice(next(choices), "the test says so"))
    run(corpus, tmp_path / "run", "--seeds=2", "--max-steps=1", "--mixed-precision=auto")
    assert [chosen(tmp_path / f"run/seed-{seed}") for seed in (0, 1)] == ["bf16", "bf16"]


@pytest.mark.campaign
def test_the_first_process_decides_for_all(corpus, fork_server, tmp_path):
    words = arguments(corpus, tmp_path / "run", *FROZEN, "--max-steps=1", "--mixed-precision=auto")
    children = fork_server.fork_processes(2, "choose_differently", words, str(tmp_path / "chosen"))
    assert [child.wait() for child in children] == [0, 0], children[1].said
    assert [(tmp_path / f"chosen.{rank}").read_text() for rank in (0, 1)] == ["bf16", "bf16"]
    assert chosen(tmp_path / "run") == "bf16"


# --- scoring --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_scores_in_half_precision_are_nearly_those_in_full(tmp_path, monkeypatch, capfd):
    model_of("visual", "audio").save_pretrained(tmp_path / "model")
    clip = make_clip(tmp_path / "clip.mp4", num_frames=8, fps=8)
    monkeypatch.setattr(precision, "fastest_precision", always("bf16"))
    scores = {}
    for word in ("no", "bf16", "auto"):
        output = tmp_path / f"{word}.json"
        words = [f"--checkpoint={tmp_path}/model", "--num-workers=0", f"--mixed-precision={word}"]
        assert main(["infer", str(clip), *words, f"--output={output}"]) == 0
        (record,) = json.loads(output.read_text())
        scores[word] = list(record["intensities"].values())
    assert scores["auto"] == scores["bf16"] != scores["no"]
    assert scores["bf16"] == pytest.approx(scores["no"], abs=0.02)
    assert "auto: bf16, since" in capfd.readouterr().err


@pytest.mark.slow
def test_what_was_scored_in_another_precision_is_scored_anew(tmp_path, monkeypatch):
    model_of("visual").save_pretrained(tmp_path / "model")
    clips = [make_clip(tmp_path / f"{i}.mp4", num_frames=4) for i in range(2)]
    scored = []
    original = ViPER.forward

    def forward(self, given, *rest, **named):
        scored.extend((clip.name, self.compute_dtype) for clip in given)
        if len(scored) == 2:
            raise KeyboardInterrupt
        return original(self, given, *rest, **named)

    monkeypatch.setattr(ViPER, "forward", forward)
    words = ["--num-workers=0", "--batch-size=1", f"--checkpoint={tmp_path}/model"]
    words += [f"--output={tmp_path}/scores.json", *map(str, clips)]
    assert main(["infer", *words]) == 130
    assert main(["infer", *words, "--mixed-precision=bf16"]) == 0
    first, second = map(str, clips)
    single, half = torch.float32, torch.bfloat16
    assert scored == [(first, single), (second, single), (first, half), (second, half)]
