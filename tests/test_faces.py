"""test_faces.py: the detector is facenet-pytorch's, one face is followed, crops are exact."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from facenet_pytorch import MTCNN as FacenetMTCNN
from PIL import Image
from skimage import data
from support.models import decoded, model_of
from torchvision.transforms.v2 import functional as pixels

from viper_e2e.clip import CropSpec
from viper_e2e.config import FaceConfig
from viper_e2e.config.presets import paper
from viper_e2e.errors import ViperError
from viper_e2e.faces import DETECTED, INTERPOLATED, NONE, FaceCropper
from viper_e2e.faces.crop import FaceRegions
from viper_e2e.faces.mtcnn import MTCNN
from viper_e2e.faces.summed_area import area_crops, area_resize, summed_area
from viper_e2e.faces.track import (
    choose_first,
    choose_track,
    fill,
    frames_still_needed,
    frames_to_start_with,
    others_in_view,
)
from viper_e2e.model.prediction import OTHERS_IN_VIEW

HEIGHT, WIDTH = 160, 200
UNIT = CropSpec(64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""Pixels in [0, 1]."""


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """A photographed face, 110 × 110 pixels (NASA portrait of Eileen Collins, public domain)."""
    image = Image.fromarray(data.astronaut()[40:220, 140:320])
    return np.asarray(image.resize((110, 110), Image.Resampling.BILINEAR))


@pytest.fixture(scope="module")
def scene(face):
    """``scene(lefts) -> uint8 N H W 3``: the face that many pixels from the left, or nowhere for None."""

    def make(lefts: list[int | None]) -> torch.Tensor:
        rng = np.random.default_rng(0)
        frames = np.clip(rng.normal(110, 8, (len(lefts), HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
        for frame, left in zip(frames, lefts, strict=True):
            if left is not None:
                frame[20:130, left : left + 110] = face
        return torch.from_numpy(frames)

    return make


@pytest.fixture(scope="module")
def dense() -> FaceCropper:
    return FaceCropper(FaceConfig(detect_seconds=0.0))


def seconds(count: int, step: float = 0.1) -> torch.Tensor:
    return torch.arange(count, dtype=torch.float64) * step


def clip_frames(path: Path, indices: list[int] | None = None) -> torch.Tensor:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    indices = indices or np.linspace(0, len(frames) - 1, 32).round().astype(int).tolist()
    return torch.from_numpy(np.stack([frames[index] for index in indices]))


def iou(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    sides = (torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])).clamp(min=0)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, other)]
    return sides.prod(1) / (areas[0] + areas[1] - sides.prod(1))


# --- detector ------------------------------------------------------------------------------------


def test_every_box_is_the_one_that_facenet_pytorch_finds(face):
    frames = np.full((3, 180, 300, 3), 90, np.uint8)
    frames[0, 30:140, 10:120] = face
    frames[1, 30:140, 10:120] = face
    frames[1, 60:126, 180:246] = np.asarray(Image.fromarray(face).resize((66, 66)))
    frames[2] = np.random.default_rng(1).integers(0, 256, frames[2].shape)
    expected, probabilities = FacenetMTCNN(min_face_size=30).detect(frames)
    found = MTCNN(30, (0.6, 0.7, 0.7))(torch.from_numpy(frames))
    assert [len(faces) for faces in found] == [1, 2, 0]
    assert expected[2] is None
    for faces, boxes, probability in zip(found[:2], expected[:2], probabilities[:2], strict=True):
        largest_first = sorted(faces.tolist(), key=lambda f: (f[2] - f[0]) * (f[3] - f[1]), reverse=True)
        np.testing.assert_allclose(np.array(largest_first)[:, :4], boxes.astype(float), atol=1e-2)
        np.testing.assert_allclose(np.array(largest_first)[:, 4], probability.astype(float), atol=1e-4)


