"""The audio branch: spans and windows, the same in any company, each model's own ears, published numbers."""

from __future__ import annotations

import copy
import json
import math
import wave
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.audio_encoders import KINDS, RATE, WAV2VEC2, clip, config_of, noise
from transformers import Wav2Vec2FeatureExtractor, WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from viper_e2e.config import AudioConfig, BackboneConfig, model_config_from_dict
from viper_e2e.config.depth import All, Blocks, parse_depth
from viper_e2e.config.presets import PRESETS, micro
from viper_e2e.encoders.audio import AudioEncoder, ClipSound
from viper_e2e.encoders.sound import Frames
from viper_e2e.errors import ViperError


def build(kind: str = "wav2vec2", sound: str = "spans", span_seconds: float = 0.5, **options) -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder.build(config_of(kind, **options), sound, span_seconds, RATE).eval()


SILENT = clip(stream=0.0)


# --- company does not matter --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sound", ["spans", "windows"])
def test_a_frozen_encoder_gives_the_same_bits_alone_and_in_a_batch(kind, sound):
    if kind == "whisper" and sound == "windows":
        pytest.skip("a pass of 30 s per window: too slow to repeat here")
    encoder = build(kind, sound)
    clips = [clip((0.0, noise(2.0))), SILENT, clip((0.3, noise(0.7, 2)), (1.4, noise(0.6, 3)))]
    together = encoder(clips)
    for i, one in enumerate(clips):
        alone = encoder([one])
        assert torch.equal(alone.tokens[0], together.tokens[i])
        assert torch.equal(alone.present[0], together.present[i])
        assert torch.equal(alone.seconds[0], together.seconds[i])
    assert torch.equal(encoder(clips[::-1]).tokens, together.tokens.flip(0))


@pytest.mark.parametrize("kind", KINDS)
def test_trained_in_a_batch_or_alone_is_the_same_to_rounding(kind):
    clips = [clip((0.0, noise(2.0))), clip((0.0, noise(2.0, 2))), clip((0.3, noise(0.7, 3)))]
    encoder = build(kind)
    frozen = encoder(clips).tokens
    encoder.backbone.set_training_depth(All())
    trained = encoder.eval()(clips).tokens
    assert torch.allclose(trained, frozen, atol=1e-5)
    assert trained.requires_grad


# --- spans --------------------------------------------------------------------------------------


def made_for(model: WhisperEncoder, num_positions: int) -> WhisperEncoder:
    """transformers' encoder for that length (20 ms each), with the same weights and the first positions."""
    settings = model.config.to_dict() | {"max_source_positions": num_positions}
    short = WhisperEncoder(WhisperConfig(**settings)).eval()
    weights = model.state_dict()
    weights["embed_positions.weight"] = weights["embed_positions.weight"][:num_positions]
    short.load_state_dict(weights)
    return short


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_the_mean_of_the_states_whose_centre_is_in_its_span(kind):
    encoder = build(kind, span_seconds=0.2)
    samples = noise(1.2)
    out = encoder([clip((3.0, samples), seconds=(3.1, 3.5, 9.0))])
    model = encoder.backbone.model
    if kind == "whisper":
        extractor = WhisperFeatureExtractor()
        mel = extractor(samples.numpy(), sampling_rate=RATE, return_tensors="pt").input_features
        states, first = model(mel).last_hidden_state[0], 0.0
    elif kind == "whisper unpadded":
        mel = WhisperFeatureExtractor()(samples.numpy(), sampling_rate=RATE, return_tensors="pt").input_features
        states, first = made_for(model, 75)(mel[..., :150]).last_hidden_state[0], 0.0
    else:
        levelled = (samples - samples.mean()) / (samples.var(correction=0) + 1e-7).sqrt()
        states, first = model(levelled[None]).last_hidden_state[0], 199.5
    centres = 3.0 + (torch.arange(len(states), dtype=torch.float64) * 320 + first) / RATE
    for token, instant in enumerate((3.1, 3.5)):
        inside = (centres >= instant - 0.1) & (centres < instant + 0.1)
        assert inside.sum() == 10
        assert torch.allclose(out.tokens[0, token], states[inside].mean(0), atol=2e-4)
    assert out.present.tolist() == [[True, True, False]]
    assert torch.equal(out.tokens[0, 2], torch.zeros(16))
    assert torch.allclose(out.seconds, torch.tensor([[3.1, 3.5, 9.0]]))


