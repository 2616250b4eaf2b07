"""One file and one line of settings add a modality: the file of docs/how-to/modality.md, as it stands there."""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from support import ROOT
from support.models import decoded
from support.training_runs import make_corpus, run, same, settings, weights

import viper_e2e
from viper_e2e.commands.cli import main, train
from viper_e2e.config import ModelConfig, VisualConfig, model_config_from_dict, with_settings
from viper_e2e.config.depth import Depths
from viper_e2e.config.modalities import MODALITIES, Modality, register, unregister
from viper_e2e.config.presets import micro
from viper_e2e.encoders import TokenCache
from viper_e2e.errors import ViperError
from viper_e2e.model.viper import ViPER

WORDS = ("--modalities=visual,loudness", "--epochs=2", "--batch-size=2", "--seed=1", "--schedule=constant")


@pytest.fixture(scope="module", autouse=True)
def _one_file(tmp_path_factory):
    text = (ROOT / "docs/how-to/modality.md").read_text(encoding="utf-8")
    folder = tmp_path_factory.mktemp("modality")
    (folder / "loudness.py").write_text(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1])
    sys.path.insert(0, str(folder))
    importlib.import_module("loudness")
    yield
    unregister("loudness")
    sys.path.remove(str(folder))
    del sys.modules["loudness"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus") / "corpus", num_train=4, num_val=2, silent=())


def model_of(train: str = "none", **fusion) -> ViPER:
    config = with_settings(
        micro(),
        {
            "modalities": ("visual", "loudness"),
            "extra_modalities": {"loudness": {"width": 4}},
            **{f"fusion.{name}": value for name, value in fusion.items()},
        },
    )
    torch.manual_seed(0)
    model = ViPER(config).eval()
    model.set_training_depths(Depths.parse(f"loudness={train}"))
    return model


@pytest.mark.parametrize("kind", ["tokens", "concat", "ensemble"])
@pytest.mark.parametrize("train", ["none", "all"])
def test_it_is_heard_and_absent_or_hidden_it_is_not(kind, train):
    model = model_of(train, kind=kind, num_cross_heads=1, num_latent_heads=1)
    with torch.no_grad():
        (clip, silent), cache = model.prepare([decoded(), decoded(sound=False)]), TokenCache()
        output = model([clip, silent], cache=cache)
        hidden = model([clip], hidden=torch.tensor([[False, True]]))
        cached = model([model.cacheable(clip, cache), model.cacheable(silent, cache)])
    assert model.encoders["loudness"].embed_dim == 4
    assert output.present.tolist() == [[True, True], [True, False]]
    torch.testing.assert_close(hidden.intensities[0], output.intensities[1])
    assert not torch.equal(hidden.intensities[0], output.intensities[0])
    assert torch.equal(cached.intensities, output.intensities)


@pytest.mark.slow
def test_modality_dropout_hides_it_by_the_clips_seed():
    model = model_of().train()
    model.modality_dropout = 0.9
    clips = [decoded(seed=i) for i in range(6)]
    with torch.no_grad():
        dropped, whole = model(clips, range(6)).intensities, model(clips).intensities
        assert torch.equal(model(clips, range(6)).intensities, dropped)
    assert not torch.equal(dropped, whole)


def test_it_trains_by_blocks_and_every_parameter_gets_its_gradient_whatever_is_absent():
    model = model_of("1").train()
    model([decoded(sound=False), None]).intensities.sum().backward()
    trained = {name for name, p in model.backbones["loudness"].named_parameters() if p.requires_grad}
    assert trained == {"model.2.weight", "model.2.bias"}
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.slow
def test_a_run_learns_with_it_frozen_or_trained_and_reuses_its_tokens_bitwise(corpus, tmp_path):
    plain = run(corpus, tmp_path / "plain", *WORDS)
    reused = run(corpus, tmp_path / "reused", *WORDS, "--reuse-memory=1GB")
    trained = run(corpus, tmp_path / "trained", *WORDS, "--unfreeze=loudness")
    assert same(weights(plain), weights(reused))
    name = "encoders.loudness.backbone.model.0.weight"
    assert not torch.equal(weights(plain)[name], weights(trained)[name])
    main(["ablate", f"--checkpoint={plain}", f"--shards={corpus}/shards/val-*.tar", f"--out={tmp_path / 'a'}"])
    rows = json.loads((tmp_path / "a/ablation.json").read_text())["rows"]
    assert sorted(row["modalities"] for row in rows) == [["loudness"], ["visual"], ["visual", "loudness"]]


@pytest.mark.slow
def test_a_run_with_settings_of_it_goes_on_with_the_same_alone(corpus, tmp_path):
    for width in (4, 8):
        text = f"model:\n  extra_modalities: {{loudness: {{width: {width}}}}}\n"
        (tmp_path / f"{width}.yaml").write_text(text, encoding="utf-8")
    words = ("--modalities=loudness", "--batch-size=2", "--max-steps=1")
    folder = run(corpus, tmp_path / "run", f"--config={tmp_path / '4.yaml'}", *words)
    going_on = ("--resume", "--max-steps=2")
    run(corpus, folder, f"--config={tmp_path / '4.yaml'}", *words, *going_on)
    other = settings(corpus, folder, f"--config={tmp_path / '8.yaml'}", *words, *going_on)
    with pytest.raises(ViperError, match=r"loudness\.width: 8; the run has 4$"):
        train(other)


def test_it_is_saved_with_its_settings_and_loads(tmp_path):
    model = model_of("all")
    model.save_pretrained(tmp_path / "model")
    again = viper_e2e.load(tmp_path / "model")
    assert again.config == model.config
    assert again.encoders["loudness"].is_frozen
    with torch.no_grad():
        assert torch.equal(again([decoded()]).intensities, model([decoded()]).intensities)


def test_a_models_own_settings_hold_those_of_all_its_modalities_in_full():
    given = with_settings(
        micro(), {"modalities": ("loudness",), "extra_modalities": {"loudness": {"width": 4}}}
    )
    model = ViPER(given)
    assert model.config.extra_modalities["loudness"] == sys.modules["loudness"].LoudnessConfig(width=4)
    assert given.extra_modalities == {"loudness": {"width": 4}}


def test_settings_that_it_does_not_have_are_named():
    config = with_settings(
        micro(), {"modalities": ("loudness",), "extra_modalities": {"loudness": {"widht": 4}}}
    )
    with pytest.raises(ViperError, match=r"extra_modalities\.loudness: .*widht"):
        ViPER(config)


@pytest.mark.parametrize("name", ["visual", "fusion", "decoding"])
def test_no_modality_takes_anothers_name(name):
    with pytest.raises(ViperError, match="the name is taken"):
        register(Modality(name, frozenset({"face"}), "nowhere:Encoder", VisualConfig))


def test_settings_of_before_have_no_other_modalities_and_load():
    data = asdict(micro())
    del data["extra_modalities"]
    assert model_config_from_dict(data, "config.json") == ModelConfig(**vars(micro()))


def test_nothing_but_encoders_and_presets_asks_for_a_modality_by_name():
    """The table of modalities names them; so does what was released with these very four."""
    package, found = ROOT / "viper_e2e", []
    for path in sorted(package.rglob("*.py")):
        wing = path.relative_to(package).parts[0]
        if wing in ("encoders", "decoding") or path.name in ("presets.py", "modalities.py"):
            continue  # to decoders "audio" is a kind of stream
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                words = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
                found += [f"{path.name}:{node.lineno}"] if words & set(MODALITIES) else []
    assert not found


def test_every_number_is_as_it_would_be_without_it():
    """A modality that is known but not chosen changes nothing."""
    config = micro()
    torch.manual_seed(0)
    with torch.no_grad():
        with_it = ViPER(config).eval()([decoded()]).intensities.numpy()
        known = unregister("loudness")
        try:
            torch.manual_seed(0)
            without = ViPER(config).eval()([decoded()]).intensities.numpy()
        finally:
            register(known)
    assert np.array_equal(with_it, without)


def test_a_checkpoint_whose_modality_is_not_imported_says_what_to_do(tmp_path):
    model_of().save_pretrained(tmp_path / "model")
    unregister("loudness")
    try:
        told = r"config\.json: reads loudness, which is registered nowhere here; .* imports the file"
        with pytest.raises(ViperError, match=told):
            ViPER.from_pretrained(tmp_path / "model")
    finally:
        importlib.reload(sys.modules["loudness"])
