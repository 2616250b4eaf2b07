"""Backbones: found where promised, hashed by content, frozen for good, trained exactly as deep as asked."""

from __future__ import annotations

import logging

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.visual_encoders import PIXELS, one_step, state, write_vit

from viper_e2e.config import BackboneConfig, VisualConfig
from viper_e2e.config.depth import All, Blocks, Frozen, LoRA, parse_depth
from viper_e2e.config.presets import micro
from viper_e2e.encoders.checkpointing import checkpoint_activations
from viper_e2e.encoders.visual import VisualEncoder
from viper_e2e.encoders.weights import Search, read_tensors, tensors_sha256
from viper_e2e.errors import ViperError

pytestmark = pytest.mark.usefixtures("nothing_from_outside")


@pytest.fixture
def vit(tmp_path):
    """A folder as the hub would give it: a tiny ViT with its preprocessor."""
    return write_vit(tmp_path / "tiny-vit")


def build(source, **search) -> VisualEncoder:
    return VisualEncoder.build(VisualConfig(BackboneConfig(str(source))), Search(**search))


# --- frozen and trained -------------------------------------------------------------------------


def test_a_frozen_backbone_stays_in_eval_without_gradients_in_the_compute_dtype():
    encoder = VisualEncoder.build(micro().visual)
    encoder.to_compute_dtype(torch.bfloat16)
    torch.nn.ModuleList([encoder]).train()
    assert not any(m.training for m in encoder.backbone.model.modules())
    assert {p.dtype for p in encoder.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in encoder.parameters())
    assert encoder.is_frozen
    assert encoder.backbone.depth_groups() == []
    tokens = encoder.embed(PIXELS)
    assert tokens.dtype == torch.float32
    assert not tokens.requires_grad


def test_exactly_the_last_blocks_change():
    encoder = VisualEncoder.build(micro().visual)
    with torch.no_grad():  # fresh weights are so small that a step on a norm is lost in rounding
        for parameter in encoder.parameters():
            parameter.normal_(std=0.5)
    encoder.backbone.set_training_depth(Blocks(1))
    changed = one_step(encoder)
    assert changed
    assert all(".layers.1." in name for name in changed)
    last = {name for name in state(encoder) if ".layers.1." in name and not name.endswith("k_proj.bias")}
    assert last <= changed, "a key bias cancels in the softmax; everything else of the block moves"


def test_depth_all_reaches_every_parameter_and_none_takes_it_back():
    encoder = VisualEncoder.build(micro().visual)
    encoder.backbone.set_training_depth(All())
    one_step(encoder)
    assert encoder.backbone.depth == All()
    assert [g.part for g in encoder.backbone.depth_groups()] == ["stem", "block 1", "block 2", "top"]
    assert [g.layers_from_top for g in encoder.backbone.depth_groups()] == [3, 2, 1, 0]
    grouped = sum(p.numel() for g in encoder.backbone.depth_groups() for p in g.parameters)
    assert grouped == sum(p.numel() for p in encoder.parameters())
    encoder.backbone.set_training_depth(Frozen())
    assert encoder.is_frozen
    assert not any(m.training for m in encoder.backbone.model.modules())


@pytest.mark.parametrize("order", ["dtype first", "depth first"])
def test_trained_blocks_are_float32_and_what_lies_before_them_is_not(order):
    encoder = VisualEncoder.build(micro().visual)
    backbone = encoder.backbone
    steps = [lambda: encoder.to_compute_dtype(torch.bfloat16), lambda: backbone.set_training_depth(Blocks(1))]
    for step in steps if order == "dtype first" else steps[::-1]:
        step()
    dtypes = {name: p.dtype for name, p in encoder.named_parameters()}
    assert {d for n, d in dtypes.items() if ".layers.1." in n} == {torch.float32}
    assert {d for n, d in dtypes.items() if ".layers.0." in n or "embeddings" in n} == {torch.bfloat16}
    one_step(encoder)


def test_only_trained_blocks_enter_training_mode():
    encoder = VisualEncoder.build(micro().visual)
    encoder.backbone.set_training_depth(Blocks(1))
    encoder.train()
    first, last = encoder.backbone.blocks()
    assert all(m.training for m in last.modules())
    assert not any(m.training for m in first.modules())
    encoder.eval()
    assert not any(m.training for m in last.modules())


