"""The textual branch: a bank weighed by CLIP, embedded once, the right activation, the published choice."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support.text_encoders import write_text_encoder
from torch.nn import functional as F

from viper_e2e.clip import CropSpec
from viper_e2e.config import BackboneConfig, TextualConfig
from viper_e2e.config.depth import All, Blocks, Frozen, parse_depth
from viper_e2e.config.presets import micro, paper, tiny
from viper_e2e.encoders.checkpointing import checkpoint_activations
from viper_e2e.encoders.image_text import load_image_text
from viper_e2e.encoders.lora import is_adapter
from viper_e2e.encoders.textual import TextualEncoder, read_bank
from viper_e2e.encoders.tokenization import read_tokenizer
from viper_e2e.encoders.weights import NOWHERE, Found, Search
from viper_e2e.errors import ViperError
from viper_e2e.labels import HUME_REACTION

pytestmark = pytest.mark.usefixtures("nothing_from_outside")

PIXELS = torch.randn(5, 3, 32, 32)


@pytest.fixture
def encoder() -> TextualEncoder:
    torch.manual_seed(0)
    return TextualEncoder.build(micro().textual)


def micro_with(**changes) -> TextualConfig:
    return replace(micro().textual, **changes)


def tokenized(encoder: TextualEncoder) -> torch.Tensor:
    """The sentences of the bank, as its CLIP reads them."""
    return load_image_text(micro().textual.image_text, NOWHERE).tokenize(encoder.sentences)


def state_dict_of(encoder: TextualEncoder) -> dict[str, torch.Tensor]:
    return {n: t.clone().contiguous() for n, t in encoder.image_text.model.state_dict().items()}


def published(reference, **changes) -> TextualEncoder:
    peer = reference / "peer"
    options = {"bank": str(peer / "templates.json"), "choice": "hard", "crop": "paper", **changes}
    return TextualEncoder.build(
        TextualConfig(
            image_text=BackboneConfig(str(peer / "checkpoints/clip")),
            sentence_encoder=BackboneConfig(str(peer / "checkpoints/roberta")),
            **options,
        )
    )


# --- what comes out -----------------------------------------------------------------------------


def test_soft_choice_is_the_mean_of_the_bank_under_clips_own_softmax(encoder):
    model = encoder.image_text.model
    sentences = tokenized(encoder)
    tokens, logits = model.encode_text(sentences), model.get_logits(PIXELS, sentences)[0]
    assert torch.allclose(encoder.embed(PIXELS), logits.softmax(1) @ tokens, atol=1e-6)
    assert encoder.embed(PIXELS).shape == (5, encoder.embed_dim)
    assert torch.equal(encoder.choices(PIXELS), logits.argmax(1))


def test_hard_choice_is_a_row_of_the_bank():
    torch.manual_seed(0)
    encoder = TextualEncoder.build(micro_with(choice="hard"))
    tokens = encoder.image_text.model.encode_text(tokenized(encoder))
    assert torch.allclose(encoder.embed(PIXELS), tokens[encoder.choices(PIXELS)], atol=1e-6)


def test_a_clip_is_encoded_the_same_whatever_came_before(encoder):
    first = encoder.embed(PIXELS)
    encoder.embed(torch.randn(7, 3, 32, 32))
    assert torch.equal(encoder.embed(PIXELS), first)


@pytest.mark.parametrize("depth", ["none", "1", "all"])
def test_half_precision_stays_near_single(encoder, depth):
    exact = encoder.embed(PIXELS)
    encoder.image_text.set_training_depth(parse_depth(depth, "depth"))
    encoder.to_compute_dtype(torch.bfloat16)
    rough = encoder.embed(PIXELS)
    assert rough.dtype == torch.float32
    assert encoder.image_text.model.logit_scale.dtype == torch.float32
    assert torch.cosine_similarity(rough, exact).min() > 0.999
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder.embed(PIXELS), rough)


# --- the bank passes once -----------------------------------------------------------------------


@pytest.mark.slow
def test_frozen_text_encoders_see_the_bank_once(reference):
    encoder = published(reference)
    calls = []
    encoder.sentence_encoder.model.register_forward_hook(lambda *_: calls.append(1))
    pixels = torch.randn(1, 3, 224, 224)
    encoder.to_compute_dtype(torch.bfloat16)
    for _ in range(3):
        encoder.embed(pixels)
        encoder.train()
    assert len(calls) == 1
    assert encoder.num_text_passes == 2, "one by CLIP, one by the sentence encoder"


@pytest.mark.slow
def test_trained_text_encoders_see_it_once_per_forward_and_get_gradients(reference):
    encoder = published(reference, choice="soft")
    encoder.sentence_encoder.set_training_depth(All())
    encoder.train()
    pixels = torch.randn(3, 3, 224, 224)
    encoder.embed(pixels)
    before = encoder.num_text_passes
    encoder.embed(pixels).square().sum().backward()
    assert encoder.num_text_passes == before + 1
    trained = {n: p for n, p in encoder.named_parameters() if p.requires_grad}
    assert trained
    assert all(n.startswith("sentence_encoder.") for n in trained)
    assert [n for n, p in trained.items() if p.grad is None] == []
    with torch.no_grad():
        next(iter(trained.values())).add_(1.0)
    changed = encoder.embed(pixels)
    encoder.sentence_encoder.set_training_depth(Frozen())
    encoder.eval()
    assert torch.allclose(encoder.eval().embed(pixels), encoder.embed(pixels))
    assert changed.shape == (3, 768)


def test_new_weights_void_the_embedded_bank(encoder):
    first = encoder.embed(PIXELS)
    torch.manual_seed(1)
    other = TextualEncoder.build(micro().textual)
    encoder.load_state_dict(other.state_dict())
    assert not torch.equal(encoder.embed(PIXELS), first)
    assert torch.equal(encoder.embed(PIXELS), other.embed(PIXELS))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_bank_does_not_depend_on_when_it_is_embedded(encoder, dtype):
    encoder.embed(PIXELS)
    encoder.to_compute_dtype(dtype)
    before, passes = encoder.embed(PIXELS), encoder.num_text_passes
    encoder.load_state_dict(encoder.state_dict())
    after = encoder.embed(PIXELS)
    assert encoder.num_text_passes == passes + 1
    assert torch.equal(before, after)
    assert after.dtype == torch.float32


@pytest.mark.slow
def test_a_sentence_encoder_with_adapters_says_frozen_what_it_said_in_training(reference):
    sentence_encoder = BackboneConfig(str(reference / "peer/checkpoints/roberta"), lora_rank=2)
    encoder = TextualEncoder.build(micro_with(sentence_encoder=sentence_encoder))
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if is_adapter(name):
                parameter.normal_(0, 0.3)
    encoder.to_compute_dtype(torch.bfloat16)
    trained = encoder.eval().embed(PIXELS)
    encoder.sentence_encoder.set_training_depth(Frozen())
    encoder.to_compute_dtype(torch.bfloat16)
    assert torch.equal(encoder.embed(PIXELS), trained)


def test_a_bank_embedded_under_inference_mode_serves_training_later(encoder):
    with torch.inference_mode():
        encoder.embed(PIXELS)
    encoder.image_text.set_training_depth(All())
    encoder.embed(PIXELS).sum().backward()


# --- training -----------------------------------------------------------------------------------


def test_training_clip_trains_its_image_tower_and_scale_only(encoder):
    encoder.image_text.set_training_depth(All())
    encoder.train()
    encoder.embed(PIXELS).square().sum().backward()
    trained = {n.removeprefix("image_text.model.") for n, p in encoder.named_parameters() if p.requires_grad}
    assert "logit_scale" in trained
    assert all(n == "logit_scale" or n.startswith("visual.") for n in trained)
    assert [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None] == []
    groups = encoder.image_text.depth_groups()
    assert [g.part for g in groups] == ["stem", "block 1", "top"]
    top = {id(p) for p in groups[-1].parameters}
    assert {id(encoder.image_text.model.visual.proj), id(encoder.image_text.model.logit_scale)} <= top


def test_the_tiny_preset_does_not_count_its_vocabulary_as_trainable():
    encoder = TextualEncoder.build(tiny().textual)
    encoder.image_text.set_training_depth(All())
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) < 200_000


def test_training_clip_under_a_hard_choice_is_refused():
    with pytest.raises(ViperError, match="an argmax passes no gradient"):
        TextualEncoder.build(micro_with(choice="hard")).image_text.set_training_depth(Blocks(1))


def test_checkpointed_image_blocks_give_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = TextualEncoder.build(micro_with()).train()
        encoder.image_text.set_training_depth(All())
        if checkpointing:
            checkpoint_activations(encoder.image_text.model)
        encoder.embed(PIXELS).square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters() if p.requires_grad])
    assert all(torch.allclose(a, b) for a, b in zip(*gradients, strict=True))


# --- specs --------------------------------------------------------------------------------------


def folder_of(encoder, folder, config):
    folder.mkdir(exist_ok=True)
    save_file(state_dict_of(encoder), folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return TextualConfig(BackboneConfig(str(folder)))


def test_a_state_dict_without_stated_activation_is_refused(encoder, tmp_path):
    config = dict(micro().textual.image_text.config)
    loaded = TextualEncoder.build(folder_of(encoder, tmp_path / "stated", config))
    assert torch.equal(loaded.embed(PIXELS), encoder.embed(PIXELS))
    del config["quick_gelu"]
    for name, description in (("unstated", config), ("bare", None)):
        with pytest.raises(ViperError, match="does not say which activation"):
            TextualEncoder.build(folder_of(encoder, tmp_path / name, description))


def test_the_activation_matters(encoder, tmp_path):
    config = dict(micro().textual.image_text.config, quick_gelu=False)
    wrong = TextualEncoder.build(folder_of(encoder, tmp_path / "gelu", config))
    assert not torch.allclose(wrong.embed(PIXELS), encoder.embed(PIXELS), atol=1e-6)


def test_openais_own_file_needs_no_description(tmp_path):
    config = {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 64, "layers": 2},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }
    original = TextualEncoder.build(TextualConfig(BackboneConfig(config=config)))
    tensors = state_dict_of(original)
    scalars = {
        "input_resolution": torch.tensor(32),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
    }
    file = tmp_path / "ViT-tiny.safetensors"
    save_file(tensors | scalars, file)
    loaded = TextualEncoder.build(TextualConfig(BackboneConfig(str(file))))
    assert torch.equal(loaded.embed(PIXELS), original.embed(PIXELS))
    (tmp_path / "config.json").write_text(json.dumps(dict(config, quick_gelu=False)))
    with pytest.raises(ViperError, match="OpenAI's CLIP, which needs quick_gelu true"):
        TextualEncoder.build(TextualConfig(BackboneConfig(str(file))))


def test_an_open_clip_folder_brings_its_own_preprocessing(encoder, tmp_path):
    config = folder_of(encoder, tmp_path / "folder", None)
    description = {
        "model_cfg": micro().textual.image_text.config,
        "preprocess_cfg": {
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "interpolation": "bilinear",
            "resize_mode": "squash",
        },
    }
    (tmp_path / "folder" / "open_clip_config.json").write_text(json.dumps(description))
    loaded = TextualEncoder.build(config)
    assert loaded.crop_spec == CropSpec(32, resize_in_uint8=True)
    assert torch.equal(loaded.embed(PIXELS), encoder.embed(PIXELS))


def test_weights_that_do_not_fit_are_named(encoder, tmp_path):
    config = copy.deepcopy(micro().textual.image_text.config)
    config["vision_cfg"]["layers"] = 2
    with pytest.raises(ViperError, match=r"visual\.transformer\.resblocks\.1\..* is nothing, expected"):
        TextualEncoder.build(folder_of(encoder, tmp_path / "folder", config))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ViT-B-32/openai", "different activations; name the model with -quickgelu"),
        (
            "ViT-B-32-quickgelu/laion2b_s34b_b79k",
            "different activations; name the model without -quickgelu|no weights",
        ),
        ("ViT-B-32/nothing", "has no weights 'nothing' on the hub; open_clip knows: openai"),
        ("ViT-B-23/openai", "did you mean ViT-B-32"),
        ("/no/such/folder", "does not exist; put its folder"),
        ("ViT-B-32-quickgelu/openai", r"timm/vit_base_patch32_clip_224\.openai: .*\); put its folder"),
        ("hf-hub:someone/clip", r"someone/clip: .*\); put its folder .* \$VIPER_BACKBONES/image_text"),
    ],
)
def test_a_spec_that_cannot_be_followed_says_why(spec, message, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ViperError, match=message) as caught:
        TextualEncoder.build(TextualConfig(BackboneConfig(spec)))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_named_model_is_taken_from_the_shelf(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    shelf = tmp_path / "image_text"
    shelf.mkdir()
    save_file({"visual.proj": torch.zeros(2, 2)}, shelf / "open_clip_model.safetensors")
    monkeypatch.setenv("VIPER_BACKBONES", str(tmp_path))
    with pytest.raises(ViperError, match=rf"image_text: {shelf}: they make more than"):
        TextualEncoder.build(TextualConfig(BackboneConfig("ViT-B-32-quickgelu/openai")))


def test_the_published_preset_names_the_quick_gelu_model():
    assert paper().textual.image_text.source == "ViT-B-32-quickgelu/openai"


# --- saved and loaded again ---------------------------------------------------------------------


@pytest.mark.slow
def test_assets_hold_clip_tokeniser_and_bank(reference, tmp_path):
    encoder = published(reference)
    encoder.save_assets(tmp_path)
    assert (tmp_path / "sentence_encoder" / "vocab.json").is_file()
    description = json.loads((tmp_path / "image_text" / "open_clip_config.json").read_text())
    assert description["model_cfg"]["quick_gelu"] is True
    config = TextualConfig(
        BackboneConfig("moved/away"), BackboneConfig("moved/too"), bank="moved.txt", choice="hard", crop="paper"
    )
    again = TextualEncoder.build(config, Search(tmp_path, encoder.records()))
    pixels = torch.randn(2, 3, 224, 224)
    assert again.sentences == encoder.sentences
    assert torch.equal(again.embed(pixels), encoder.embed(pixels))


def test_weights_bundled_with_the_checkpoint_need_no_source(encoder, tmp_path):
    encoder.save_assets(tmp_path)
    config = TextualConfig(BackboneConfig("was/somewhere"))
    again = TextualEncoder.build(config, Search(tmp_path, bundled=frozenset({"image_text"})))
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.embed(PIXELS), encoder.embed(PIXELS))
    assert again.records() == {}


def test_another_bank_replaces_the_checkpoints(encoder, tmp_path):
    encoder.save_assets(tmp_path / "assets")
    (tmp_path / "bank.txt").write_text("# two\nyes\n\nno\n")
    again = TextualEncoder.build(
        micro().textual,
        Search(tmp_path / "assets", overrides={"sentence_bank": str(tmp_path / "bank.txt")}),
    )
    assert again.sentences == ["yes", "no"]


# --- the bank file ------------------------------------------------------------------------------


def test_our_bank_covers_the_emotions_and_fits_the_encoders():
    sentences = read_bank(None)
    assert 40 <= len(sentences) <= 100
    assert all(4 <= len(s.split()) <= 12 for s in sentences), "16 tokens must hold a sentence"
    text = " ".join(sentences)
    assert all(name not in text for name in ("Ekman", "MuSe"))
    assert len(HUME_REACTION.names) == 7


def test_our_bank_is_not_the_published_one(reference):
    theirs = {s.lower() for s in json.loads((reference / "peer/templates.json").read_text())}
    assert theirs.isdisjoint(s.lower() for s in read_bank(None))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.txt", "only one\n", "has 1 sentences; allowed are 2 to 4096"),
        ("b.json", '["a", "b", "a"]', "sentence 3 is listed twice: 'a'"),
        ("b.json", '["a", " "]', "sentence 2 has 1 characters"),
        ("b.txt", "a\n" + "x" * 401, "sentence 2 has 401 characters; allowed are 1 to 400"),
        ("b.json", '{"a": 1}', "a JSON list of strings is expected"),
        ("b.json", "[", "not valid JSON"),
        ("b.txt", None, "no such file"),
        ("b.json", json.dumps([str(i) for i in range(4097)]), "has 4097 sentences"),
    ],
)
def test_a_bad_bank_is_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ViperError, match=message):
        read_bank(tmp_path / name)


# --- published numbers --------------------------------------------------------------------------


def clip_preprocess(image: Image.Image, spec: CropSpec) -> torch.Tensor:
    """OpenAI's own: short side to 224 by PIL bicubic, centre, normalise."""
    width, height = image.size
    size = (224, int(224 * height / width)) if width <= height else (int(224 * width / height), 224)
    image = image.resize(size, Image.BICUBIC)
    left, top = round((image.width - 224) / 2), round((image.height - 224) / 2)
    pixels = torch.from_numpy(np.array(image.crop((left, top, left + 224, top + 224)))).permute(2, 0, 1) / 255.0
    return (pixels - torch.tensor(spec.mean)[:, None, None]) / torch.tensor(spec.std)[:, None, None]