def test_receptive_fields_are_where_the_convolutions_put_them():
    frames = Frames.of(WAV2VEC2["conv_kernel"], WAV2VEC2["conv_stride"])
    assert (frames.stride, frames.minimum, frames.first) == (320, 400, 199.5)
    encoder = build("wav2vec2").double()
    samples = torch.zeros(1, 4000, dtype=torch.float64, requires_grad=True)
    features = encoder.backbone.model.feature_extractor(samples + torch.randn(1, 4000).double() * 0.1)
    features[0, :, 5].sum().backward()
    touched = samples.grad[0].nonzero().flatten()
    assert (touched.min() + touched.max()) / 2 == 5 * frames.stride + frames.first


def test_whisper_hears_where_a_sound_is():
    encoder = build("whisper", span_seconds=0.4)
    quiet = torch.zeros(2 * RATE)
    loud = quiet.clone()
    loud[int(1.4 * RATE) : int(1.6 * RATE)] = noise(0.2)
    encoder.backbone.model.layers = torch.nn.ModuleList()  # convolutions only: attention would spread it
    difference = [
        encoder([clip((0.0, samples), seconds=(0.5, 1.0, 1.5, 1.9))]).tokens[0] for samples in (quiet, loud)
    ]
    changed = (difference[0] - difference[1]).abs().amax(1)
    assert changed.argmax() == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_very_short_run_is_heard(kind):
    encoder = build(kind)
    out = encoder([clip((1.0, noise(0.002)), seconds=(0.0, 1.0))])
    assert out.present.tolist() == [[False, True]]
    assert out.tokens.isfinite().all()
    assert out.tokens[0, 1].abs().sum() > 0


@pytest.mark.parametrize("kind", ["wav2vec2", "whisper", "whisper unpadded"])
def test_long_runs_are_encoded_in_pieces_that_miss_nothing(kind):
    encoder = build(kind, max_piece_seconds=0.8)
    lengths = []
    encoder.backbone.model.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape))
    instants = torch.arange(0.0, 2.0, 0.1)
    out = encoder([clip((0.0, noise(2.0)), seconds=instants.tolist())])
    assert out.present.all()
    if kind == "wav2vec2":
        assert lengths == [(2, 10667), (1, 10666)]
    if kind == "whisper unpadded":
        assert lengths == [(3, 80, 100)]


def test_whisper_takes_no_more_than_thirty_seconds_at_once():
    encoder = build("whisper", max_piece_seconds=100.0)
    shapes = []
    encoder.backbone.model.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    encoder([clip((0.0, noise(31.0)), stream=31.0)])
    assert shapes == [(2, 80, 3000)]


def test_without_padding_whisper_hears_no_more_than_there_is():
    encoder = build("whisper unpadded", max_piece_seconds=30.0)
    shapes = []
    encoder.backbone.model.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    lengths = [0.01, 0.5, 0.51, 3.0, 29.9]
    clips = [clip((0.0, noise(seconds)), stream=seconds) for seconds in lengths]
    encoder(clips)
    assert [shape[-1] for shape in shapes] == [50, 50, 100, 300, 3000]
    shapes.clear()
    encoder.backbone.set_training_depth(All())
    encoder(clips)
    assert sorted(shapes) == [(1, 80, 100), (1, 80, 300), (1, 80, 3000), (2, 80, 50)], "equal lengths together"


def test_what_says_nothing_of_padding_keeps_whispers_own():
    """Checkpoints from before there was a choice; and what is published stays as it was."""
    assert model_config_from_dict({"audio": {"layer": None}}, "config.json").audio.padding == "full"
    assert {name: make().audio.padding for name, make in PRESETS.items()} == {
        "paper": "full",
        "base": "clip",
        "tiny": "full",
        "micro": "full",
    }


def test_thirty_seconds_of_sound_are_the_same_to_whisper_either_way():
    samples = clip((0.0, noise(30.0)), seconds=(1.0, 29.0), stream=30.0)
    padded, unpadded = (build(kind, max_piece_seconds=30.0) for kind in ("whisper", "whisper unpadded"))
    assert torch.equal(padded([samples]).tokens, unpadded([samples]).tokens)


