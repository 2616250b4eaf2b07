"""Changed clips: alike in all frames, each by its own seed, in training alone, never in place of cached."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.models import decoded, model_of

from viper_e2e.clip import CropSpec
from viper_e2e.config import AugmentConfig
from viper_e2e.config.values import CHANGES, Changes
from viper_e2e.encoders import TokenCache
from viper_e2e.encoders.clip_view import ClipView
from viper_e2e.errors import ViperError
from viper_e2e.faces.crop import crop_boxes, cut_regions
from viper_e2e.model.augment import Augment, build_augment

SPEC = CropSpec(32)
ALL = Augment(CHANGES, AugmentConfig())
SURE = replace(AugmentConfig(), flip=1.0, blur=1.0, erase=1.0, noise=1.0)


def still(num_frames: int = 4) -> torch.Tensor:
    """The same picture in every frame, normalised."""
    torch.manual_seed(0)
    return (torch.rand(1, 3, 32, 32) * 2 - 1).expand(num_frames, -1, -1, -1)


def runs_of(*seconds: float) -> list[tuple[float, torch.Tensor]]:
    torch.manual_seed(1)
    return [(10.0 * i, torch.randn(round(s * 16_000))) for i, s in enumerate(seconds)]


def changed(augment: Augment, seed: int) -> list[torch.Tensor]:
    boxes = torch.tensor([[10.0, 10.0, 50.0, 60.0]]).expand(4, -1)
    sound = augment.sound(runs_of(0.5, 0.3), 16_000, seed)
    found = torch.ones(4, dtype=torch.bool)
    return [augment.pixels(still(), SPEC, seed), augment.boxes(boxes, found, seed), *(x for _, x in sound)]


def test_one_seed_always_gives_the_same_and_another_something_else():
    torch.manual_seed(5)
    first = changed(ALL, 3)
    torch.manual_seed(6)
    again = changed(Augment(CHANGES, AugmentConfig()), 3)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(not torch.equal(a, b) for a, b in zip(first, changed(ALL, 4), strict=True))


def test_drawing_leaves_the_generator_as_it_was():
    crops, runs = still(), runs_of(0.5)
    before = torch.get_rng_state()
    ALL.pixels(crops, SPEC, 3)
    ALL.boxes(torch.tensor([[10.0, 10.0, 50.0, 60.0]]), torch.tensor([True]), 3)
    ALL.sound(runs, 16_000, 3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", range(5))
def test_every_frame_of_a_clip_is_changed_alike(seed):
    pixels = Augment(("pixels",), SURE).pixels(still(6), SPEC, seed)
    assert not torch.equal(pixels[0], still()[0])
    assert all(torch.equal(pixels[0], frame) for frame in pixels)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_draw_does_not_depend_on_the_number_of_frames(count):
    few = ALL.pixels(still(1), SPEC, 7)
    assert torch.equal(ALL.pixels(still(count), SPEC, 7)[-1], few[0])


def test_each_amount_at_zero_leaves_the_crop_alone():
    names = ("flip", "color", "rotate_degrees", "translate", "scale", "blur", "erase")
    nothing = Augment(("pixels",), replace(AugmentConfig(), **dict.fromkeys(names, 0.0)))
    for seed in range(3):
        torch.testing.assert_close(nothing.pixels(still(), SPEC, seed), still(), atol=1e-4, rtol=0)


def test_pixels_stay_within_what_the_backbone_has_seen():
    spec = CropSpec(32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    mean, std = (torch.tensor(x)[:, None, None] for x in (spec.mean, spec.std))
    for seed in range(10):
        pixels = ALL.pixels((still() * 0.5 + 0.5 - mean) / std, spec, seed) * std + mean
        assert pixels.min() > -1e-5
        assert pixels.max() < 1 + 1e-5


def test_boxes_of_a_clip_move_together_and_whole_frames_stay():
    boxes = torch.tensor([[10.0, 10.0, 50.0, 60.0], [20.0, 12.0, 60.0, 62.0], [0.0, 0.0, 96.0, 64.0]])
    found = torch.tensor([True, True, False])
    config = AugmentConfig()
    for seed in range(20):
        moved = ALL.boxes(boxes, found, seed)
        assert torch.equal(moved[2], boxes[2])
        torch.testing.assert_close(moved[1] - moved[0], boxes[1] - boxes[0], atol=1e-4, rtol=0)
        reach = (moved[0] - boxes[0]).abs() / torch.tensor([40.0, 50.0, 40.0, 50.0])
        assert reach.max() <= config.box_shift + config.box_scale / 2 + 1e-6
        assert not torch.equal(moved[0], boxes[0])


def test_the_track_itself_is_never_changed():
    boxes = torch.tensor([[10.0, 10.0, 50.0, 60.0]])
    before, runs = boxes.clone(), runs_of(0.5)
    kept = runs[0][1].clone()
    ALL.boxes(boxes, torch.ones(1, dtype=torch.bool), 1)
    ALL.sound(runs, 16_000, 1)
    assert torch.equal(boxes, before)
    assert torch.equal(runs[0][1], kept)


# --- sound --------------------------------------------------------------------------------------


def sound_of(runs: list[tuple[float, torch.Tensor]], seed: int = 0, **amounts: float) -> list[torch.Tensor]:
    """With the given amounts alone."""
    names = ("gain_decibels", "noise", "shift_seconds", "mask_seconds", "mask_hertz")
    config = replace(AugmentConfig(), **(dict.fromkeys(names, 0.0) | amounts))
    return [samples for _, samples in Augment(("sound",), config).sound(runs, 16_000, seed)]


def test_runs_keep_their_times_and_lengths():
    runs = runs_of(0.5, 0.001, 0.3)
    heard = ALL.sound(runs, 16_000, 2)
    assert [start for start, _ in heard] == [start for start, _ in runs]
    assert [x.shape for _, x in heard] == [x.shape for _, x in runs]
    assert all(x.isfinite().all() and x.dtype == torch.float32 for _, x in heard)


def test_a_run_without_samples_or_all_silence_stays():
    empty, silent = ALL.sound([(0.0, torch.zeros(0)), (1.0, torch.zeros(800))], 16_000, 3)
    assert len(empty[1]) == 0
    assert not silent[1].any()


def test_all_runs_get_the_same_gain_within_its_bounds():
    ratios = []
    for seed in range(20):
        runs = runs_of(0.1, 0.2)
        one, two = (
            h.norm() / x.norm() for h, (_, x) in zip(sound_of(runs, seed, gain_decibels=6.0), runs, strict=True)
        )
        torch.testing.assert_close(one, two)
        ratios.append(float(one))
    assert 10 ** (-6 / 20) <= min(ratios) < 0.8 < 1.2 < max(ratios) <= 10 ** (6 / 20)


def test_noise_stays_below_the_sound_by_what_was_set():
    for seed in range(10):
        runs = runs_of(0.5)
        noise = sound_of(runs, seed, noise=1.0, noise_snr_decibels=15.0)[0] - runs[0][1]
        below = 20 * torch.log10(runs[0][1].norm() / noise.norm())
        assert 15.0 - 0.1 <= below <= 35.1


def test_a_shift_moves_samples_and_lets_silence_in():
    runs = [(0.0, torch.arange(1.0, 16_001.0))]
    shifts = set()
    for seed in range(20):
        heard = sound_of(runs, seed, shift_seconds=0.1)[0]
        by = int((heard == 0).sum()) * (1 if heard[0] == 0 else -1)
        assert abs(by) <= 1600
        assert torch.equal(
            heard[max(by, 0) : 16_000 + min(by, 0)], runs[0][1][max(-by, 0) : 16_000 - max(by, 0)]
        )
        shifts.add(by > 0)
    assert shifts == {True, False}


def test_a_gap_in_time_is_silent_and_the_rest_untouched():
    runs = [(0.0, torch.ones(16_000))]
    silent = []
    for seed in range(10):
        heard = sound_of(runs, seed, mask_seconds=0.2)[0]
        silent.append(int((heard.abs() < 1e-3).sum()))
        untouched = (heard - 1).abs() < 1e-3
        assert untouched.sum() > 16_000 - 3200 - 800
    assert max(silent) > 800


def test_a_masked_band_takes_its_pitches_alone():
    t = torch.arange(16_000) / 16_000
    low, high = torch.sin(2 * np.pi * 300 * t), torch.sin(2 * np.pi * 6000 * t)
    powers = []
    for seed in range(30):
        spectrum = torch.fft.rfft(sound_of([(0.0, low + high)], seed, mask_hertz=2000.0)[0]).abs()
        powers.append((spectrum[300] > 4000, spectrum[6000] > 4000))
    assert (True, True) in powers
    assert (True, False) in powers or (False, True) in powers
    assert (False, False) not in powers


# --- in the module ------------------------------------------------------------------------------


def trained(*modalities: str, train: str = "all"):
    model = model_of(*modalities, train=train).train()
    model.augment = Augment([k for k in CHANGES if k != "sound" or "audio" in modalities], AugmentConfig())
    return model


@pytest.mark.slow
def test_evaluation_and_clips_without_a_seed_are_never_changed():
    model = trained("visual", "audio")
    plain = model_of("visual", "audio", train="all")
    clips = [decoded(), decoded(seed=1)]
    with torch.no_grad():
        expected = plain(clips).intensities
        assert torch.equal(model.eval()(clips, [1, 2]).intensities, expected)
        assert torch.equal(model.train()(clips).intensities, expected)
        assert not torch.equal(model(clips, [1, 2]).intensities, expected)
        records = model.predict(clips)
    torch.testing.assert_close(
        torch.tensor([list(r["intensities"].values()) for r in records]), expected.double().float()
    )


@pytest.mark.slow
@pytest.mark.parametrize("train", ["none", "all"])
def test_the_company_of_a_clip_does_not_matter(train):
    model = trained("visual", "audio", "textual", train=train)
    with torch.no_grad():
        alone = model([decoded(seed=1)], [7]).intensities[0]
        batch = model([decoded(), decoded(seed=1), None], [3, 7, 9]).intensities[1]
    # Frozen encoders see each clip alone; the fusion sees the batch, and processors round.
    torch.testing.assert_close(alone, batch, rtol=0, atol=1e-6 if train == "none" else 1e-5)


def test_frozen_encoders_hear_changed_clips_without_keeping_what_they_made():
    model = trained("visual", "audio", train="none")
    with torch.no_grad():
        prepared, cache = model.prepare([decoded()]), TokenCache()
        one, two = (model(prepared, [seed], cache=cache).intensities for seed in (1, 2))
        assert not torch.equal(one, two)
        assert cache.with_tokens(prepared[0]).tokens == {}
        model.eval()(prepared, cache=cache)
        assert set(cache.with_tokens(prepared[0]).tokens) == {"visual", "audio"}
        assert torch.equal(model.train()(prepared, [1], cache=cache).intensities, one)


@pytest.mark.slow
def test_every_trained_parameter_gets_its_gradient():
    model = trained("visual", "audio", "textual")
    model([decoded(), decoded(seed=1)], [1, 2]).intensities.sum().backward()
    without = [
        n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    plain = model_of("visual", "audio", "textual", train="all").train()
    plain([decoded(), decoded(seed=1)]).intensities.sum().backward()
    expected = [
        n for n, p in plain.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert without == expected


def test_gradients_flow_through_changed_pixels():
    crops = still().clone().requires_grad_()
    ALL.pixels(crops, SPEC, 0).sum().backward()
    assert crops.grad.abs().sum() > 0


def test_it_is_no_part_of_what_is_saved():
    assert trained("visual").state_dict().keys() == model_of("visual", train="all").state_dict().keys()


@pytest.mark.slow
def test_two_encoders_see_a_clip_changed_alike():
    model = trained("visual", "textual")
    (prepared,), frame = model.prepare([decoded()]), torch.arange(4)
    only_flip = dict.fromkeys(("color", "rotate_degrees", "translate", "scale", "blur", "erase"), 0.0)
    augment = Augment(("pixels",), replace(AugmentConfig(), flip=0.5, **only_flip))
    mirrored = []
    for seed in range(8):
        view = ClipView(prepared, frame, frame >= 0, 16_000, augment, seed)
        plain = ClipView(prepared, frame, frame >= 0, 16_000)
        pair = [
            torch.allclose(view.crops(spec), plain.crops(spec).flip(-1), atol=1e-3)
            for spec in (CropSpec(32), CropSpec(64))
        ]
        assert pair[0] == pair[1]
        mirrored.append(pair[0])
    assert set(mirrored) == {True, False}


# --- with clips cached in memory ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "frozen", "said"),
    [
        (("pixels",), ("visual",), "pixels or box changes the input of visual"),
        (("box",), ("textual",), "pixels or box changes the input of textual"),
        (("sound",), ("audio",), "sound changes the input of audio"),
    ],
)
def test_cached_tokens_and_changed_clips_exclude_each_other(kinds, frozen, said):
    with pytest.raises(ViperError, match=rf"{said}.*--reuse-memory 0"):
        Augment(kinds, AugmentConfig()).check_holding(frozen, 0.5)


def test_what_a_change_does_not_reach_may_be_cached():
    Augment(("sound",), AugmentConfig()).check_holding(("visual", "action_units"), 0.25)
    Augment(("pixels", "box"), AugmentConfig()).check_holding(("audio", "action_units"), 0.25)


def test_boxes_that_move_beyond_what_is_cached_are_refused_with_the_margin_that_will_do():
    far = Augment(("box",), replace(AugmentConfig(), box_shift=0.3))
    with pytest.raises(ViperError, match=r"--model\.faces\.hold-margin 0\.\d\d"):
        far.check_holding((), 0.25)
    far.check_holding((), far.box_reach)


@pytest.mark.slow
@pytest.mark.parametrize("size", [16, 112])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_margin_that_passes_the_check_holds_all_that_moved_boxes_read(size, interpolation):
    torch.manual_seed(0)
    frames = torch.randint(0, 255, (3, 240, 320, 3), dtype=torch.uint8)
    boxes = torch.tensor([[80.0, 60.0, 200.0, 200.0], [100.5, 40.0, 221.3, 180.0], [-5.0, 0.0, 90.0, 80.0]])
    augment = Augment(("box",), replace(AugmentConfig(), box_shift=0.2, box_scale=0.3))
    spec = CropSpec(size, interpolation=interpolation)
    cached = cut_regions(frames, boxes, augment.box_reach)
    for seed in range(25):
        moved = augment.boxes(boxes, torch.ones(3, dtype=torch.bool), seed)
        assert torch.equal(crop_boxes(cached, moved, spec), crop_boxes(frames, moved, spec))


# --- settings -----------------------------------------------------------------------------------


def test_all_means_what_the_modalities_have():
    assert build_augment(Changes.parse("none"), AugmentConfig(), ("visual",)) is None
    assert build_augment(Changes.parse("all"), AugmentConfig(), ("visual",)).kinds == {"pixels", "box"}
    assert build_augment(Changes.parse("all"), AugmentConfig(), ("visual", "audio")).kinds == set(CHANGES)
    assert build_augment(Changes.parse("box, sound"), AugmentConfig(), ("textual", "audio")).kinds == {
        "box",
        "sound",
    }


@pytest.mark.parametrize(
    ("wanted", "amounts", "modalities", "said"),
    [
        ("sound", {}, ("visual",), "--augment sound: has no effect on visual"),
        ("none", {"flip": 0.3}, ("visual",), "--augmentation.flip has no effect without --augment pixels"),
        ("box", {"mask_hertz": 9.0}, ("visual", "audio"), "--augmentation.mask-hertz has no effect"),
        ("pixels", {"flip": 1.5}, ("visual",), "--augmentation.flip 1.5: give a number from 0 up to 1"),
        (
            "sound",
            {"shift_seconds": -1.0},
            ("audio",),
            "--augmentation.shift-seconds -1: give a number at least 0",
        ),
        ("box", {"box_scale": 1.0}, ("visual",), "give a number from 0 up to 0.9"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(wanted, amounts, modalities, said):
    with pytest.raises(ViperError) as caught:
        build_augment(Changes.parse(wanted), replace(AugmentConfig(), **amounts), modalities)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
