"""test_close_ups.py: small faces are seen in the clip's own pixels, whatever the size of its decoded frames."""

from __future__ import annotations

import dataclasses
import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from support import deadly_close_ups
from support.media import make_clip
from support.models import training

from viper_e2e.clip import CropSpec, DecodedClip, Sample
from viper_e2e.config import AugmentConfig, DecodingConfig, ModelConfig, model_config_from_dict, with_settings
from viper_e2e.config.presets import PRESETS, micro, tiny
from viper_e2e.decoding import ClipDecoder, close_up, close_up_frames
from viper_e2e.decoding.scan import read_timeline
from viper_e2e.encoders import TokenCache
from viper_e2e.encoders.clip_view import ClipView
from viper_e2e.errors import ClipError
from viper_e2e.faces import FaceRegions, FaceTrack
from viper_e2e.faces.crop import crop_boxes
from viper_e2e.loading import Reading, second_decoding
from viper_e2e.model.augment import Augment
from viper_e2e.model.close_ups import plan_view
from viper_e2e.model.viper import ViPER

NATIVE, SCALED, FACE, CROP = (960, 540), (320, 180), 75, 64


def scene(lefts: list[int | None], size: tuple[int, int] = NATIVE, face: int = FACE) -> list[np.ndarray]:
    """Pictures with a photographed face so many pixels wide (NASA's portrait of Eileen Collins, public domain)
    so far from the left, or nowhere."""
    table = np.asarray(Image.fromarray(data.coffee()).resize(size))
    side = round(256 * face / 85)
    head = np.asarray(
        Image.fromarray(data.astronaut()[:256, 90:346]).resize((side, side), Image.Resampling.LANCZOS)
    )
    frames = [table.copy() for _ in lefts]
    for frame, left in zip(frames, lefts, strict=True):
        if left is not None:
            frame[100 : 100 + side, left : left + side] = head
    return frames


def config_of(**faces) -> ModelConfig:
    return with_settings(
        micro(),
        {
            "modalities": ("visual",),
            "decoding.max_side": SCALED[0],
            "visual.crop_size": CROP,
            **{f"faces.{name}": value for name, value in faces.items()},
        },
    )


def model_of(config: ModelConfig) -> ViPER:
    torch.manual_seed(0)
    return ViPER(config).eval()


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "small face.mp4"
    return make_clip(path, frames=scene([100, 200, 300, 420]), fps=2, sound=None, options={"crf": "14"})


@pytest.fixture(scope="module")
def native(clip) -> np.ndarray:
    """Its frames, as decoded at their own size."""
    return ClipDecoder(DecodingConfig(num_frames=4, max_side=None, sound="none"))(clip).frames


@pytest.fixture(scope="module")
def model() -> ViPER:
    return model_of(config_of())


def crops(model: ViPER, prepared) -> torch.Tensor:
    return view_of(model, prepared).crops(model.encoders["visual"].crop_spec)


def view_of(model: ViPER, prepared, seed: int | None = None) -> ClipView:
    """As encoders see it, changed by a seed."""
    frame = torch.arange(len(prepared.seconds))
    augment = None if seed is None else model.augment
    return ClipView(prepared, frame, torch.ones_like(frame).bool(), 16_000, augment, seed)


def up(boxes: torch.Tensor) -> torch.Tensor:
    return boxes * (NATIVE[0] / SCALED[0])


# --- pixels --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("align", ["box", "eyes"])
def test_crops_of_a_small_face_are_those_of_the_whole_clip_at_its_own_size(clip, native, align):
    config = with_settings(config_of(), {"visual.align": align})
    model = model_of(config)
    (prepared,) = model.prepare(clip)
    track, spec = prepared.track, model.encoders["visual"].crop_spec
    assert track.face_found.all()
    assert float((track.boxes[:, 2] - track.boxes[:, 0]).max()) < 32
    seen = crops(model, prepared)
    full = crop_boxes(torch.from_numpy(native), up(track.boxes), spec, track.landmarks * 3)
    torch.testing.assert_close(seen, full, atol=1e-4, rtol=0)
    decoded = model.decoder(clip)
    assert decoded.frames.shape[1:3] == SCALED[::-1]
    coarse = crop_boxes(torch.from_numpy(decoded.frames), track.boxes, spec, track.landmarks)
    detail = [(x[..., 1:] - x[..., :-1]).abs().mean() for x in (full, coarse)]
    assert detail[0] > 1.15 * detail[1]
    assert (seen - coarse).abs().mean() > 0.03