# --- windows ------------------------------------------------------------------------------------


def test_windows_are_the_published_ones():
    encoder = build("wav2vec2", "windows")
    seen = []
    encoder.backbone.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    samples = torch.arange(1, 50_001, dtype=torch.float32)
    encoder.pieces = replace(encoder.pieces, normalises=False)
    out = encoder([clip((0.5, samples), seconds=[0.0] * 4, stream=50_000 / RATE)])
    (batch,) = seen
    assert batch.shape == (4, RATE)
    assert batch[:, 0].tolist() == [1.0, 10_001.0, 20_001.0, 30_001.0]
    assert batch[:, -1].tolist() == [16_000.0, 26_000.0, 36_000.0, 46_000.0], "cut to a second"
    assert torch.allclose(out.seconds[0], 0.5 + torch.tensor([1.0, 2.0, 3.0, 4.0]) * 10_000 / RATE)
    short = encoder([clip((0.0, samples[:5000]), seconds=[0.0] * 4, stream=5000 / RATE)])
    assert short.present.all()
    assert (seen[1][:, 2000:] == 0).all(), "padded with zeros"


def test_windows_over_parts_of_a_stream_are_those_over_all_of_it():
    encoder = build("wav2vec2", "windows")
    samples, instants = noise(20.0), [0.0] * 4
    whole = encoder([clip((0.0, samples), seconds=instants, stream=20.0)])
    starts = [0, 4, 8, 12]
    parts = [(float(s), samples[s * RATE : (s + 1) * RATE]) for s in starts]
    assert torch.equal(encoder([clip(*parts, seconds=instants, stream=20.0)]).tokens, whole.tokens)
    gap = encoder([clip(parts[0], parts[2], seconds=instants, stream=20.0)])
    assert gap.present.tolist() == [[True, False, True, False]]


def test_a_few_samples_still_make_windows():
    encoder = build("wavlm", "windows")
    out = encoder([clip((0.0, noise(0.0002)), seconds=[0.0] * 8, stream=0.0002)])
    assert out.present.any()
    assert out.tokens.isfinite().all()


# --- absence ------------------------------------------------------------------------------------


def test_silence_is_absent_and_shorter_clips_are_padded():
    out = build()([SILENT, clip((0.0, noise(1.0)), seconds=(0.0, 0.5))])
    assert out.tokens.shape == (2, 4, 16)
    assert out.present.tolist() == [[False] * 4, [True, True, False, False]]
    assert (out.tokens[0] == 0).all()
    assert (out.tokens[1, 2:] == 0).all()


@pytest.mark.parametrize("kind", [*KINDS, "x-vector"])
def test_without_any_sound_every_trained_parameter_still_gets_a_gradient_of_zero(kind):
    encoder = build(kind) if kind != "x-vector" else build("wavlm", "windows", head="xvector")
    encoder.backbone.set_training_depth(All())
    encoder.train()
    out = encoder([SILENT, SILENT])
    assert (out.tokens == 0).all()
    out.tokens.sum().backward()
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert (parameter.grad == 0).all(), name


# --- training and dtype -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_training_reaches_every_parameter_and_stops_at_the_depth_asked(kind):
    encoder = build(kind)
    encoder.backbone.set_training_depth(All())
    encoder.train()
    batch = [clip((0.0, noise(1.0)))]
    encoder(batch).tokens.square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None] == []
    assert [g.part for g in encoder.backbone.depth_groups()] == (
        ["stem", "block 1", "block 2"] + ([] if "post-norm" in kind else ["top"])
    )
    encoder.zero_grad()
    encoder.backbone.set_training_depth(Blocks(1))
    encoder(batch).tokens.square().sum().backward()
    touched = [n for n, p in encoder.named_parameters() if p.grad is not None and p.grad.any()]
    assert touched
    assert all(".layers.1." in n for n in touched)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_random_happens_in_training_mode_beyond_dropout(kind):
    encoder = build(kind)
    model = encoder.backbone.model
    for switch in ("layerdrop", "encoder_layerdrop"):
        assert getattr(model.config, switch, 0.0) == 0.0
    assert not getattr(model.config, "apply_spec_augment", False)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if hasattr(model, "dropout") and isinstance(model.dropout, float):
        pytest.skip("whisper keeps its dropout as numbers")
    encoder.backbone.set_training_depth(All())
    batch = [clip((0.0, noise(1.0)))]
    assert torch.equal(encoder.train()(batch).tokens, encoder.eval()(batch).tokens)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", ["none", "1", "all"])