def test_averages_from_the_summed_area_table_are_area_interpolation():
    frames = torch.randint(0, 256, (2, 37, 53, 3), dtype=torch.uint8)
    images, sums = frames.permute(0, 3, 1, 2).float(), summed_area(frames)
    expected = F.interpolate(images, size=(11, 20), mode="area")
    torch.testing.assert_close(area_resize(sums, 11, 20), expected)
    boxes = torch.tensor([[0, 0, 53, 37], [5, 7, 6, 8], [10, 3, 41, 30]])
    frame = torch.tensor([0, 1, 1])
    crops = area_crops(sums, frame, boxes, 24)
    for crop, index, (x0, y0, x1, y1) in zip(crops, frame, boxes.tolist(), strict=True):
        expected = F.interpolate(images[index, None, :, y0:y1, x0:x1], size=(24, 24), mode="area")[0]
        torch.testing.assert_close(crop, expected)


def test_a_frame_smaller_than_the_smallest_face_has_none():
    assert [
        len(faces) for faces in MTCNN(40, (0.6, 0.7, 0.7))(torch.zeros(2, 32, 64, 3, dtype=torch.uint8))
    ] == [0, 0]


def test_boxes_do_not_depend_on_the_other_clips_of_a_batch(scene, dense):
    one, two = scene([10, 30, 50]), scene([80, None])[:, 5:, 7:]
    together = dense([one, two], [seconds(3), seconds(2)])
    alone = [dense([one], [seconds(3)])[0], dense([two], [seconds(2)])[0]]
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(tuple(a), tuple(b), rtol=0, atol=0, equal_nan=True)
    assert together[0].face_found.tolist() == [True] * 3
    assert together[1].face_found.tolist() == [True, False]


def test_the_detector_stays_frozen_in_float32_and_out_of_checkpoints(scene):
    parent = torch.nn.Sequential(FaceCropper(FaceConfig(detect_seconds=0.0)), torch.nn.Linear(2, 2))
    before = parent[0]([scene([20])], [seconds(1)])[0]
    parent.train().to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        after = parent[0]([scene([20])], [seconds(1)])[0]
    assert torch.equal(before.boxes, after.boxes)
    assert after.boxes.dtype == torch.float32
    assert parent[1].weight.dtype == torch.bfloat16
    assert not list(parent[0].parameters())
    assert not parent[0].state_dict()


# --- track ---------------------------------------------------------------------------------------


def test_first_and_last_frame_are_always_looked_at():
    assert frames_to_start_with([0.1 * i for i in range(21)], 0.5) == [0, 5, 10, 15, 20]
    assert frames_to_start_with([0.0, 0.1, 0.2, 3.0], 0.5)[-1] == 3
    assert frames_to_start_with([0.0, 0.01, 0.02], 0.5) == [0, 2]
    assert frames_to_start_with([0.0, 0.0, 0.0], 0.5) == [0, 2]
    assert frames_to_start_with([0.0, 0.5, 1.0], 0.0) == [0, 1, 2]
    assert frames_to_start_with([0.0], 0.5) == [0]


def test_a_larger_passer_by_does_not_take_over():
    still = (100.0, 50.0, 160.0, 110.0, 0.99)
    passing = (300.0, 50.0, 365.0, 115.0, 0.95)
    faces = {0: [still], 1: [passing, still], 2: [passing, still], 3: []}
    chosen = choose_track({**faces, 4: [(100.0, 50.0, 170.0, 120.0, 1.0)]})
    assert [chosen[index] for index in range(4)] == [still, still, still, None]
    assert choose_first(faces)[1] == passing


def test_somebody_else_is_reported_who_is_large_and_seen_most_of_the_time():
    one, far, small = (
        (10.0, 10.0, 50.0, 50.0, 1.0),
        (100.0, 10.0, 140.0, 50.0, 1.0),
        (100.0, 10.0, 115.0, 25.0, 1.0),
    )
    unlikely, same = (*far[:4], 0.8), (14.0, 10.0, 54.0, 50.0, 0.95)

    def told(*frames):
        faces = dict(enumerate(map(list, frames)))
        return others_in_view(choose_track(faces), faces)

    assert told([one, far], [one, far], [one], [one])
    assert not told([one, far], [one], [one], [one])
    assert not told([one, small], [one, small])
    assert not told([one, unlikely], [one, unlikely])
    assert not told([one, same], [one, same])
    assert told([one, far], [], [])
    assert not told([], [])


