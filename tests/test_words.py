"""Words are a modality: read when they are said, absent where nothing is said, and never an empty string."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from support.models import decoded, model_of, view_of
from support.text_encoders import FAMILIES, write_text_encoder

import viper_e2e
from viper_e2e.clip import Cue, cues_within, with_words
from viper_e2e.config import BackboneConfig, WordsConfig, with_settings
from viper_e2e.config.depth import Blocks, Depths
from viper_e2e.config.presets import micro
from viper_e2e.encoders import PreparedClip
from viper_e2e.encoders.words import ClipWords, WordsEncoder
from viper_e2e.errors import ViperError
from viper_e2e.faces import FaceTrack
from viper_e2e.model.viper import ViPER

KINDS = pytest.mark.parametrize("kind", ["tokens", "concat", "ensemble"])


def saying(*cues: Cue, seed: int = 0, frames: int = 4):
    return replace(decoded(frames, seed=seed), words=cues)


def inputs(encoder: WordsEncoder, *cues: Cue, frames: int = 1) -> ClipWords:
    """What is read of a clip in which these are said and nothing is seen or heard."""
    nobody = FaceTrack.of_no_face(frames, 8, 8, torch.device("cpu"))
    clip = PreparedClip(
        name="said",
        seconds=torch.arange(frames) / 4,
        duration_seconds=frames / 4,
        track=nobody,
        pixels=None,
        sound=[],
        sound_seconds=0.0,
        sound_instants=None,
        units=None,
        display_size=(8, 8),
        frame_size=(8, 8),
        words=cues,
    )
    return encoder.inputs(view_of(clip))


def stream(encoder: WordsEncoder, *cues: Cue, frames: int = 4):
    with torch.no_grad():
        made = encoder([inputs(encoder, *cues, frames=frames)])
    return made.tokens[0], made.present[0]


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return WordsEncoder.build(micro().words).eval()


# --- when -------------------------------------------------------------------------------------------


def test_timed_words_are_at_the_frames_nearest_to_them_and_nowhere_else(encoder):
    early, present = stream(encoder, Cue("oh no", 0.0, 0.1))
    assert present.tolist() == [True, False, False, False]
    assert not early[1:].any()
    late, present = stream(encoder, Cue("oh no", 0.7, 90.0))
    assert present.tolist() == [False, False, False, True]
    torch.testing.assert_close(late[3], early[0])
    both, present = stream(encoder, Cue("oh", 0.0, 0.1), Cue("no", 0.7, 0.75))
    assert present.tolist() == [True, False, False, True]
    assert not torch.equal(both[0], both[3])


def test_the_words_of_a_long_cue_are_spread_over_its_time(encoder):
    _, present = stream(encoder, Cue("a cue that lasts from the first to the last frame", 0.0, 0.75))
    assert present.all()


def test_words_without_times_are_at_every_frame(encoder):
    tokens, present = stream(encoder, Cue("oh no"), frames=2)
    assert present.all()
    assert torch.equal(tokens[0], tokens[3])
    timed, _ = stream(encoder, Cue("oh no", 0.0, 0.01), frames=2)
    torch.testing.assert_close(timed[0], tokens[0])


def test_a_word_is_read_with_those_around_it(encoder):
    one, _ = stream(encoder, Cue("great", 0.0, 0.1))
    other, _ = stream(encoder, Cue("great", 0.0, 0.1), Cue("not", 0.7, 0.8))
    assert not torch.allclose(one[0], other[0], atol=1e-4)


@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_an_empty_text_is_no_words(encoder, text):
    assert with_words(decoded(words=False), [Cue(text)]).words == ()
    if not text:
        assert not stream(encoder, Cue(text))[1].any()


def test_a_stretch_of_a_clip_has_what_is_said_in_it_on_its_own_clock():
    cues = [Cue("before", 0.0, 1.0), Cue("into", 0.5, 2.5), Cue("within", 3.0, 4.0), Cue("after", 5.0, 6.0)]
    kept = cues_within([*cues, Cue("ever")], 2.0, 5.0)
    assert kept == (Cue("into", -1.5, 0.5), Cue("within", 1.0, 2.0), Cue("ever"))


# --- absent and hidden ------------------------------------------------------------------------------


@KINDS
def test_a_clip_whose_words_are_hidden_is_one_without_words(kind):
    model = model_of("visual", "words", kind=kind, num_cross_heads=1, num_latent_heads=1, hidden_dim=4)
    hidden = torch.tensor([[False, True]])
    said = [saying(Cue("oh", 0.0, 0.2), Cue("no")), saying(Cue("what a surprise", 0.5, 0.7)), saying()]
    with torch.no_grad():
        outputs = [model([clip], hidden=hidden).intensities for clip in said]
        heard = model([said[0]])
    assert all(torch.equal(one, outputs[2]) for one in outputs)
    assert torch.equal(outputs[2], model([said[2]]).intensities)
    assert not torch.equal(heard.intensities, outputs[2])
    assert heard.present.tolist() == [[True, True]]


@pytest.mark.parametrize("said", [(), (Cue("oh no", 0.0, 0.3),)], ids=["nothing", "something"])
def test_every_parameter_gets_its_gradient_whatever_is_said(said):
    model = model_of("visual", "words", train="all").train()
    model([saying(*said), None]).intensities.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


def test_words_that_nobody_says_leave_the_encoder_as_it_is():
    model = model_of("visual", "words", train="all").train()
    model([saying(), saying(seed=1)]).intensities.sum().backward()
    assert not any(p.grad.any() for p in model.encoders["words"].parameters() if p.requires_grad)


def test_a_model_without_words_never_sees_them():
    model = model_of("visual")
    with torch.no_grad():
        one, other = (model([clip]) for clip in (saying(Cue("oh no")), saying()))
    assert torch.equal(one.intensities, other.intensities)
    assert one.words == (None,)


# --- batches ----------------------------------------------------------------------------------------


def test_padding_says_nothing():
    model = model_of("words", train="all")
    clips = [saying(Cue("oh")), saying(Cue("what a long surprise it is to see you here, and there"), seed=1)]
    with torch.no_grad():
        together = model(clips).intensities
        model.backbones["words"].model.embeddings.word_embeddings.weight[0] = 1e3
        alone = torch.cat([model([clip]).intensities for clip in clips])
        padded_loudly = model(clips).intensities
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(together, padded_loudly, atol=1e-6, rtol=0)


def test_frozen_tokens_do_not_depend_on_company():
    model = model_of("words")
    clips = [saying(Cue("oh")), saying(Cue("what a long surprise it is to see you here, and there"), seed=1)]
    with torch.no_grad():
        outputs = [model(batch, keep_streams=True) for batch in (clips, *([clip] for clip in clips))]
    seen = [output.streams["words"].tokens for output in outputs]
    assert torch.equal(seen[0], torch.cat(seen[1:]))


def test_a_long_text_is_read_in_pieces_and_what_is_too_long_is_told():
    torch.manual_seed(0)
    config = with_settings(
        micro(), {"modalities": ("words",), "words.max_tokens": 40, "words.piece_tokens": 16}
    )
    model = ViPER(config).eval()
    text = "word " * 20
    record = model.predict([replace(saying(Cue(text.strip())), name="long")])[0]
    assert record["words"] == text[:40]
    assert record["warning"] == "of its words, 99 tokens, the first 40 are read (words.max_tokens)"
    assert model.predict(saying(Cue("short")))["warning"] is None
    pieces = inputs(model.encoders["words"], Cue(text)).pieces
    assert [len(piece) for piece in pieces] == [18, 18, 10]
    with torch.no_grad():
        longer = model([saying(Cue(text + "and more that nobody reads"))]).intensities
        assert torch.equal(longer, model([saying(Cue(text))]).intensities)


# --- any text encoder -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_encoders_of_any_family_read_every_language(kind, tmp_path):
    folder = write_text_encoder(tmp_path / kind, kind)
    built = WordsEncoder.build(WordsConfig(BackboneConfig(str(folder)), layers=2)).eval()
    assert built.embed_dim == 32
    for text in ("oh no", "何てことだ", "о нет", "ой! 😀 " * 12):
        tokens, present = stream(built, Cue(text, 0.0, 0.7))
        assert present[0]
        assert tokens.isfinite().all()
    a, b = (stream(built, Cue(text))[0][0] for text in ("oh no", "oh yes"))
    assert not torch.allclose(a, b, atol=1e-4)
    built.backbone.set_training_depth(Blocks(1))
    built.train()
    built([inputs(built, Cue(text)) for text in "ab"]).tokens.square().sum().backward()
    assert all(p.grad is not None for p in built.parameters() if p.requires_grad)


def test_a_folders_tokenizer_and_config_travel_with_the_checkpoint(tmp_path):
    config = with_settings(
        micro(),
        {
            "modalities": ("words",),
            "words": WordsConfig(BackboneConfig(str(write_text_encoder(tmp_path / "own", "xlm-roberta")))),
        },
    )
    model = ViPER(config).eval()
    model.save_pretrained(tmp_path / "model", self_contained=True)
    (tmp_path / "own").rename(tmp_path / "elsewhere")
    again = viper_e2e.load(tmp_path / "model")
    with torch.no_grad():
        assert torch.equal(again([saying(Cue("oh no"))]).intensities, model([saying(Cue("oh no"))]).intensities)


def test_weights_of_another_folder_can_take_its_place(tmp_path):
    config = with_settings(
        micro(),
        {
            "modalities": ("words",),
            "words": WordsConfig(BackboneConfig(str(write_text_encoder(tmp_path / "own")))),
        },
    )
    ViPER(config).save_pretrained(tmp_path / "model")
    (tmp_path / "own").rename(tmp_path / "moved")
    with pytest.raises(ViperError, match=r"words: backbone .*own does not exist"):
        viper_e2e.load(tmp_path / "model")
    viper_e2e.load(tmp_path / "model", overrides={"words": str(tmp_path / "moved")})


def test_code_in_a_models_folder_is_never_run(tmp_path):
    folder = write_text_encoder(tmp_path / "own")
    (folder / "configuration_evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    auto = {"AutoConfig": "configuration_evil.Config", "AutoTokenizer": ["configuration_evil.T", None]}
    for file in ("config.json", "tokenizer_config.json"):
        data = json.loads((folder / file).read_text()) | {"auto_map": auto}
        (folder / file).write_text(json.dumps(data))
    WordsEncoder.build(WordsConfig(BackboneConfig(str(folder))))
    data["model_type"] = "evil"
    (folder / "config.json").write_text(json.dumps(data))
    with pytest.raises(ViperError, match=r"words: .*own .*never run"):
        WordsEncoder.build(WordsConfig(BackboneConfig(str(folder))))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_attention_from_the_hub_is_code_and_not_taken_from_a_model(key, tmp_path):
    folder = write_text_encoder(tmp_path / "own")
    data = json.loads((folder / "config.json").read_text()) | {key: "somebody/kernel"}
    (folder / "config.json").write_text(json.dumps(data))
    with pytest.raises(ViperError, match=r"words: .*from the hub \(somebody/kernel\).*remove"):
        WordsEncoder.build(WordsConfig(BackboneConfig(str(folder))))


@pytest.mark.parametrize("kind", ["vit", "t5"])
def test_what_reads_no_text_is_refused_in_one_line(kind, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(ViperError, match=f"words: .* is a {kind}, .* allowed are bert"):
        WordsEncoder.build(WordsConfig(BackboneConfig(str(tmp_path))))


@pytest.mark.parametrize("lost", ["tokenizer.json", "tokenizer_config.json"])
def test_a_folder_without_a_tokenizer_says_what_it_needs(lost, tmp_path):
    folder = write_text_encoder(tmp_path / "own")
    for path in folder.glob("*"):
        if path.name == lost or path.name == "tokenizer.json":
            path.unlink()
    with pytest.raises(ViperError, match=r"words: .*own.* tokenizer.json"):
        WordsEncoder.build(WordsConfig(BackboneConfig(str(folder))))


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    folder = write_text_encoder(tmp_path / "own")
    data = json.loads((folder / "tokenizer.json").read_text())
    data["added_tokens"].append({**data["added_tokens"][0], "id": 260, "content": "<new>"})
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(ViperError, match="knows 261 tokens, its model 260"):
        WordsEncoder.build(WordsConfig(BackboneConfig(str(folder))))


def test_adapters_train_beside_frozen_words(tmp_path):
    config = with_settings(micro(), {"modalities": ("words",), "words.backbone.lora_rank": 2})
    model = ViPER(config)
    model.set_training_depths(Depths())
    model.train()([saying(Cue("oh no"))]).intensities.sum().backward()
    trained = [name for name, p in model.backbones["words"].named_parameters() if p.requires_grad]
    assert trained
    assert all("lora" in name for name in trained)


def test_times_are_no_part_of_what_is_not_said():
    """Where no time is noted, none is made up."""
    encoder = WordsEncoder.build(micro().words)
    seconds = inputs(encoder, Cue("a", 1.0, 2.0), Cue("b")).token_seconds
    assert 1.0 <= seconds[0] <= 2.0
    assert math.isnan(seconds[-1])