def test_an_impossible_depth_names_what_is_allowed():
    encoder = VisualEncoder.build(micro().visual)
    with pytest.raises(ViperError, match="allowed: none, all, or the last 1 to 2 blocks"):
        encoder.backbone.set_training_depth(Blocks(3))
    with pytest.raises(ViperError, match=r"has no LoRA adapters.*add --lora visual=8"):
        encoder.backbone.set_training_depth(LoRA())


def test_depths_are_read_once_and_written_as_they_were():
    for text in ("none", "all", "1", "12"):
        assert str(parse_depth(text, "--unfreeze")) == text
    assert parse_depth("0", "--unfreeze") == Frozen()
    for text in ("-1", "some", "", "²", "lora"):
        with pytest.raises(ViperError, match=f"--unfreeze x={text}: cannot train"):
            parse_depth(text, f"--unfreeze x={text}")


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = VisualEncoder.build(micro().visual).train()
        encoder.backbone.set_training_depth(Blocks(1))
        if checkpointing:
            checkpoint_activations(encoder.backbone.model)
        layer = encoder.backbone.blocks()[-1]
        assert layer.gradient_checkpointing is checkpointing
        encoder.embed(PIXELS).square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_autocast_around_a_frozen_encoder_does_not_change_what_it_computes():
    encoder = VisualEncoder.build(micro().visual)
    encoder.to_compute_dtype(torch.bfloat16)
    alone = encoder.embed(PIXELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder.embed(PIXELS), alone)


def test_double_precision_stays_double():
    encoder = VisualEncoder.build(micro().visual).double()
    encoder.backbone.set_training_depth(All())
    pixels = PIXELS[:1].double().requires_grad_()
    assert encoder.embed(pixels).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda x: encoder.embed(x).sum(1), pixels[..., :32], fast_mode=True)


# --- found, or explained ------------------------------------------------------------------------


def test_random_weights_follow_the_seed_and_are_never_silent(caplog):
    with caplog.at_level(logging.WARNING):
        torch.manual_seed(5)
        first = VisualEncoder.build(micro().visual)
    assert "visual: random weights, because the settings say so" in caplog.text
    torch.manual_seed(5)
    second = VisualEncoder.build(micro().visual)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert first.records() == {}


def test_a_local_folder_gives_its_weights_and_a_record(vit):
    encoder = build(vit)
    record = encoder.records()["visual"]
    assert record == {
        "spec": str(vit),
        "revision": None,
        "tensors_sha256": tensors_sha256(load_file(vit / "model.safetensors")),
    }


def test_what_was_trained_is_no_longer_what_the_record_says(vit):
    encoder = build(vit)
    encoder.backbone.set_training_depth(Blocks(1))
    encoder.backbone.set_training_depth(Frozen())
    assert encoder.records() == {}


def test_the_hash_knows_content_only(vit, tmp_path):
    tensors = load_file(vit / "model.safetensors")
    names = sorted(tensors)
    halves = [tmp_path / "model-00001-of-00002.safetensors", tmp_path / "model-00002-of-00002.safetensors"]
    save_file({n: tensors[n] for n in names[3:]}, halves[0])
    save_file({n: tensors[n] for n in names[:3]}, halves[1])
    torch.save(dict(reversed(tensors.items())), tmp_path / "pytorch_model.bin")
    hashes = {
        tensors_sha256(read_tensors(files))
        for files in ([vit / "model.safetensors"], halves, [tmp_path / "pytorch_model.bin"])
    }
    assert len(hashes) == 1
    changed = dict(tensors)
    changed[names[0]] = changed[names[0]].clone()
    changed[names[0]].view(-1)[0] += 1e-3
    renamed = {("x" if n == names[0] else n): t for n, t in tensors.items()}
    cast = dict(tensors, **{names[0]: tensors[names[0]].half()})
    reshaped = dict(tensors, **{names[0]: tensors[names[0]].reshape(-1)})
    others = {tensors_sha256(t) for t in (changed, renamed, cast, reshaped)}
    assert len(others | hashes) == 5