def test_a_clip_of_two_people_says_that_one_is_followed(face):
    frames = np.full((3, HEIGHT, 300, 3), 110, np.uint8)
    frames[:, 20:130, 10:120] = face
    alone = frames.copy()
    frames[:, 20:130, 170:280] = face
    model = model_of("visual")
    for pictures, expected in ((frames, (OTHERS_IN_VIEW,)), (alone, ())):
        clip = dataclasses.replace(decoded(3), frames=pictures)
        output = model([clip])
        assert bool(output.face_found.all())
        assert output.notes[0] == expected


def test_only_gaps_within_one_track_are_interpolated():
    here, moved, elsewhere = (
        (10.0, 10.0, 50.0, 50.0, 1.0),
        (18.0, 10.0, 58.0, 50.0, 0.9),
        (99.0, 9.0, 140.0, 50.0, 1.0),
    )
    assert frames_still_needed({0: here, 4: moved}) == []
    assert frames_still_needed({0: here, 4: elsewhere}) == [2]
    assert frames_still_needed({0: here, 4: None, 6: None}) == [2, 5]
    assert frames_still_needed({0: here, 1: None}) == []


def test_boxes_are_interpolated_in_time_and_whole_frames_stand_for_no_face():
    chosen = {0: (0.0, 0.0, 40.0, 40.0, 1.0), 2: (40.0, 0.0, 80.0, 40.0, 0.9), 3: None}
    track = fill(chosen, [0.0, 0.75, 1.0, 1.5], 100, 60, 0.0)
    assert track.source.tolist() == [DETECTED, INTERPOLATED, DETECTED, NONE]
    assert track.boxes.tolist()[1:] == [[30, 0, 70, 40], [40, 0, 80, 40], [0, 0, 100, 60]]
    assert track.probabilities.tolist() == pytest.approx([1.0, 0.925, 0.9, 0.0])


def test_a_margin_widens_boxes_up_to_the_border():
    track = fill({0: (10.0, 20.0, 50.0, 40.0, 1.0)}, [0.0], 100, 60, 0.5)
    assert track.boxes.tolist() == [[0, 10, 70, 50]]


def test_sparse_detection_finds_the_frame_where_a_face_leaves(scene, dense, monkeypatch):
    frames = scene([20 + 2 * i for i in range(11)] + [None] * 6)
    sparse, looked_at = FaceCropper(FaceConfig(detect_seconds=0.5)), []
    detect = sparse.detector.forward
    monkeypatch.setattr(sparse.detector, "forward", lambda x: looked_at.append(len(x)) or detect(x))
    track, truth = (module([frames], [seconds(17)])[0] for module in (sparse, dense))
    assert torch.equal(track.face_found, truth.face_found)
    assert (track.source == INTERPOLATED).sum() == 17 - sum(looked_at) > 3
    assert iou(track.boxes, truth.boxes).mean() > 0.9


def test_an_unlikely_face_is_none(scene):
    track = FaceCropper(FaceConfig(min_probability=1.0))([scene([20])], [seconds(1)])[0]
    assert track.source.tolist() == [NONE]
    assert track.boxes.tolist() == [[0, 0, WIDTH, HEIGHT]]


# --- crops ---------------------------------------------------------------------------------------