@pytest.mark.slow
def test_tiny_finds_the_people_who_sit_back_in_a_1080p_clip(tmp_path):
    """Faces 70 pixels wide, 23 in the frames that are looked at."""
    frames = scene([200, 700, 1300], (1920, 1080), 70)
    path = make_clip(tmp_path / "a.mp4", frames=frames, fps=2, sound=None, options={"preset": "ultrafast"})
    config = with_settings(tiny(), {"modalities": ("visual",)})
    (prepared,) = model_of(config).prepare(path)
    assert prepared.track.face_found.all()
    assert prepared.pixels.cut_from == ((1920, 1080),) * 3


@pytest.mark.slow
def test_bytes_a_sample_and_what_came_from_another_process_give_the_same(clip, model):
    decoded = pickle.loads(pickle.dumps(model.decoder(clip.read_bytes())))
    prepared = model.prepare([clip, clip.read_bytes(), Sample("a", clip.read_bytes()), decoded])
    first, *others = (crops(model, one) for one in prepared)
    assert all(isinstance(one.pixels, FaceRegions) for one in prepared)
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("ending", ["avi", "mkv"])
def test_containers_that_keep_times_otherwise_give_the_same_frames_again(tmp_path, ending):
    frames = scene([100, 200, 300, 420])
    path = make_clip(
        tmp_path / f"a.{ending}", frames=frames, fps=2, sound=None, codec="mpeg4", options={"q": "2"}
    )
    decoded = ClipDecoder(
        dataclasses.replace(DecodingConfig(num_frames=4, max_side=320, sound="none")), comes_back=True
    )(path)
    whole = ClipDecoder(DecodingConfig(num_frames=4, max_side=None, sound="none"))(path).frames
    windows = {1: (30, 40, 90, 100), 3: (400, 100, 500, 300)}
    flat = close_up(DecodingConfig(), decoded.frame_source, windows, 960, "a")
    assert np.array_equal(flat[: 60 * 60 * 3].reshape(60, 60, 3), whole[1, 40:100, 30:90])
    assert np.array_equal(flat[60 * 60 * 3 :].reshape(200, 100, 3), whole[3, 100:300, 400:500])


@pytest.mark.slow
def test_each_window_of_a_long_clip_gets_its_own_frames(tmp_path, model):
    lefts = [60 + 40 * i for i in range(12)]
    path = make_clip(tmp_path / "a.mp4", frames=scene(lefts), fps=2, sound=None, options={"crf": "14"})
    whole = ClipDecoder(DecodingConfig(num_frames=12, max_side=None, sound="none"))(path).frames
    windows = [clip for _, clip in model.decoder.windows(path, 2.0, 2.0)]
    assert len(windows) == 3
    for number, prepared in enumerate(model.prepare(windows)):
        spec = model.encoders["visual"].crop_spec
        full = crop_boxes(torch.from_numpy(whole[4 * number : 4 * number + 4]), up(prepared.track.boxes), spec)
        torch.testing.assert_close(crops(model, prepared), full, atol=1e-4, rtol=0)


def test_the_timeline_of_a_file_is_read_once_for_all_its_windows_and_anew_when_it_changes(
    clip, tmp_path, monkeypatch
):
    path, reads = tmp_path / "a.mp4", []
    path.write_bytes(clip.read_bytes())

    def counted(*args, **kwargs):
        reads.append(1)
        return read_timeline(*args, **kwargs)

    monkeypatch.setattr(close_up_frames, "read_timeline", counted)
    windows = {0: (0, 0, 64, 64), 1: (64, 64, 128, 128)}
    first, second = (
        close_up(DecodingConfig(), close_up_frames.FrameSource(path, np.array(wanted)), windows, 960, "a")
        for wanted in ([0, 1], [0, 1])
    )
    assert len(reads) == 1
    assert np.array_equal(first, second)
    as_bytes = close_up_frames.FrameSource(np.frombuffer(path.read_bytes(), np.uint8), np.array([0, 1]))
    assert np.array_equal(close_up(DecodingConfig(), as_bytes, windows, 960, "a"), first)
    os.utime(path, ns=(1, 1))
    close_up(DecodingConfig(), close_up_frames.FrameSource(path, np.array([0, 1])), windows, 960, "a")
    assert len(reads) == 3


