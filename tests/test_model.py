"""The one module: every form of a clip, every kind of absence, and nothing that depends on the company."""

from __future__ import annotations

import copy

import pytest
import torch
from support.models import MODALITIES, decoded, model_of

from viper_e2e.clip import Sample
from viper_e2e.config import with_settings
from viper_e2e.config.presets import micro
from viper_e2e.encoders import TokenCache
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.model.transfer import Transfer
from viper_e2e.model.viper import ViPER


@pytest.fixture(scope="module")
def whole() -> ViPER:
    return model_of(*MODALITIES)


@pytest.mark.slow
def test_bytes_a_path_and_a_packed_sample_of_one_clip_give_the_same(tiny_clip, whole):
    path = tiny_clip("a.mp4")
    with torch.no_grad():
        output = whole([path.read_bytes(), path, str(path), Sample("a", path.read_bytes())])
    assert output.valid.all()
    for row in output.intensities[1:]:
        assert torch.equal(row, output.intensities[0])


def test_shapes_names_and_ranges(whole):
    with torch.no_grad():
        output = whole([decoded(), decoded(seed=1)])
    assert output.intensities.shape == (2, 7)
    assert output.intensities.dtype == torch.float32
    assert ((output.intensities > 0) & (output.intensities < 1)).all(), "labels in [0, 1] end in a sigmoid"
    assert output.present.all()
    assert output.boxes.shape == (2, 4, 4)
    # No face in noise: the whole displayed frame, twice the decoded one.
    assert torch.equal(output.boxes[0, 0], torch.tensor([0.0, 0.0, 192.0, 128.0]))
    assert not output.face_found.any()


def test_an_unreadable_clip_keeps_its_row_and_does_not_touch_others(tiny_clip, tmp_path, whole):
    (tmp_path / "bad.mp4").write_text("not a video")
    with torch.no_grad():
        alone = whole([decoded()])
        mixed = whole([tmp_path / "bad.mp4", decoded(), None, ClipError("lost", stage="worker")])
    assert mixed.valid.tolist() == [False, True, False, False]
    torch.testing.assert_close(mixed.intensities[1], alone.intensities[0])
    assert "bad.mp4" in str(mixed.errors[0])
    assert not mixed.present[0].any()


@pytest.mark.parametrize("absent", ["sound", "units", "words"])
def test_what_a_clip_lacks_is_marked_absent(whole, absent):
    with torch.no_grad():
        output = whole([decoded(**{absent: False})])
    lacks = {"sound": "audio", "units": "action_units", "words": "words"}[absent]
    assert output.present[0].tolist() == [name != lacks for name in MODALITIES]


@pytest.mark.parametrize("num_frames", [1, 3])
def test_fewer_distinct_frames_leave_slots_unused_in_token_fusion(whole, num_frames):
    with torch.no_grad():
        output = whole([decoded(num_frames)])
    assert output.used[0].tolist() == [i < num_frames for i in range(4)]
    assert torch.isfinite(output.intensities).all()


@pytest.mark.slow
def test_frozen_results_do_not_depend_on_a_clips_company(whole):
    clips = [decoded(seed=i, num_frames=1 + i) for i in range(4)]
    with torch.no_grad():
        alone = torch.cat([whole([clip]).intensities for clip in clips])
        cache, prepared = TokenCache(), whole.prepare(clips)
        whole(prepared, cache=cache)
        again = whole.prepare(list(reversed(clips)))
        whole(again, cache=cache)
        together = whole(clips).intensities
    for pair in zip(prepared, reversed(again), strict=True):
        one, other = (cache.with_tokens(clip).tokens for clip in pair)
        for name in MODALITIES:
            assert torch.equal(one[name].tokens, other[name].tokens)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("train", ["none", "all"])
def test_a_cached_clip_gives_bitwise_what_the_clip_itself_gives(train):
    model = model_of(*MODALITIES, train=train)
    clips = [decoded(seed=i) for i in range(2)]
    with torch.no_grad():
        prepared, cache = model.prepare(clips), TokenCache()
        first = model(prepared, cache=cache).intensities
        cached = [model.cacheable(clip, cache) for clip in prepared]
        second = model(cached).intensities
    assert torch.equal(first, second)
    whole_clip = sum(clip.frames.nbytes for clip in clips)
    if train == "none":
        assert all(clip.pixels is None and not clip.sound for clip in cached)
        assert sum(clip.nbytes for clip in cached) < whole_clip / 4


def test_a_pass_leaves_nothing_in_a_clip_but_in_the_cache_that_was_given():
    model = model_of(*MODALITIES)
    num_runs = []
    for encoder in model.encoders.values():
        encoder.register_forward_hook(lambda *_: num_runs.append(1))
    (clip,), cache = model.prepare([decoded()]), TokenCache()
    with torch.no_grad():
        outputs = [model([clip], cache=given).intensities for given in (None, cache, cache)]
    assert len(num_runs) == 2 * len(MODALITIES)
    assert all(torch.equal(output, outputs[0]) for output in outputs)
    assert clip.tokens == {}
    assert set(cache.with_tokens(clip).tokens) == set(MODALITIES)
    with pytest.raises(ViperError, match=r"without tokens of action_units, .* give cacheable\(\) the cache"):
        model.cacheable(clip)


def test_a_prepared_clip_is_sent_and_looked_at_no_second_time(monkeypatch, whole):
    prepared = whole.prepare([decoded(), None])
    monkeypatch.setattr(Transfer, "__init__", lambda *_: pytest.fail("sent again"))
    monkeypatch.setattr(whole.faces, "forward", lambda *_: pytest.fail("looked at again"))
    with torch.no_grad():
        assert whole(prepared).valid.tolist() == [True, False]