@pytest.mark.slow
def test_the_published_sentences_are_chosen(reference):
    encoder = published(reference)
    assert encoder.crop_spec.integer_boxes
    assert encoder.crop_spec.aspect == "short_side_center"
    expected = json.loads((reference / "peer/expected/expected.json").read_text())
    crops = [
        Image.open(reference / f"peer/expected/crops/frame_{i}.jpg").convert("RGB")
        for i in expected["frame_indices"]
    ]
    pixels = torch.stack([clip_preprocess(crop, encoder.crop_spec) for crop in crops])
    rows = torch.from_numpy(np.load(reference / "peer/expected/features.npz")["textual"])
    assert encoder.choices(pixels).tolist() == expected["template_indices"]
    assert (encoder.embed(pixels) - rows).abs().max() < 1e-5
    assert encoder.choices(pixels.flip(0)).tolist() != expected["template_indices"]


def test_gelu_in_place_of_quick_gelu_is_quietly_wrong(reference):
    encoder = published(reference)
    folder = reference / "peer/checkpoints/clip"
    config = dict(json.loads((folder / "config.json").read_text()), quick_gelu=False)
    config.pop("note")
    wrong = TextualEncoder.build(TextualConfig(BackboneConfig(config=config)))
    wrong.image_text.model.load_state_dict(load_file(folder / "model.safetensors"))
    pixels = torch.randn(4, 3, 224, 224)
    right = F.normalize(encoder.image_text.model.encode_image(pixels), dim=-1)
    assert not torch.allclose(
        right, F.normalize(wrong.image_text.model.encode_image(pixels), dim=-1), atol=1e-3
    )