def test_other_weights_than_recorded_are_refused_with_both_hashes(vit, tmp_path):
    records = build(vit).records()
    other = write_vit(tmp_path / "other")
    assert build(vit, records=records).records() == records
    with pytest.raises(ViperError) as caught:
        build(vit, records=records, overrides={"visual": str(other)})
    assert records["visual"]["tensors_sha256"] in str(caught.value)
    assert tensors_sha256(load_file(other / "model.safetensors")) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_moved_backbone_is_found_by_override_or_on_the_shelf(vit, tmp_path, monkeypatch):
    records = build(vit).records()
    pixels = build(vit).embed(PIXELS)
    for place in ("visual", "tiny-vit"):
        shelf = tmp_path / f"shelf-{place}"
        shelf.mkdir()
        moved = vit.rename(shelf / place)
        monkeypatch.setenv("VIPER_BACKBONES", str(shelf))
        assert torch.equal(build(vit, records=records).embed(PIXELS), pixels)
        monkeypatch.delenv("VIPER_BACKBONES")
        named = build("a/b", records=records, overrides={"visual": str(moved)})
        assert torch.equal(named.embed(PIXELS), pixels)
        moved.rename(vit)


def test_the_hub_cache_is_used_without_a_connection(vit, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--someone--tiny-vit"
    commit = "c" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    pixels = build(vit).embed(PIXELS)
    vit.rename(repository / "snapshots" / commit)
    encoder = build("someone/tiny-vit")
    assert torch.equal(encoder.embed(PIXELS), pixels)
    assert encoder.records()["visual"]["revision"] == commit


@pytest.mark.parametrize("spec", ["someone/tiny-vit", "/no/such/folder", "./here"])
def test_a_missing_backbone_says_where_to_put_it(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(
        ViperError, match=r"put its folder .* at \$VIPER_BACKBONES/visual or name it with --backbone"
    ):
        build(spec)


def test_files_that_lack_something_are_errors_that_name_it(vit):
    tensors = load_file(vit / "model.safetensors")
    (vit / "model.safetensors").unlink()
    with pytest.raises(ViperError, match=r"has no weights; model\.safetensors is expected there"):
        build(vit)
    lost = next(name for name in tensors if "query" in name and "weight" in name)
    save_file({n: t for n, t in tensors.items() if n != lost}, vit / "model.safetensors", {"format": "pt"})
    with pytest.raises(ViperError, match="lacks 1 weight of ViTModel"):
        build(vit)
    (vit / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not a header")
    with pytest.raises(ViperError, match=r"model\.safetensors: damaged or not plain tensors"):
        build(vit)
    (vit / "preprocessor_config.json").unlink()
    with pytest.raises(ViperError, match=r"has no preprocessor_config\.json; copy it there"):
        build(vit)


def test_a_bin_file_is_read_as_plain_tensors_and_code_in_it_is_refused(vit, tmp_path, caplog):
    pixels = build(vit).embed(PIXELS)
    tensors = load_file(vit / "model.safetensors")
    (vit / "model.safetensors").unlink()
    torch.save(tensors, vit / "pytorch_model.bin")
    with caplog.at_level(logging.INFO):
        assert torch.equal(build(vit).embed(PIXELS), pixels)
    assert "only pytorch_model.bin exists: read as plain tensors" in caplog.text
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self):
            return (open, (str(canary), "w"))

    torch.save({"x": Evil()}, vit / "pytorch_model.bin")
    with pytest.raises(ViperError, match=r"pytorch_model\.bin: damaged or not plain tensors"):
        build(vit)
    assert not canary.exists()


# --- saved and loaded again ---------------------------------------------------------------------


def test_assets_and_record_bring_a_frozen_encoder_back(vit, tmp_path):
    encoder = build(vit)
    encoder.save_assets(tmp_path / "assets")
    files = sorted(p.name for p in (tmp_path / "assets" / "visual").iterdir())
    assert files == ["config.json", "preprocessor_config.json"]
    # Weights alone suffice where the checkpoint brought the small files.
    (vit / "config.json").unlink()
    (vit / "preprocessor_config.json").unlink()
    again = build(vit, assets=tmp_path / "assets", records=encoder.records())
    assert torch.equal(again.embed(PIXELS), encoder.embed(PIXELS))
    assert again.crop_spec == encoder.crop_spec


def test_weights_bundled_with_the_checkpoint_need_no_source(vit, tmp_path, caplog):
    encoder = build(vit)
    encoder.save_assets(tmp_path / "assets")
    for file in vit.iterdir():
        file.unlink()
    vit.rmdir()
    with caplog.at_level(logging.WARNING):
        again = build(vit, assets=tmp_path / "assets", bundled=frozenset({"visual"}))
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.embed(PIXELS), encoder.embed(PIXELS))
    assert again.records() == {}, "nothing outside could replace these weights"
    assert "random" not in caplog.text
    with pytest.raises(ViperError, match="the checkpoint has no folder"):
        build(vit, assets=tmp_path / "empty", bundled=frozenset({"visual"}))
