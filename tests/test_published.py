"""Released checkpoints: read as data, refused where they are more, and giving the published numbers."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.released_heads import perceiver, released
from torch import Tensor, nn
from transformers import PerceiverModel

from viper_e2e.encoders import Stream
from viper_e2e.errors import ViperError
from viper_e2e.model.checkpoint import load_tensors, verify
from viper_e2e.published import (
    ReleasedHead,
    import_published,
    is_published,
    published_checkpoint,
    read_released,
    safe_pickle,
)
from viper_e2e.published.importing import FILES, approximations
from viper_e2e.published.released import MODALITIES_OF_WIDTH


def streams(features: dict[str, Tensor]) -> dict[str, Stream]:
    found = {}
    for name, tokens in features.items():
        there = torch.ones(tokens.shape[:2], dtype=torch.bool)
        found[name] = Stream(tokens, there, there, torch.zeros(tokens.shape[:2]))
    return found


def outputs(head: ReleasedHead, features: dict[str, Tensor]) -> Tensor:
    first = next(iter(features.values()))
    found = torch.ones(first.shape[:2], dtype=torch.bool)
    with torch.no_grad():
        return head.build()(streams(features), found, torch.ones(len(first)))


# --- what is read ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("width", sorted(MODALITIES_OF_WIDTH))
def test_modalities_follow_from_the_input_and_outputs_are_those_of_the_pickled_module(tmp_path, width):
    model = perceiver(width).eval()
    head = read_released(released(tmp_path, model))
    assert head.modalities == MODALITIES_OF_WIDTH[width]
    assert sum(head.widths.values()) == width
    features = {name: torch.randn(2, 5, size) for name, size in head.widths.items()}
    with torch.no_grad():
        expected = model(inputs=torch.cat(list(features.values()), -1)).logits
    torch.testing.assert_close(outputs(head, features), expected, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_any_usual_pickle_protocol_is_read(tmp_path, protocol):
    model = perceiver()
    head = read_released(released(tmp_path, model, pickle_protocol=protocol))
    for name, tensor in model.state_dict().items():
        assert torch.equal(head.state_dict[name], tensor)


def test_half_precision_is_read_as_float32(tmp_path):
    head = read_released(released(tmp_path, perceiver().half()))
    assert {t.dtype for t in head.state_dict.values()} == {torch.float32}


def test_the_file_may_go_after_reading(tmp_path):
    path = released(tmp_path)
    head = read_released(path)
    before = {k: t.clone() for k, t in head.state_dict.items()}
    path.unlink()
    model = head.build()
    for parameter in model.parameters():
        parameter.data.add_(1)
    assert all(torch.equal(model.perceiver.state_dict()[k], t + 1) for k, t in before.items())


# --- unexpected heads -----------------------------------------------------------------------------


def _swap_activation(model: PerceiverModel) -> None:
    model.encoder.self_attends[1].mlp.intermediate_act_fn = nn.ReLU()


def _double_module(model: PerceiverModel) -> None:
    model.encoder.self_attends[1] = model.encoder.self_attends[0]


def _drop_bias(model: PerceiverModel) -> None:
    model.decoder.decoder.final_layer.bias = None


def _wide_output(model: PerceiverModel) -> None:
    model.encoder.self_attends[0].mlp.dense1.weight = nn.Parameter(torch.zeros(3, 16))


def _other_eps(model: PerceiverModel) -> None:
    model.encoder.cross_attention.layernorm.eps = 1e-3


def _more_heads(model: PerceiverModel) -> None:
    model.encoder.self_attends[0].attention.self.num_heads = 2


def _extra(model: PerceiverModel) -> None:
    model.register_parameter("extra", nn.Parameter(torch.zeros(2)))


def _preprocessor(model: PerceiverModel) -> None:
    model.input_preprocessor = nn.Identity()


def _integers(model: PerceiverModel) -> None:
    model.register_buffer("steps", torch.zeros(3, dtype=torch.long))


def _many_layers(model: PerceiverModel) -> None:
    model.config.num_self_attends_per_block = 10**9


def _many_blocks(model: PerceiverModel) -> None:
    model.config.num_blocks = 10**9


def _no_heads(model: PerceiverModel) -> None:
    model.config.num_self_attention_heads = 0


def _three_heads(model: PerceiverModel) -> None:
    model.config.num_self_attention_heads = 3


def _no_latents(model: PerceiverModel) -> None:
    del model.embeddings.latents


def _wider_mlp(model: PerceiverModel) -> None:
    model.config.self_attention_widening_factor = 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_swap_activation, r"intermediate_act_fn is a ReLU, expected GELUActivation"),
        (_double_module, r"occurs twice"),
        (_drop_bias, r"1 tensor missing \(decoder\.decoder\.final_layer\.bias\)"),
        (_wide_output, r"dense1\.weight is \(3, 16\)"),
        (_other_eps, r"layernorm\.eps is 0\.001, expected 1e-05"),
        (_more_heads, r"num_heads is 2, expected 4"),
        (_extra, r"1 unknown \(extra\)"),
        (_preprocessor, r"input_preprocessor is a Identity, expected nothing"),
        (_integers, r"steps is a torch\.int64"),
        (_many_layers, r"num_self_attends_per_block is 1000000000 in its configuration, expected 2"),
        (_many_blocks, r"num_blocks is 1000000000 in its configuration, expected 1 to 256"),
        (_no_heads, r"num_self_attention_heads is 0"),
        (_three_heads, r"num_latent_heads=3 does not divide"),
        (_no_latents, r"it has no embeddings\.latents"),
        (_wider_mlp, r"self_attention_widening_factor is 4 in its configuration, expected 1"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_anything_unexpected_is_an_error_that_says_what_was_found(tmp_path, change, found):
    model = perceiver()
    change(model)
    path = released(tmp_path, model)
    with pytest.raises(ViperError, match=found):
        read_released(path).build()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: perceiver().state_dict(), "holds a OrderedDict, not a whole pickled"),
        (lambda: nn.Linear(3, 4), r"holds an instance of torch\.nn\.modules\.linear\.Linear"),
        (lambda: perceiver(width=900), r"900 wide; released ones are 768 \(visual\)"),
        (lambda: perceiver(residual=False), r"use_query_residual is False, expected True"),
    ],
)
def test_other_modules_are_errors(tmp_path, make, found):
    with pytest.raises(ViperError, match=found):
        read_released(released(tmp_path, make())).build()


# --- into our format ------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_import_is_a_whole_folder_with_the_same_tensors(tmp_path):
    model = perceiver(2048)
    imported = import_published(released(tmp_path, model), tmp_path / "out", overrides={"visual": "some/vit"})
    verify(imported.folder)
    assert imported.modalities == ("visual", "audio", "textual")
    assert any("textual tokens are an approximation" in note for note in imported.notes)
    tensors = load_tensors(imported.folder / "model.safetensors")
    assert {f"fusion.perceiver.{name}" for name in model.state_dict()} == tensors.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensors[f"fusion.perceiver.{name}"], tensor)
    settings = json.loads((imported.folder / "config.json").read_text())
    assert settings["backbones"]["visual"]["spec"] == "some/vit"
    assert settings["backbones"]["audio"]["spec"] == "microsoft/wavlm-base-plus-sv"
    assert settings["model"]["fusion"]["kind"] == "concat"
    assert settings["model"]["decoding"]["sampling"] == "paper"


@pytest.mark.slow
def test_without_sound_none_is_decoded(tmp_path):
    imported = import_published(released(tmp_path, perceiver(768)), tmp_path / "out")
    assert json.loads((imported.folder / "config.json").read_text())["model"]["decoding"]["sound"] == "none"


def test_a_replacement_for_a_backbone_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ViperError, match="has no audio; its modalities are visual"):
        import_published(released(tmp_path, perceiver(768)), tmp_path / "out", overrides={"audio": "x"})
    assert not (tmp_path / "out").exists()


def test_a_head_of_other_labels_is_an_error(tmp_path):
    with pytest.raises(ViperError, match="5 outputs; the released ones have 7"):
        import_published(released(tmp_path, perceiver(num_labels=5)), tmp_path / "out")


@pytest.mark.slow
def test_a_folder_with_one_model_file_will_do(tmp_path):
    (tmp_path / "in").mkdir()
    released(tmp_path / "in", name="a.model")
    assert import_published(tmp_path / "in", tmp_path / "out").modalities == ("visual", "audio")
    released(tmp_path / "in", name="b.model")
    with pytest.raises(ViperError, match=r"2 \.model files"):
        import_published(tmp_path / "in", tmp_path / "out")


def test_approximations_are_named_until_they_are_replaced():
    everything = ("visual", "audio", "textual", "action_units")
    assert [note.split()[0] for note in approximations(everything, {})] == ["faces", "textual", "action"]
    replaced = approximations(("textual",), {"image_text": "a", "sentence_bank": "b"})
    assert not any("approximation" in note for note in replaced)
    assert "--sentence-bank" in " ".join(approximations(("textual",), {"image_text": "a"}))


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """A hub cache without a network, holding ViPER-VA at one commit."""
    cache, commit = tmp_path / "hub", "0123456789abcdef0123456789abcdef01234567"
    repository = cache / "models--VaianiLorenzo--ViPER-VA"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    released(snapshot, name=FILES["VaianiLorenzo/ViPER-VA"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return snapshot


@pytest.mark.slow
def test_a_hub_id_is_converted_once_per_commit_and_again_if_damaged(hub, tmp_path):
    assert is_published("VaianiLorenzo/ViPER-VA")
    first = published_checkpoint("VaianiLorenzo/ViPER-VA")
    assert first.folder.is_relative_to(tmp_path / "cache" / "viper_e2e")
    assert first.folder.name.endswith(hub.name)
    weights = first.folder / "model.safetensors"
    made = weights.stat().st_mtime_ns
    assert published_checkpoint("VaianiLorenzo/ViPER-VA") == first
    assert weights.stat().st_mtime_ns == made
    weights.write_bytes(b"damaged")
    assert published_checkpoint("VaianiLorenzo/ViPER-VA") == first
    verify(first.folder)


def test_the_hubs_retries_are_not_told_line_by_line(monkeypatch):
    logger, told = logging.getLogger("huggingface_hub.utils._http"), []

    def unreachable(*_, **__):
        told.append(logger.isEnabledFor(logging.WARNING))
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    with pytest.raises(ViperError, match=r"could not be fetched \(the hub cannot be reached: no route\)"):
        published_checkpoint("VaianiLorenzo/ViPER-V")
    assert told == [False]
    assert logger.isEnabledFor(logging.WARNING)


@pytest.mark.slow
def test_a_local_file_is_converted_once_per_content(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = released(tmp_path)
    assert is_published(path)
    assert is_published(str(tmp_path))
    assert not is_published(tmp_path / "nothing.model")
    first = published_checkpoint(path)
    made = (first.folder / "model.safetensors").stat().st_mtime_ns
    assert published_checkpoint(tmp_path) == first
    assert (first.folder / "model.safetensors").stat().st_mtime_ns == made
    assert not is_published(first.folder), "a folder of ours is loaded as it is"
    torch.save(perceiver(768), path)
    assert published_checkpoint(path).folder != first.folder


def test_a_checkpoint_that_cannot_be_fetched_is_one_line_that_says_what_to_do(hub):
    with pytest.raises(ViperError, match=r"perceiver_7\.model is not in the cache and") as caught:
        published_checkpoint("VaianiLorenzo/ViPER-VATF")
    assert "\n" not in str(caught.value)
    assert "import-published" in str(caught.value)


@pytest.mark.campaign
def test_a_file_of_full_size_is_imported_within_3_gb(tmp_path):
    path = tmp_path / "full.model"
    make = (
        "import sys, torch; sys.path.insert(0, 'tests'); from test_published import perceiver\n"
        "torch.save(perceiver(2080, num_latents=256, d_latents=1280, num_self_attends_per_block=26,"
        " num_self_attention_heads=8, num_cross_attention_heads=8), sys.argv[1])"
    )
    load = (
        "import sys; from pathlib import Path; from viper_e2e.published import import_published\n"
        "import_published(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "sys.path.insert(0, 'tests'); from support.peak_memory import peak_mib; print(peak_mib())"
    )
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-c", make, path], check=True, cwd=root)
    assert path.stat().st_size > 1.1e9
    done = subprocess.run(
        [sys.executable, "-c", load, path, tmp_path / "out"],
        check=True,
        cwd=root,
        capture_output=True,
        text=True,
    )
    peak = float(done.stdout) * 2**20
    assert peak < 3e9, f"{peak / 1e9:.2f} GB"
    print(f"peak {peak / 1e9:.2f} GB")


@pytest.mark.slow
def test_reading_looks_nothing_up_and_runs_nothing(tmp_path):
    """Python's own audit events, of a genuine file read by us and then by the usual way."""
    path = released(tmp_path)
    safe_pickle.read(path)
    events: list[str] = []
    watching = True
    sys.addaudithook(lambda event, _: events.append(event) if watching else None)
    safe_pickle.read(path)
    ours, events[:] = set(events), []
    torch.load(path, weights_only=False)
    usual, watching = set(events), False
    suspicious = {"import", "exec", "compile", "pickle.find_class", "os.system", "subprocess.Popen"}
    assert "pickle.find_class" in usual
    assert not ours & suspicious
    assert "open" in ours
