"""LoRA: adapters alone learn, nothing else moves, and a checkpoint holds them and the name of the rest."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from support.audio_encoders import KINDS as AUDIO_KINDS
from support.audio_encoders import clip, config_of, noise
from support.models import decoded, training
from support.step_memory import needs_of, prepared
from support.training_runs import run, same, settings, weights
from support.visual_encoders import one_step, random_config, write_vit
from torch import nn
from transformers import RobertaConfig, RobertaModel

import viper_e2e
from viper_e2e.commands.parsing import parse_train
from viper_e2e.config import BackboneConfig, ModelConfig, TextualConfig, TrainConfig, with_settings
from viper_e2e.config.depth import Blocks, Frozen, LaterDepths, LoRA
from viper_e2e.config.presets import micro
from viper_e2e.encoders.audio import AudioEncoder
from viper_e2e.encoders.backbone import Backbone, Origin
from viper_e2e.encoders.building import find_blocks
from viper_e2e.encoders.checkpointing import checkpoint_activations
from viper_e2e.encoders.face_encoder import FaceEncoder
from viper_e2e.encoders.lora import is_adapter
from viper_e2e.encoders.textual import TextualEncoder
from viper_e2e.encoders.visual import VisualEncoder
from viper_e2e.errors import ViperError
from viper_e2e.model.checkpoint import write_folder
from viper_e2e.model.viper import ViPER
from viper_e2e.training.fine_tuning import prepare_for_training
from viper_e2e.training.hooks import TrainerHooks
from viper_e2e.training.memory import check_fits
from viper_e2e.training.optimizer import build_optimizer, build_schedule, parameter_groups, schedule_factor
from viper_e2e.training.phases import Phases
from viper_e2e.training.trainer import open_trainer

PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SOUND = [clip((0.0, noise(1.0)), seconds=(0.0, 0.5), stream=1.0)]


class Sentences(nn.Module):
    """A tiny text encoder in the place of RoBERTa, fed as the textual branch feeds it."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        model = RobertaModel(RobertaConfig(vocab_size=20, **small), add_pooling_layer=False)
        self.backbone = Backbone("sentence_encoder", model, Origin("x"), config, blocks=find_blocks(model))

    def to_compute_dtype(self, dtype: torch.dtype) -> None:
        self.backbone.to_compute_dtype(dtype)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        with self.backbone.computing(ids.device):
            return self.backbone.model(ids).last_hidden_state[:, 0].float()


def visual(kind: str, **lora) -> tuple[VisualEncoder, object]:
    config = random_config(kind, pooling="mean")
    config = replace(config, backbone=replace(config.backbone, **lora))
    return VisualEncoder.build(config), PIXELS


def audio(kind: str, **lora) -> tuple[AudioEncoder, object]:
    config = config_of(kind)
    config = replace(config, backbone=replace(config.backbone, **lora))
    return AudioEncoder.build(config, "spans", 0.5, 16_000), SOUND


def image_text(**lora) -> tuple[TextualEncoder, object]:
    config = BackboneConfig(config=micro().textual.image_text.config, **lora)
    return TextualEncoder.build(TextualConfig(image_text=config)), PIXELS


def build(family: str, **lora) -> tuple[nn.Module, object]:
    """An encoder with random weights, the same with and without adapters, and what it reads."""
    torch.manual_seed(0)
    if family in AUDIO_KINDS:
        return audio(family, **lora)
    if family == "image_text":
        return image_text(**lora)
    if family == "roberta":
        return Sentences(BackboneConfig(**lora)), torch.arange(3, 15).view(2, 6)
    return visual(family, **lora)


def tokens(encoder: nn.Module, given: object) -> torch.Tensor:
    out = encoder.embed(given) if isinstance(encoder, FaceEncoder) else encoder(given)
    return out if isinstance(out, torch.Tensor) else out.tokens


def adapters(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if is_adapter(name)}