def test_frames_without_a_face_are_looked_at_whole(tmp_path, model):
    path = make_clip(tmp_path / "a.mp4", frames=scene([100, 110, None, None]), fps=2, sound=None)
    (prepared,) = model.prepare(path)
    assert prepared.track.face_found.tolist() == [True, True, False, False]
    spec, frames = model.encoders["visual"].crop_spec, torch.from_numpy(model.decoder(path).frames)
    assert torch.equal(crops(model, prepared)[2:], crop_boxes(frames[2:], prepared.track.boxes[2:], spec))
    assert prepared.pixels.cut_from == (NATIVE, NATIVE, SCALED, SCALED)


# --- when, and how much --------------------------------------------------------------------------


def track_of(side: float) -> FaceTrack:
    box = torch.tensor([[20.0, 30.0, 20.0 + side, 30.0 + side]]).repeat(4, 1)
    return FaceTrack(box, torch.ones(4), torch.ones(4, dtype=torch.uint8))


@pytest.mark.parametrize("side", [8, 24, 60, 140])
@pytest.mark.parametrize("display_size", [(960, 540), (1920, 1080), (7680, 4320)])
@pytest.mark.parametrize("margin", [0.25, 1.0])
def test_close_ups_take_no_more_bytes_than_the_frames(side, display_size, margin):
    view = plan_view(track_of(side), SCALED, display_size, [CropSpec(224)], margin)
    budget = 4 * SCALED[0] * SCALED[1] * 3
    if view is None:
        assert side == 140
        assert margin == 1.0
        return
    assert view.num_bytes <= budget
    assert max(view.size) == max(display_size) or view.num_bytes > 0.7 * budget
    assert all(
        0 <= x0 < x1 <= view.size[0] and 0 <= y0 < y1 <= view.size[1]
        for x0, y0, x1, y1 in view.windows.values()
    )


def test_one_whole_frame_at_a_time_is_in_memory(clip, model):
    again = model.decoder(clip).frame_source
    windows = dict.fromkeys(range(4), (100, 100, 200, 200))
    tracemalloc.start()
    try:
        close_up(DecodingConfig(), again, windows, 960, "a")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * NATIVE[0] * NATIVE[1] * 3 + 4 * 30_000


def test_nothing_is_decoded_twice_without_need(clip, model, monkeypatch):
    monkeypatch.setattr(second_decoding, "close_up", lambda *_: pytest.fail("decoded again"))
    assert plan_view(track_of(70), SCALED, NATIVE, [CropSpec(64)], 0.25) is None
    assert plan_view(track_of(30), SCALED, SCALED, [CropSpec(64)], 0.25) is None
    nobody = FaceTrack.of_no_face(4, *SCALED, torch.device("cpu"))
    assert plan_view(nobody, SCALED, NATIVE, [CropSpec(64)], 0.25) is None
    assert model.decoder(make_clip(clip.with_name("b.mp4"))).frame_source is None
    off = model_of(config_of(close_ups=False))
    assert isinstance(off.prepare(clip)[0].pixels, torch.Tensor)


def test_bytes_too_many_to_go_along_are_told(clip, model, monkeypatch):
    monkeypatch.setattr("viper_e2e.decoding.close_up_frames.MAX_BYTES_ALONG", 1000)
    (prepared,) = model.prepare(clip.read_bytes())
    assert isinstance(prepared.pixels, torch.Tensor)
    assert any("too large to be decoded again" in note for note in prepared.notes)
    assert isinstance(model.prepare(clip)[0].pixels, FaceRegions)


def test_a_file_that_is_gone_by_then_is_that_clips_error(clip, model, tmp_path):
    path = tmp_path / "gone.mp4"
    path.write_bytes(clip.read_bytes())
    decoded = model.decoder(path)
    path.unlink()
    lost, other = model.prepare([decoded, clip])
    assert isinstance(lost, ClipError)
    assert "gone.mp4" in str(lost)
    assert not isinstance(other, ClipError)