def test_half_precision_stays_near_single(kind, depth):
    encoder = build(kind)
    batch = [clip((0.0, noise(1.0)))]
    exact = encoder(batch).tokens
    encoder.backbone.set_training_depth(parse_depth(depth, "depth"))
    encoder.to_compute_dtype(torch.bfloat16)
    rough = encoder.eval()(batch).tokens
    assert rough.dtype == torch.float32
    assert torch.cosine_similarity(rough[0, :2], exact[0, :2]).min() > 0.99
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encoder(batch).tokens, rough)


@pytest.mark.parametrize("kind", KINDS)
def test_a_chosen_layer_is_transformers_hidden_state_and_nothing_behind_it_is_kept(kind):
    whole, cut = build(kind, span_seconds=10.0), build(kind, span_seconds=10.0, layer=1)
    batch = [clip((0.0, noise(0.6)), seconds=(0.3,))]
    inputs = []
    whole.backbone.model.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    whole(batch)
    model = whole.backbone.model
    model = made_for(model, inputs[0].shape[-1] // 2) if kind == "whisper unpadded" else model
    states = model(inputs[0], output_hidden_states=True).hidden_states
    count = 30 if "whisper" in kind else states[1].shape[1]
    assert torch.allclose(cut(batch).tokens[0, 0], states[1][0, :count].mean(0), atol=1e-6)
    assert len(cut.backbone.blocks()) == 1
    cut.backbone.set_training_depth(All())
    cut.train()(batch).tokens.sum().backward()
    assert [n for n, p in cut.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.slow
@pytest.mark.parametrize("padding", ["full", "clip"])
@pytest.mark.parametrize("kind", KINDS)
def test_several_layers_stand_side_by_side_and_the_last_is_what_it_was_alone(kind, padding):
    alone, several = build(kind, padding=padding), build(kind, padding=padding, layers=2)
    batch = [clip((0.0, noise(0.6)), seconds=(0.3,))]
    inputs = []
    several.backbone.model.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    tokens = several(batch).tokens
    assert tokens.shape[-1] == several.embed_dim == 32
    assert torch.equal(tokens[..., 16:], alone(batch).tokens)
    states = several.backbone.model(inputs[0], output_hidden_states=True).hidden_states[1]
    # The middle one of 2 blocks is behind the first.
    count = several.pieces.frames.number(len(batch[0].runs[0][1])) if kind == "whisper" else states.shape[1]
    inside = (several.pieces.frames.centres(count, len(batch[0].runs[0][1])) / RATE - 0.3).abs() <= 0.25
    expected = torch.nn.functional.layer_norm(states[0, :count][inside], (16,)).mean(0)
    torch.testing.assert_close(tokens[0, 0, :16], expected, atol=1e-5, rtol=1e-5)


# --- each model's own input ---------------------------------------------------------------------


def test_the_spectrogram_is_whispers_even_under_autocast():
    encoder = build("whisper")
    pieces = [noise(3.0), noise(0.01, 2), torch.zeros(100), noise(30.0, 3)]
    expected = WhisperFeatureExtractor()([p.numpy() for p in pieces], sampling_rate=RATE, return_tensors="pt")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mel = encoder.log_mel(pieces)
    assert mel.dtype == torch.float32
    assert torch.allclose(mel, expected.input_features, atol=1e-4)


@pytest.mark.parametrize("seconds", [0.005, 0.7, 1.0, 29.4])
def test_the_spectrogram_of_a_piece_is_the_beginning_of_the_one_that_silence_follows(seconds):
    padded, unpadded = (build(kind).log_mel([noise(seconds)]) for kind in ("whisper", "whisper unpadded"))
    assert unpadded.shape[-1] == 50 * math.ceil(seconds * 2)
    assert torch.equal(unpadded, padded[..., : unpadded.shape[-1]])


@pytest.mark.parametrize("do_normalize", [True, False])
def test_the_waveform_is_levelled_as_the_preprocessor_says(do_normalize, tmp_path):
    build().backbone.model.save_pretrained(tmp_path)
    values = {"do_normalize": do_normalize, "sampling_rate": RATE}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    encoder = AudioEncoder.build(AudioConfig(BackboneConfig(str(tmp_path))), "spans", 0.5, RATE)
    seen = []
    encoder.backbone.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    samples = noise(1.0) * 3 + 0.2
    encoder([clip((0.0, samples))])
    expected = Wav2Vec2FeatureExtractor(do_normalize=do_normalize)(samples.numpy(), sampling_rate=RATE)
    assert torch.allclose(seen[0][0], torch.as_tensor(np.asarray(expected.input_values[0])), atol=1e-5)


# --- what does not go together ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sound", "rate", "message"),
    [
        ({"head": "xvector"}, "spans", RATE, "an x-vector summarises a window"),
        ({"head": "xvector", "layer": 1}, "windows", RATE, "leave audio.layer out"),
        ({"layer": 3}, "spans", RATE, "layer 3 of 2; allowed 0 to 2"),
        ({}, "none", RATE, "decoding.sound is none"),
        ({}, "spans", 8000, "needs 16000 Hz; set decoding.sample_rate"),
    ],
)
def test_settings_that_contradict_each_other_are_errors(change, sound, rate, message):
    with pytest.raises(ViperError, match=message):
        AudioEncoder.build(config_of("wavlm", **change), sound, 0.5, rate)


def test_models_that_do_not_hear_are_errors():
    with pytest.raises(ViperError, match="is a vit; allowed are models that read the waveform"):
        AudioEncoder.build(AudioConfig(copy.deepcopy(micro().visual.backbone)), "spans", 0.5, RATE)
    with pytest.raises(ViperError, match="hubert has no x-vector head"):
        AudioEncoder.build(config_of("hubert", head="xvector"), "windows", 0.5, RATE)


# --- real and published numbers -----------------------------------------------------------------


def voice(reference) -> torch.Tensor:
    with wave.open(str(reference / "peer/clips/single_face.wav")) as file:
        data = file.readframes(file.getnframes())
    return torch.from_numpy(np.frombuffer(data, "<i2").astype(np.float32) / 32768)


def test_the_published_features_come_out(reference):
    config = AudioConfig(BackboneConfig(str(reference / "peer/checkpoints/wavlm")), head="xvector")
    encoder = AudioEncoder.build(config, "windows", 2.0, RATE)
    assert encoder.embed_dim == 512
    samples = voice(reference)
    expected = torch.from_numpy(np.load(reference / "peer/expected/features.npz")["audio"])

    def error(sound: torch.Tensor) -> torch.Tensor:
        out = encoder([ClipSound([(0.0, sound)], torch.zeros(32), len(sound) / RATE)])
        assert out.present.all()
        return (out.tokens[0] - expected).abs().max()

    assert error(samples) < 1e-4
    assert error(samples.flip(0)) > 1e-2
    encoder.backbone.set_training_depth(All())
    encoder.train()
    out = encoder([ClipSound([(0.0, samples)], torch.zeros(4), len(samples) / RATE)])
    out.tokens.square().sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.slow
def test_real_whisper_hears_voice_where_voice_is(reference):
    config = AudioConfig(BackboneConfig(str(reference / "weights/whisper-tiny-en-encoder")))
    encoder = AudioEncoder.build(config, "spans", 0.5, RATE)
    samples = voice(reference)
    seconds = torch.linspace(0.3, 2.1, 8)
    tokens = encoder([ClipSound([(0.0, samples)], seconds, 2.4)]).tokens[0]
    again = encoder([ClipSound([(0.0, samples * 0.5)], seconds, 2.4)]).tokens[0]
    hiss = encoder([ClipSound([(0.0, noise(2.4))], seconds, 2.4)]).tokens[0]
    same = torch.cosine_similarity(tokens, again).mean()
    assert same > 0.95
    assert torch.cosine_similarity(tokens, hiss).mean() < same - 0.1
    assert list(encoder.records()) == ["audio"]