def unsettle(module: nn.Module) -> None:
    """Give every adapter something to say."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapters(module).values():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


QUERY_VALUE = {"vit", "beit", "dinov2", "dinov3_vit", "clip_vision_model", "siglip_vision_model"}
QUERY_VALUE |= {"wav2vec2", "hubert", "whisper", "roberta"}
FEED_FORWARD = {"wavlm", "wavlm post-norm", "image_text"}
FAMILIES = sorted(QUERY_VALUE | FEED_FORWARD)


# --- what is in a backbone ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "dtype"), [*((family, torch.bfloat16) for family in FAMILIES), ("vit", torch.float32)]
)
def test_new_adapters_change_no_bit_and_gradients_reach_each_of_them(family, dtype):
    plain, given = build(family)
    encoder, _ = build(family, lora_rank=2)
    for one in (plain, encoder):
        one.to_compute_dtype(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert torch.equal(tokens(encoder.eval(), given), tokens(plain.eval(), given))
        unsettle(encoder)
        made = tokens(encoder.train(), given)
    assert not torch.equal(made, tokens(plain, given))
    made.square().sum().backward()
    assert {name for name, p in encoder.named_parameters() if p.requires_grad} == adapters(encoder).keys()
    for name, parameter in encoder.named_parameters():
        if is_adapter(name):
            assert parameter.dtype == torch.float32
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
        elif parameter.ndim:
            assert parameter.dtype == dtype, name


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_stand_where_they_are_promised_in_every_block(family):
    encoder, _ = build(family, lora_rank=2)
    backbone = next(child for child in encoder.children() if isinstance(child, Backbone))
    for block in backbone.blocks():
        layers = {name.partition(".lora_")[0] for name in adapters(block)}
        attention = {name for name in layers if name.endswith(("query", "value", "q_proj", "v_proj"))}
        assert len(layers) == 2
        assert len(attention) == (2 if family in QUERY_VALUE else 0)


@pytest.mark.parametrize("family", ["vit", "wavlm", "image_text"])
def test_recomputed_activations_change_no_gradient(family):
    gradients = []
    for checkpointing in (False, True):
        encoder, given = build(family, lora_rank=2)
        if checkpointing:
            for backbone in backbones_in(encoder):
                checkpoint_activations(backbone.model)
        unsettle(encoder)
        torch.manual_seed(1)
        tokens(encoder.train(), given).square().sum().backward()
        gradients.append([p.grad for p in adapters(encoder).values()])
    assert gradients[0]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_step_changes_exactly_the_adapters_and_frozen_ones_stay():
    encoder, _ = build("vit", lora_rank=2)
    unsettle(encoder)
    assert not encoder.is_frozen
    assert isinstance(encoder.backbone.depth, LoRA)
    assert one_step(encoder) == adapters(encoder).keys()
    encoder.backbone.set_training_depth(Frozen())
    assert encoder.is_frozen
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not any(module.training for module in encoder.backbone.model.modules())


def test_alpha_is_divided_by_the_rank_and_dropout_is_of_training_alone():
    encoder, given = build("vit", lora_rank=2, lora_alpha=8.0, lora_dropout=0.5)
    unsettle(encoder.eval())
    layer = encoder.backbone.blocks()[0].attention.q_proj
    x = torch.randn(4, 16)
    added = x @ layer.lora_A["default"].weight.T @ layer.lora_B["default"].weight.T * (8.0 / 2)
    assert torch.allclose(layer(x), layer.base_layer(x) + added, atol=1e-6)
    assert torch.equal(tokens(encoder, given), tokens(encoder, given))
    assert not torch.equal(tokens(encoder.train(), given), tokens(encoder, given))


def test_rates_decay_by_block_and_matrices_by_weight():
    model = ViPER(adapted(micro(), visual=2))
    groups = parameter_groups(model, TrainConfig(backbone_lr=1e-3, layer_decay=0.5, weight_decay=0.1))
    told = [(g["name"], g["lr"], g["weight_decay"]) for g in groups if g["name"].startswith("visual")]
    assert told == [("visual LoRA block 1", 2.5e-4, 0.1), ("visual LoRA block 2", 5e-4, 0.1)]
    grouped = {id(p) for g in groups for p in g["params"]}
    assert grouped == {id(p) for p in model.parameters() if p.requires_grad}


# --- a model on disk ------------------------------------------------------------------------------


def adapted(config: ModelConfig, **ranks: int) -> ModelConfig:
    return with_settings(config, {f"{name}.backbone.lora_rank": rank for name, rank in ranks.items()})


@pytest.fixture
def vit(tmp_path):
    torch.manual_seed(1)
    return write_vit(tmp_path / "vit")


def seeing(vit, **options) -> ModelConfig:
    return with_settings(
        micro(), {"modalities": ("visual",), "visual.backbone": BackboneConfig(str(vit), **options)}
    )


@pytest.fixture
def saved(vit, tmp_path):
    """A model whose adapters say something, and its folder."""
    model = ViPER(seeing(vit, lora_rank=2)).eval()
    unsettle(model)
    model.save_pretrained(tmp_path / "model")
    return model, tmp_path / "model"


def intensities(model: ViPER) -> torch.Tensor:
    with torch.no_grad():
        return model([decoded()]).intensities


@pytest.mark.slow
def test_a_checkpoint_holds_the_adapters_and_records_the_rest(saved, vit):
    model, folder = saved
    inside = load_file(folder / "model.safetensors").keys()
    fusion = {f"fusion.{name}" for name in model.fusion.state_dict()}
    assert inside == fusion | adapters(model).keys()
    assert "visual" in json.loads((folder / "config.json").read_text())["backbones"]
    assert "fusion, LoRA adapters of visual." in (folder / "README.md").read_text()
    again = viper_e2e.load(folder)
    assert torch.equal(intensities(again), intensities(model))
    assert all(encoder.is_frozen for encoder in again.encoders.values())
    assert not torch.equal(intensities(ViPER(seeing(vit)).eval()), intensities(model))


@pytest.mark.slow
def test_what_was_loaded_and_saved_again_is_the_same(saved, tmp_path):
    model, folder = saved
    viper_e2e.load(folder).save_pretrained(tmp_path / "again")
    assert same(*(load_file(f / "model.safetensors") for f in (folder, tmp_path / "again")))
    assert torch.equal(intensities(viper_e2e.load(tmp_path / "again")), intensities(model))


def test_adapters_are_not_put_beside_other_weights(saved, vit):
    tensors = load_file(vit / "model.safetensors")
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] + 1}, vit / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ViperError, match=r"visual: the weights in .* are not those of the checkpoint"):
        viper_e2e.load(saved[1])


@pytest.mark.slow
def test_a_self_contained_folder_needs_nothing_else(saved, vit, tmp_path):
    model, folder = saved
    viper_e2e.load(folder).save_pretrained(tmp_path / "whole", self_contained=True)
    shutil.rmtree(vit)
    assert torch.equal(intensities(viper_e2e.load(tmp_path / "whole")), intensities(model))


@pytest.mark.slow
def test_checkpoints_from_before_there_were_adapters_still_load(vit, tmp_path):
    model = ViPER(seeing(vit)).eval()
    model.save_pretrained(tmp_path / "model")
    written = json.loads((tmp_path / "model/config.json").read_text())
    for branch in ("visual", "audio"):
        for name in ("lora_rank", "lora_alpha", "lora_dropout"):
            del written["model"][branch]["backbone"][name]

    def fill(folder: Path) -> None:
        shutil.copytree(tmp_path / "model", folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        (folder / "config.json").write_text(json.dumps(written))

    write_folder(tmp_path / "old", fill)
    assert torch.equal(intensities(viper_e2e.load(tmp_path / "old")), intensities(model))


# --- a run ----------------------------------------------------------------------------------------

LORA = ("--lora=visual=2,audio=2", "--epochs=1", "--batch-size=2", "--lr=0.01", "--backbone-lr=0.1")
LORA += ("--model.visual.backbone.lora-dropout=0.2", "--layer-decay=0.5")


@pytest.mark.slow
def test_a_run_trains_the_adapters_tells_so_and_goes_on_bitwise_where_it_stopped(
    corpus, tmp_path, capsys, monkeypatch
):
    whole = weights(run(corpus, tmp_path / "whole", *LORA))
    said = capsys.readouterr().err
    for words in (("visual LoRA block 2", "0.05"), ("audio LoRA block 1", "0.025")):
        assert any(all(word in line for word in words) for line in said.splitlines()), words
    assert "memory of a step" in said
    torch.manual_seed(0)
    before = ViPER(settings(corpus, tmp_path / "x", *LORA).model).state_dict()
    moved = {n for n in whole if n.startswith("encoders.") and not torch.equal(before[n], whole[n])}
    assert moved == {name for name in whole if is_adapter(name)}

    def stop(trainer, _) -> None:
        if trainer.state.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    half = open_trainer(
        settings(corpus, tmp_path / "halves", *LORA),
        Accelerator(cpu=True, step_scheduler_with_optimizer=False),
        hooks=TrainerHooks(before_step=stop),
    )
    assert half.train() == 143
    half.close()
    assert not same(whole, weights(tmp_path / "halves"))
    run(corpus, tmp_path / "halves", *LORA, "--resume")
    assert same(whole, weights(tmp_path / "halves"))


def test_tokens_are_the_same_whatever_untrained_adapters_begin_with(vit):
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(ViPER(seeing(vit, lora_rank=2)).eval())
    one, other = (model.encoders["visual"] for model in models)
    assert not same(adapters(one), adapters(other))
    assert one.content_id() == other.content_id()
    unsettle(one)
    assert one.content_id() != other.content_id()
    unsettle(other)
    assert one.content_id() == other.content_id()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_that_train_later_are_frozen_until_then_and_the_rest_stays_for_good(dtype):
    train = TrainConfig(unfreeze_at=LaterDepths.parse("1:visual=lora"), epochs=2)
    model = ViPER(adapted(micro(), visual=2))
    prepare_for_training(model, train)
    phases = Phases(train.unfreeze_at, model, 2)
    model.set_compute_dtype(dtype)
    stored = {name: p.dtype for name, p in model.named_parameters()}
    factors = partial(schedule_factor, train, 4, 8)
    optimizer = build_optimizer(model, train)
    schedule = build_schedule(optimizer, factors)
    phases.enter(0, optimizer, schedule, train, factors)
    assert all(encoder.is_frozen for encoder in model.encoders.values())
    phases.enter(1, optimizer, schedule, train, factors)
    inside = {id(p) for group in optimizer.param_groups for p in group["params"]}
    joined = {name for name, p in model.encoders.named_parameters() if id(p) in inside}
    assert joined == adapters(model.encoders).keys()
    assert {name: p.dtype for name, p in model.named_parameters()} == stored
    assert not model.backbones["visual"]._exact  # no second copy of what stays; it shows nowhere else
    assert model.backbones["visual"].depth == LoRA()


@pytest.mark.slow
def test_memory_counts_what_flows_through_frozen_blocks():
    needs = {}
    for name, config in {
        "none": micro(),
        "lora": adapted(micro(), visual=2, audio=2),
        "all": micro(),
    }.items():
        torch.manual_seed(0)
        model = ViPER(config)
        needs[name] = needs_of(training(model, "all") if name == "all" else model)
    assert needs["none"].per_clip < needs["lora"].per_clip
    assert needs["none"].gradients < needs["lora"].gradients < needs["all"].gradients


@pytest.mark.slow
def test_where_adapters_do_not_fit_less_is_proposed():
    torch.manual_seed(0)
    free = needs_of(ViPER(micro())).beyond_weights(1)
    model = ViPER(adapted(micro(), visual=2, audio=2))
    needs = needs_of(model)
    with pytest.raises(ViperError, match=r"would fit: .*--freeze all without --lora --batch-size 1 "):
        check_fits(model, needs, prepared(model), free, TrainConfig(batch_size=8))


# --- settings -------------------------------------------------------------------------------------


def backbones_in(module: nn.Module) -> list[Backbone]:
    return [inside for inside in module.modules() if isinstance(inside, Backbone)]


def parsed(*words: str) -> ModelConfig:
    return parse_train(["--train-shards=x", "--run-dir=y", *words], "viper train").model


@pytest.mark.slow
def test_ranks_are_given_by_backbone_and_freezing_takes_them_back():
    model = parsed("--lora=visual=8,image_text=4")
    assert [b.lora_rank for b in (model.visual.backbone, model.audio.backbone)] == [8, 0]
    assert model.textual.image_text.lora_rank == 4
    assert parsed("--model.visual.backbone.lora_rank=8", "--freeze=all").visual.backbone.lora_rank == 0
    assert parsed("--preset=tiny", "--freeze=visual", "--lora=visual=8").visual.backbone.lora_rank == 8


@pytest.mark.slow
@pytest.mark.parametrize("word", ["visual", "visual=", "visual=0", "visual=all", "visuals=8"])
def test_a_rank_that_is_none_is_one_line(word):
    with pytest.raises(ViperError, match=r"--lora vis.*e\.g\. visual=8|did you mean visual"):
        parsed(f"--lora={word}")


@pytest.mark.parametrize("options", [{"lora_rank": -1}, {"lora_rank": 2, "lora_dropout": 1.0}])
def test_impossible_settings_name_what_is_allowed(options):
    with pytest.raises(ViperError, match=r"visual: lora_rank is .* allowed are"):
        build("vit", **options)


def test_without_peft_its_installation_is_named(monkeypatch):
    build("vit")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ViperError, match=r"visual: LoRA needs peft: pip install peft"):
        build("vit", lora_rank=2)
    build("vit")


def test_the_weights_beside_adapters_cannot_be_unfrozen():
    with pytest.raises(ViperError, match=r"visual: has LoRA adapters.*cannot train '1' as well"):
        build("vit", lora_rank=2)[0].backbone.set_training_depth(Blocks(1))
    model = ViPER(adapted(micro(), visual=2))
    with pytest.raises(ViperError, match="--unfreeze-at"):
        Phases(LaterDepths.parse("1:visual=1"), model, 3)
    assert isinstance(model.backbones["visual"].depth, LoRA)
    Phases(LaterDepths.parse("1:audio=1"), model, 3)
    with pytest.raises(ViperError, match=r"audio: has no LoRA adapters.*add --lora audio=8"):
        Phases(LaterDepths.parse("1:audio=lora"), model, 3)
    with pytest.raises(ViperError, match="visual trains lora by then"):
        Phases(LaterDepths.parse("1:visual=lora"), model, 3)


def test_an_argmax_passes_nothing_to_adapters():
    config = with_settings(micro().textual, {"choice": "hard", "image_text.lora_rank": 2})
    with pytest.raises(ViperError, match="an argmax passes no gradient"):
        TextualEncoder.build(config)


def test_a_model_without_such_layers_is_refused():
    model = nn.ModuleDict({"layers": nn.ModuleList([nn.Sequential(nn.Linear(2, 2))])})
    for blocks, said in (
        (find_blocks(model), "finds none of query, value, .* in a Sequential"),
        ((), "no row"),
    ):
        with pytest.raises(ViperError, match=said):
            Backbone("visual", model, Origin("x"), BackboneConfig(lora_rank=2), blocks=blocks)
