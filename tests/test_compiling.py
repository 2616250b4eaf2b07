"""`--compile`: the same outputs under the same names, faster or not, and a plain word where it cannot be."""

from __future__ import annotations

import copy
import functools
import os
import signal
from pathlib import Path

import pytest
import torch
from support.models import decoded, model_of
from support.training_runs import JOINT, arguments, largest_difference, run, weights
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from viper_e2e.commands.cli import main
from viper_e2e.config.presets import tiny
from viper_e2e.errors import ViperError
from viper_e2e.model.compiling import CACHE, check_compiler, compile_model, compiled_parts, keep_compiled_in
from viper_e2e.model.viper import ViPER


@pytest.fixture(autouse=True)
def _cache_is_forgotten():
    """torch writes into the environment where it keeps what it compiles; later processes would go there."""
    yield
    os.environ.pop(CACHE, None)


def names_of(model: ViPER) -> dict[str, str]:
    """Part → the name it has in the model."""
    names = {module: name for name, module in model.named_modules()}
    return {part: names[module] for part, module in compiled_parts(model).items()}


# --- what is compiled -----------------------------------------------------------------------------


def test_what_hears_waveforms_of_any_length_is_left_as_it_is():
    assert names_of(model_of("visual", "audio", "textual", "action_units")) == {
        "visual": "encoders.visual.backbone.model",
        "fusion": "fusion.perceiver",
    }
    assert names_of(ViPER(tiny()))["audio"] == "encoders.audio.backbone.model", "Whisper's pieces are padded"


def test_the_image_tower_of_clip_is_compiled_on_a_gpu_alone(monkeypatch):
    model = model_of("textual")
    assert "textual" not in compiled_parts(model)
    monkeypatch.setattr(ViPER, "device", torch.device("cuda"))
    assert names_of(model)["textual"] == "encoders.textual.image_text.model.visual"


def test_the_published_head_is_compiled_without_its_decoder():
    model = model_of("visual", kind="concat", self_attends_per_block=1, num_latent_heads=2)
    assert names_of(model)["fusion"] == "fusion.perceiver.encoder"


def test_names_of_weights_stay_and_all_of_it_can_be_copied(monkeypatch):
    made = []
    monkeypatch.setattr(torch, "compile", lambda call, **_: made.append(call.__self__) or call)
    model = model_of("visual", "textual")
    before = list(model.state_dict())
    compile_model(model)
    assert made == list(compiled_parts(model).values())
    assert list(model.state_dict()) == before
    assert list(copy.deepcopy(model).state_dict()) == before


@pytest.mark.campaign
def test_traced_it_computes_the_same_in_training_and_scoring(monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    clips = [decoded(), decoded(3, seed=1)]
    expected, found = [], []
    for results, compiles in ((expected, False), (found, True)):
        model = model_of("visual", "audio", train="1").train()
        if compiles:
            compile_model(model)
        output = model(clips, [0, 1])
        output.intensities.sum().backward()
        with torch.no_grad():
            scored = model.eval()(clips).intensities
        gradients = [p.grad for p in model.parameters() if p.requires_grad]
        results += [output.intensities.detach(), scored, *gradients]
    assert len(found) == len(expected) > 20
    for one, other in zip(expected, found, strict=True):
        assert (one - other).abs().max() <= 1e-5


# --- where it cannot be ---------------------------------------------------------------------------


def refuse(*_: object, **__: object) -> None:
    raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nmore that nobody reads")


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--train-shards=nowhere.tar", "--run-dir=RUN"),
        ("infer", "--checkpoint=nowhere", "--device=cpu", "CLIP"),
        ("eval", "--shards=SHARDS", "--out=OUT", "--checkpoint=nowhere", "--device=cpu"),
    ],
    ids=lambda words: words[0],
)
def test_without_a_compiler_a_command_ends_before_anything_else(corpus, tmp_path, monkeypatch, capfd, words):
    monkeypatch.setenv(CACHE, "")
    monkeypatch.delenv(CACHE)
    monkeypatch.setattr(torch, "compile", refuse)
    places = {"RUN": str(tmp_path / "run"), "OUT": str(tmp_path), "SHARDS": f"{corpus}/shards/val-*.tar"}
    command, *rest = words
    for name, place in places.items():
        rest = [word.replace(f"={name}", f"={place}") for word in rest]
    rest = [str(corpus / "videos/0.mp4") if word == "CLIP" else word for word in rest]
    assert main([command, *rest, "--compile"]) == 1
    told = capfd.readouterr().err
    assert "--compile: torch.compile does not work on cpu here (InvalidCxxCompiler: No working" in told
    assert "install that, or leave out --compile" in told
    assert "nobody reads" not in told


@pytest.mark.campaign
def test_a_missing_compiler_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path))
    torch._dynamo.reset()
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "no-such-compiler"))
    with pytest.raises(ViperError, match="needs a C\\+\\+ compiler"):
        check_compiler(torch.device("cpu"))


def test_the_run_folder_keeps_what_was_compiled_unless_the_environment_names_another(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, "elsewhere")
    keep_compiled_in(tmp_path / "run")
    assert os.environ[CACHE] == "elsewhere"
    monkeypatch.delenv(CACHE)
    keep_compiled_in(tmp_path / "run")
    assert os.environ[CACHE] == str(tmp_path / "run")
    monkeypatch.setenv(CACHE, f"/tmp/{Path(default_cache_dir()).name}")
    keep_compiled_in(tmp_path / "run")
    assert os.environ[CACHE] == str(tmp_path / "run"), "torch writes its default there by itself"


# --- the real thing -------------------------------------------------------------------------------


@pytest.mark.campaign
def test_compiled_training_stops_goes_on_and_shares_its_steps_like_any_other(corpus, fork_server, tmp_path):
    words = (*JOINT[1:], "--unfreeze=visual", "--modalities=visual", "--epochs=2")
    plain = weights(run(corpus, tmp_path / "plain", *words))
    words = (*words, "--compile")
    halves = arguments(corpus, tmp_path / "halves", *words, f"--val-shards={corpus}/shards/val-*.tar")
    assert fork_server.fork("stop", halves, 3, int(signal.SIGTERM)).wait(1800) == 143
    assert list((tmp_path / "halves/compiled").iterdir()), "what was compiled is kept in the run folder"
    assert fork_server.fork("train", [*halves, "--resume"]).wait(1800) == 0
    assert largest_difference(plain, weights(tmp_path / "halves")) < 1e-4
    pair = arguments(corpus, tmp_path / "pair", *words, "--batch-size=1")
    children = fork_server.fork_processes(2, "train", pair)
    assert [child.wait(1800) for child in children] == [0, 0], children[0].said
    assert largest_difference(plain, weights(tmp_path / "pair")) < 1e-4