def write_tokenizer_with_code(folder, ran) -> None:
    """Of a kind that only code beside it can read."""
    own = write_text_encoder(folder / "text")
    shutil.copy(own / "tokenizer.json", folder)
    more = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.T"] * 2}}
    told = json.loads((own / "tokenizer_config.json").read_text()) | more
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    (folder / "config.json").write_text(
        '{"model_type": "vit"}'
    )  # transformers has no tokenizer of its own for it
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")


@pytest.mark.parametrize("settings", [{}, {"trust_remote_code": True}])
def test_code_beside_a_clip_is_neither_run_nor_asked_about(encoder, settings, tmp_path, monkeypatch):
    config = folder_of(encoder, tmp_path / "folder", None)
    architecture = copy.deepcopy(micro().textual.image_text.config)
    architecture["text_cfg"] |= {"hf_tokenizer_name": "own", "tokenizer_kwargs": settings}
    described = json.dumps({"model_cfg": architecture, "preprocess_cfg": {}})
    (tmp_path / "folder" / "open_clip_config.json").write_text(described)
    write_tokenizer_with_code(tmp_path / "folder", tmp_path / "ran")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a person was asked"))
    with pytest.raises(ViperError, match=r"image_text: .*(tokenizer cannot be read|'trust_remote_code')"):
        TextualEncoder.build(config)
    assert not (tmp_path / "ran").exists()


def test_code_beside_a_sentence_encoder_is_neither_run_nor_asked_about(tmp_path, monkeypatch):
    write_tokenizer_with_code(tmp_path, tmp_path / "ran")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a person was asked"))
    with pytest.raises(ViperError, match=r"sentence_encoder: .* its tokenizer cannot be read"):
        read_tokenizer(Found("sentence_encoder", str(tmp_path), None, tmp_path, tmp_path))
    assert not (tmp_path / "ran").exists()