# --- in processes of its own -------------------------------------------------------------------------


@pytest.mark.slow
def test_workers_decode_again_bitwise_what_this_process_does(clip, model):
    guarded = model_of(config_of())
    guarded.set_reading(Reading(num_workers=2))
    clips = [clip, clip.read_bytes(), str(clip)] * 2
    for ours, theirs in zip(guarded.prepare(clips), model.prepare(clips), strict=True):
        assert isinstance(ours.pixels, FaceRegions)
        assert all(map(torch.equal, ours.pixels.pieces, theirs.pixels.pieces))


@pytest.mark.slow
@pytest.mark.parametrize(("how", "why"), [("deadly", "killed by SIGKILL"), ("endless", "ran longer than 3 s")])
def test_a_clip_that_ends_its_second_decoding_is_left_out_by_name_and_the_others_are_not(
    clip, tmp_path, monkeypatch, how, why
):
    monkeypatch.setattr(second_decoding, "close_up_of", deadly_close_ups.close_up_of)
    path = tmp_path / f"{how}.mp4"
    path.write_bytes(clip.read_bytes())
    guarded = model_of(config_of())
    guarded.set_reading(Reading(num_workers=1, clip_timeout_seconds=3.0))
    before, lost, after = guarded.prepare([clip, path, clip])
    assert isinstance(lost, ClipError)
    assert (lost.stage, lost.clip) == ("worker", str(path))
    assert lost.reason == f"decoding it again for its small face failed: {why}"
    assert isinstance(before.pixels, FaceRegions)
    assert torch.equal(after.pixels.pieces[0], before.pixels.pieces[0])


# --- cached in memory, changed in training -----------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("train", ["none", "all"])
def test_a_cached_close_up_gives_bitwise_what_it_gave_at_first(clip, train):
    model = training(model_of(config_of()), train)
    with torch.no_grad():
        prepared, cache = model.prepare([clip]), TokenCache()
        first = model(prepared, cache=cache).intensities
        cached = model.cacheable(prepared[0], cache)
        assert torch.equal(model([cached]).intensities, first)
        assert torch.equal(model(clip).intensities, first)
    assert cached.nbytes < 4 * SCALED[0] * SCALED[1] * 3


def test_boxes_that_training_moves_stay_inside_of_what_was_fetched(clip):
    model = model_of(config_of())
    model.augment = Augment(("box",), dataclasses.replace(AugmentConfig(), box_shift=0.4, box_scale=0.5))
    (prepared,) = model.prepare(clip)
    spec = model.encoders["visual"].crop_spec
    made = [view_of(model, prepared, seed).crops(spec) for seed in range(20)]
    assert all(one.isfinite().all() for one in made)


def test_whole_frames_stay_for_those_who_measure_on_them(clip, monkeypatch):
    config = with_settings(
        config_of(), {"modalities": ("visual", "action_units"), "action_units.source": "py-feat"}
    )
    model, seen = model_of(config), []
    monkeypatch.setattr(
        model.encoders["action_units"], "measure", lambda frames, name: seen.append(frames.shape)
    )
    with torch.no_grad():
        prepared = model.prepare([clip])
        model(prepared)
    assert seen == [(4, *SCALED[::-1], 3)]
    assert isinstance(prepared[0].pixels, FaceRegions)


def test_a_hand_made_clip_is_taken_as_it_is(model):
    frames = np.zeros((2, 90, 160, 3), np.uint8)
    (prepared,) = model.prepare(DecodedClip("a", frames, np.array([0.0, 1.0]), 2.0, display_size=(320, 180)))
    assert isinstance(prepared.pixels, torch.Tensor)
    assert prepared.notes == ()


def test_what_says_nothing_of_close_ups_sees_what_it_was_trained_on():
    """Checkpoints from before there were any; and what is published stays as it was."""
    assert not model_config_from_dict({"faces": {"margin": 0.0}}, "config.json").faces.close_ups
    assert {name for name, make in PRESETS.items() if make().faces.close_ups} == {"base", "tiny", "micro"}