@pytest.mark.parametrize("kind", ["tokens", "concat"])
@pytest.mark.parametrize("modalities", [MODALITIES, ("visual",), ("audio",), ("action_units",)])
def test_every_trained_parameter_gets_a_gradient_whatever_is_absent(kind, modalities):
    model = model_of(*modalities, train="all", kind=kind).train()
    clips = [decoded(1, sound=False, units=False), None]
    model(clips).intensities.sum().backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


def test_frozen_backbones_have_no_gradient_and_stay_in_eval_mode():
    model = model_of("visual", "audio").train()
    model([decoded()]).intensities.sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in model.encoders.parameters())
    assert not any(module.training for b in model.backbones.values() for module in b.model.modules())


@pytest.mark.slow
def test_modality_dropout_depends_on_the_clips_seed_alone():
    model = model_of("visual", "audio").train()
    model.modality_dropout = 0.5
    clips = [decoded(seed=i) for i in range(4)]
    with torch.no_grad():
        one = model(clips, seeds=[1, 2, 3, 4]).intensities
        other = model(clips[::-1], seeds=[4, 3, 2, 1]).intensities.flip(0)
        without = model(clips).intensities
        assert torch.equal(model.eval()(clips, seeds=[1, 2, 3, 4]).intensities, without)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert not torch.equal(one, without)


@pytest.mark.parametrize(("lowest", "is_bounded"), [(-1.0, False), (0.0, True)])
def test_only_labels_outside_the_unit_interval_are_predicted_without_a_bound(lowest, is_bounded):
    config = with_settings(micro(), {"modalities": ("visual",)})
    model = ViPER(config, LabelSet(("valence", "arousal"), lowest, 1.0)).eval()
    with torch.no_grad():
        model.fusion.perceiver.to_logits[-1].bias.fill_(-50.0)
        intensities = model([decoded()]).intensities
    assert intensities.shape == (1, 2)
    assert bool(((intensities >= 0) & (intensities <= 1)).all()) == is_bounded


def test_unknown_modalities_are_named():
    with pytest.raises(ViperError, match="smell"):
        model_of("visual", "smell")


def test_predict_gives_a_record_for_one_and_a_list_for_several(tiny_clip, tmp_path, whole):
    path = tiny_clip("a.mp4")
    one = whole.predict(path)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(b"no clip")
    several = whole.predict([path, damaged])
    # Sums over a batch of another size may be rounded otherwise.
    intensities = one.pop("intensities")
    assert several[0].pop("intensities") == pytest.approx(intensities, abs=1e-6)
    assert one == several[0]
    assert one["clip"] == str(path)
    assert list(intensities) == list(whole.labels.names)
    assert several[1]["valid"] is False
    assert several[1]["error"]


def test_predict_refuses_what_is_not_there_before_any_work(tiny_clip, tmp_path, whole, monkeypatch):
    path = tiny_clip("talk.mp4")
    monkeypatch.setattr(type(whole), "forward", lambda *_: pytest.fail("works"))
    missing = path.with_name("talc.mp4")
    for given in (missing, [path, str(missing)]):
        with pytest.raises(ViperError, match=rf"{missing}: no such file; did you mean {path}\?"):
            whole.predict(given)
    with pytest.raises(ViperError, match="`viper infer` reads addresses"):
        whole.predict("https://example.org/clip.mp4")


@pytest.mark.parametrize("is_training", [True, False])
def test_predict_leaves_the_model_in_its_mode_even_where_it_fails(monkeypatch, whole, is_training):
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    whole.train(is_training)
    try:
        monkeypatch.setattr(whole, "prepare", fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            whole.predict([decoded()])
        assert whole.training is is_training
    finally:
        whole.eval()


def test_clips_of_a_batch_are_all_sent_before_the_first_is_looked_at(monkeypatch, whole):
    events = []
    send, faces = Transfer.send, whole.faces.forward
    monkeypatch.setattr(Transfer, "send", lambda self, arrays: events.append("sent") or send(self, arrays))
    monkeypatch.setattr(whole.faces, "forward", lambda *args: events.append("looked at") or faces(*args))
    clips = whole.prepare([decoded(seed=0), ClipError("bad", stage="read"), decoded(seed=1, sound=False)])
    assert events == ["sent"] * 2 + ["looked at"] * 2
    assert [isinstance(clip, ClipError) for clip in clips] == [False, True, False]
    assert [len(clip.sound) for clip in clips[::2]] == [1, 0]
    for clip, seed in zip(clips[::2], (0, 1), strict=True):
        assert (clip.pixels.numpy() == decoded(seed=seed).frames).all()
        assert (clip.units.numpy() == decoded(seed=seed).action_units).all()


@pytest.mark.slow
def test_the_module_computes_in_its_own_precision_whatever_autocast_is_around_it(whole):
    half = copy.deepcopy(whole)
    half.set_compute_dtype(torch.bfloat16)
    full = copy.deepcopy(whole)
    full.set_compute_dtype(torch.float32)
    seen = []
    projection = half.fusion.projections["visual"]
    projection.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.no_grad():
        expected, plain = half([decoded()]).intensities, whole([decoded()]).intensities
        with torch.autocast("cpu", dtype=torch.float16):
            assert torch.equal(half([decoded()]).intensities, expected)
            assert torch.equal(full([decoded()]).intensities, plain)
    assert seen == [torch.bfloat16] * 2
    assert expected.dtype == torch.float32
    assert 0 < (expected - plain).abs().max() < 0.02