BOXES = torch.tensor([[20.3, 15.7, 131.2, 140.9], [0.0, 0.0, 200.0, 160.0], [150.6, 3.2, 200.0, 70.5]])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [48, 224])
def test_a_whole_frame_is_resized_as_torchvision_does(scene, dense, interpolation, size):
    frames = scene([20, 40, 60])
    whole = torch.tensor([[0.0, 0.0, WIDTH, HEIGHT]]).repeat(3, 1)
    crops = dense.crop(frames, whole, dataclasses.replace(UNIT, size=size, interpolation=interpolation))
    images = frames.permute(0, 3, 1, 2).float() / 255
    expected = F.interpolate(images, size=(size, size), mode=interpolation, antialias=True)
    torch.testing.assert_close(crops, expected, atol=1e-5, rtol=0)


def test_without_antialias_it_is_plain_interpolation(scene, dense):
    frames = scene([20])
    spec = dataclasses.replace(UNIT, antialias=False)
    crops = dense.crop(frames, torch.tensor([[0.0, 0.0, WIDTH, HEIGHT]]), spec)
    expected = F.interpolate(frames.permute(0, 3, 1, 2).float() / 255, size=(64, 64), mode="bilinear")
    torch.testing.assert_close(crops, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_box_between_pixels_is_cut_as_pil_cuts_it(scene, dense, interpolation):
    frames = scene([20, 40, 60])
    how = Image.Resampling[interpolation.upper()]
    spec = dataclasses.replace(UNIT, interpolation=interpolation)
    crops = dense.crop(frames, BOXES, spec) * 255
    rounded = dense.crop(frames, BOXES, dataclasses.replace(spec, resize_in_uint8=True)) * 255
    for index, box in enumerate(BOXES.tolist()):
        image = Image.fromarray(frames[index].numpy())
        for channel, plane in enumerate(image.split()):
            expected = np.asarray(plane.convert("F").resize((64, 64), how, box=box))
            np.testing.assert_allclose(crops[index, channel].numpy(), expected, atol=1e-2)
        as_saved = np.asarray(image.resize((64, 64), how, box=box))
        assert np.abs(rounded[index].permute(1, 2, 0).numpy() - as_saved).mean() < 0.25


def test_published_crops_are_pil_resizes_of_truncated_boxes(scene, dense):
    frames = scene([20, 40, 60])
    for aspect in ("squash", "short_side_center"):
        crops = dense.crop(frames, BOXES, dataclasses.replace(UNIT, integer_boxes=True, aspect=aspect)) * 255
        for frame, box, crop in zip(frames, BOXES.tolist(), crops, strict=True):
            cut = Image.fromarray(frame.numpy()).crop([int(side) for side in box])
            if aspect == "squash":
                expected = cut.resize((64, 64), Image.Resampling.BILINEAR)
            else:
                expected = pixels.center_crop(pixels.resize(cut, [64]), [64, 64])
            assert np.abs(crop.permute(1, 2, 0).numpy() - np.asarray(expected)).mean() < 0.5


def test_short_side_center_is_the_squash_of_the_central_square(scene, dense):
    frames, boxes = scene([20]), torch.tensor([[10.0, 20.0, 110.0, 80.0]])
    crops = dense.crop(frames, boxes, dataclasses.replace(UNIT, aspect="short_side_center"))
    assert torch.equal(crops, dense.crop(frames, torch.tensor([[30.0, 20.0, 90.0, 80.0]]), UNIT))


def test_crops_are_normalised_with_the_encoder_s_statistics(scene, dense):
    frames = scene([20])
    plain = dense.crop(frames, BOXES[:1], UNIT)
    spec = dataclasses.replace(UNIT, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    torch.testing.assert_close(dense.crop(frames, BOXES[:1], spec) * std + mean, plain)


def test_pixels_beyond_the_frame_repeat_its_border(scene, dense):
    frames = scene([20])
    crop = dense.crop(frames, torch.tensor([[150.0, 50.0, 250.0, 150.0]]), UNIT)[0]
    assert torch.equal(crop[:, :, 40], crop[:, :, 63])
    assert not torch.equal(crop[:, :, 20], crop[:, :, 30])


@pytest.mark.parametrize(
    "changes",
    [
        {"size": 224},
        {"size": 24, "interpolation": "bicubic"},
        {"aspect": "short_side_center", "interpolation": "bicubic", "resize_in_uint8": True},
        {"integer_boxes": True},
        {"size": 40, "antialias": False},
    ],
)
def test_cached_regions_give_bitwise_the_crops_of_whole_frames(scene, dense, changes):
    frames = scene([20, 40, 60])
    track = fill(dict(enumerate((*box, 1.0) for box in BOXES.tolist())), [0.0, 0.1, 0.2], WIDTH, HEIGHT, 0.0)
    regions = dense.regions(frames, track, margin=0.25)
    spec, moved = dataclasses.replace(UNIT, **changes), BOXES + torch.tensor([4.3, -3.1, 6.7, 2.2])
    for boxes in (BOXES, moved):
        assert torch.equal(dense.crop(frames, boxes, spec), dense.crop(regions, boxes, spec))
    assert regions.num_bytes < frames.numel()


@pytest.mark.parametrize("side", range(4))
def test_each_side_of_what_was_cached_is_an_end(side):
    regions = FaceRegions((torch.zeros(10, 10, 3, dtype=torch.uint8),), ((5, 7),), (40, 30), ((40, 30),))
    window = [5, 7, 15, 17]
    assert regions.cut(0, tuple(window)).shape == (10, 10, 3)
    window[side] += -1 if side < 2 else 1
    with pytest.raises(ViperError, match="only \\(5, 7, 15, 17\\) were cached"):
        regions.cut(0, tuple(window))


def test_a_box_outside_what_was_cached_is_an_error_that_names_the_setting(scene, dense):
    frames = scene([20])
    track = fill({0: (60.0, 40.0, 100.0, 90.0, 1.0)}, [0.0], WIDTH, HEIGHT, 0.0)
    regions = dense.regions(frames, track, margin=0.0)
    with pytest.raises(ViperError, match=r"frame 0: .*hold_margin"):
        dense.crop(regions, track.boxes - 25, UNIT)


def test_crops_ignore_autocast(scene, dense):
    frames = scene([20, 40, 60])
    plain = dense.crop(frames, BOXES, UNIT)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(dense.crop(frames, BOXES, UNIT), plain)


# --- real clips ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clip", "least", "most"),
    [("single_face.mp4", 30 / 32, 1), ("no_face.mp4", 0, 0), ("face_noface.mov", 0.2, 0.8)],
)
def test_real_clips_show_their_faces(reference, dense, clip, least, most):
    frames = clip_frames(reference / "clips" / clip)[::2]
    found = dense([frames], [seconds(len(frames))])[0].face_found.float().mean()
    assert least <= found <= most


@pytest.mark.slow
def test_published_boxes_and_crops_come_out_of_the_raw_clip(reference):
    expected = json.loads((reference / "peer/expected/boxes.json").read_text())
    indices = sorted(map(int, expected))
    frames = clip_frames(reference / "peer/clips/single_face.mp4", indices)
    cropper = FaceCropper(paper().faces)
    track = cropper([frames], [seconds(len(frames))])[0]
    overlap = iou(track.boxes, torch.tensor([expected[str(index)] for index in indices]))
    assert overlap.min() > 0.85
    assert overlap.median() > 0.97
    spec = dataclasses.replace(UNIT, size=224, integer_boxes=True)
    crops = cropper.crop(frames, track.boxes, spec).permute(0, 2, 3, 1).numpy() * 255

    def difference(crops: np.ndarray) -> float:
        """Median over frames of the mean absolute difference from the published crops."""
        published = (Image.open(reference / f"peer/expected/crops/frame_{index}.jpg") for index in indices)
        published = [
            np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR), float) for image in published
        ]
        return float(
            np.median([np.abs(ours - theirs).mean() for ours, theirs in zip(crops, published, strict=True)])
        )

    assert difference(crops) < 6
    assert difference(crops[:, :, ::-1]) > 6
    assert difference(np.repeat(crops[:1], len(crops), 0)) > 6
