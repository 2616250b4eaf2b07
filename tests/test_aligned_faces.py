"""test_aligned_faces.py: landmarks are facenet's, follow the track, and turn crops upright."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN as FacenetMTCNN
from skimage import data, transform
from support.models import training

from viper_e2e.clip import CropSpec, DecodedClip
from viper_e2e.commands.parsing import parse_train
from viper_e2e.config import AugmentConfig, FaceConfig, with_settings
from viper_e2e.config.presets import micro
from viper_e2e.encoders import TokenCache
from viper_e2e.errors import ViperError
from viper_e2e.faces import FaceCropper, moved_with
from viper_e2e.faces.align import EYE_DISTANCE, EYE_HEIGHT, Squares, resample_square, squares_on_eyes
from viper_e2e.faces.crop import crop_boxes, cut_regions
from viper_e2e.faces.track import fill
from viper_e2e.model.augment import Augment
from viper_e2e.model.viper import ViPER

SIZE = 64
EYES = CropSpec(SIZE, align="eyes", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
BOX = dataclasses.replace(EYES, align="box")
FACE = (10.0, 20.0, 60.0, 85.0, 0.99)
MARKS = (25.0, 45.0, 45.0, 43.0, 36.0, 58.0, 28.0, 70.0, 44.0, 69.0)
BOXES = torch.tensor([[60.0, 50.0, 130.0, 140.0], [70.5, 40.0, 150.0, 140.0], [-5.0, 3.0, 60.0, 80.0]])
LANDMARKS = torch.tensor(
    [
        [[80.0, 85.0], [110.0, 80.0], [96.0, 100.0], [85.0, 120.0], [108.0, 118.0]],
        [[95.0, 70.0], [130.0, 85.0], [110.0, 95.0], [90.0, 110.0], [120.0, 120.0]],
        [[12.0, 30.0], [40.0, 32.0], [25.0, 45.0], [14.0, 60.0], [38.0, 61.0]],
    ]
)
MOST_PROBABLE = {"selection": "track", "detect_seconds": 0.0, "min_face_size": 40}


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """NASA's portrait of Eileen Collins (public domain): the head, 256 × 256 pixels."""
    return data.astronaut()[:256, 90:346]


@pytest.fixture(scope="module")
def cropper() -> FaceCropper:
    return FaceCropper(FaceConfig(**MOST_PROBABLE))


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    torch.manual_seed(0)
    coarse = torch.rand(3, 3, 40, 50)
    smooth = torch.nn.functional.interpolate(coarse, (160, 200), mode="bicubic").clamp(0, 1)
    return (smooth * 255).byte().permute(0, 2, 3, 1).contiguous()


def turned(image: np.ndarray, degrees: float, scale: float) -> np.ndarray:
    """The picture turned and scaled about its middle, on grey."""
    centre = (np.array(image.shape[1::-1]) - 1) / 2
    change = (
        transform.SimilarityTransform(translation=-centre)
        + transform.SimilarityTransform(rotation=np.deg2rad(degrees), scale=scale)
        + transform.SimilarityTransform(translation=centre)
    )
    return (transform.warp(image / 255, change.inverse, cval=0.5) * 255).astype(np.uint8)


# --- landmarks -----------------------------------------------------------------------------------


def test_landmarks_are_the_ones_that_facenet_pytorch_finds(portrait, cropper):
    frames = np.stack([portrait, turned(portrait, 15, 0.8)])
    _, _, expected = FacenetMTCNN(min_face_size=40).detect(frames, landmarks=True)
    found = cropper.detector(torch.from_numpy(frames))
    for faces, points in zip(found, expected, strict=True):
        np.testing.assert_allclose(faces[0, 5:].view(5, 2).numpy(), points[0].astype(float), atol=1e-2)


def test_landmarks_are_interpolated_in_time_like_their_boxes():
    moved = (*(x + 20 for x in FACE[:4]), 0.9, *(x + 20 for x in MARKS))
    track = fill({0: (*FACE, *MARKS), 2: moved, 3: None}, [0.0, 0.75, 1.0, 1.5], 200, 160, 0.0)
    assert torch.equal(track.landmarks[1], torch.tensor(MARKS).view(5, 2) + 15)
    assert track.landmarks[3].isnan().all()
    assert track.landmarks[:3].isfinite().all()


def test_a_face_without_landmarks_has_none_and_gives_none_to_the_frames_beside_it():
    track = fill({0: (*FACE, *MARKS), 2: FACE}, [0.0, 0.5, 1.0], 200, 160, 0.0)
    assert track.landmarks.isfinite().flatten(1).all(1).tolist() == [True, False, False]
    assert track.face_found.all()


# --- the square ----------------------------------------------------------------------------------


def test_eyes_lie_level_at_fixed_places():
    squares = squares_on_eyes(BOXES, LANDMARKS)
    for index in range(3):
        axes = torch.stack([squares.x_axes[index], squares.y_axes[index]], 1)
        left, right = torch.linalg.solve(axes, (LANDMARKS[index, :2] - squares.origins[index]).T).T
        half = EYE_DISTANCE / 2
        torch.testing.assert_close(left, torch.tensor([0.5 - half, EYE_HEIGHT]), atol=1e-5, rtol=0)
        torch.testing.assert_close(right, torch.tensor([0.5 + half, EYE_HEIGHT]), atol=1e-5, rtol=0)
        # A similarity: axes of one length, at right angles, not mirrored.
        assert squares.x_axes[index].norm() == pytest.approx(float(squares.y_axes[index].norm()), rel=1e-5)
        assert torch.linalg.det(axes) > 0


def test_a_head_in_profile_is_not_enlarged_without_end():
    profile = LANDMARKS[:1].clone()
    profile[0, 1] = profile[0, 0] + torch.tensor([2.0, 0.0])
    side = squares_on_eyes(BOXES[:1], profile).x_axes.norm()
    assert side > 0.7 * (BOXES[0, 2:] - BOXES[0, :2]).min()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_an_aligned_crop_is_the_reference_warp(noise, interpolation):
    """skimage's warp by the similarity that takes the eyes to their places, worked out by skimage itself."""
    spec = dataclasses.replace(EYES, interpolation=interpolation, antialias=False)
    crops = crop_boxes(noise, BOXES, spec, LANDMARKS)
    left, right = (SIZE * (0.5 + sign * EYE_DISTANCE / 2) - 0.5 for sign in (-1, 1))
    target = np.array([[left, SIZE * EYE_HEIGHT - 0.5], [right, SIZE * EYE_HEIGHT - 0.5]])
    for index, crop in enumerate(crops):
        change = transform.SimilarityTransform.from_estimate(LANDMARKS[index, :2].numpy() - 0.5, target)
        image = noise[index].numpy() / 255
        order = {"bilinear": 1, "bicubic": 3}[interpolation]
        expected = transform.warp(image, change.inverse, output_shape=(SIZE, SIZE), order=order, mode="edge")
        difference = np.abs(crop.permute(1, 2, 0).numpy() - expected)
        # Bicubic kernels differ in their constant; the picture is smooth, so not by much.
        assert difference.max() < 1e-3 if interpolation == "bilinear" else difference.mean() < 0.01


def test_a_face_larger_than_its_crop_is_averaged_not_skipped_over():
    """A checkerboard of single pixels is grey from afar."""
    board = ((torch.arange(160)[:, None] + torch.arange(200)) % 2 * 255).byte()
    frames = board[None, :, :, None].repeat(1, 1, 1, 3)
    spec = dataclasses.replace(EYES, size=16)
    crop = crop_boxes(frames, BOXES[:1], spec, LANDMARKS[:1])
    assert (crop - 0.5).abs().max() < 0.1
    coarse = crop_boxes(frames, BOXES[:1], dataclasses.replace(spec, antialias=False), LANDMARKS[:1])
    assert (coarse - 0.5).abs().max() > 0.2


def test_roll_and_scale_are_gone_from_the_crop(portrait, cropper):
    frames = torch.from_numpy(np.stack([portrait, turned(portrait, 20, 0.75), turned(portrait, -15, 1.0)]))
    track = cropper([frames], [torch.arange(3.0)])[0]
    eyes, boxes = (crop_boxes(frames, track.boxes, spec, track.landmarks) for spec in (EYES, BOX))
    inner = (slice(None), slice(None), slice(16, 48), slice(16, 48))
    eyes, boxes = ((c[inner][1:] - c[inner][:1]).abs().mean((1, 2, 3)) for c in (eyes, boxes))
    assert (eyes < 0.6 * boxes).all()


def test_gradients_reach_pixels_and_landmarks():
    torch.manual_seed(0)
    image = torch.rand(1, 8, 9, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[0.5, 0.5, 7.0, 7.5]], dtype=torch.float64)
    eyes = torch.tensor([[[2.6, 3.2], [5.1, 3.7], [4.0, 4.0], [3.0, 5.0], [5.0, 5.0]]], dtype=torch.float64)
    eyes.requires_grad_()

    def crop(image, landmarks):
        square = squares_on_eyes(boxes, landmarks).take(0)
        return resample_square(image, square, 3, "bilinear")

    assert torch.autograd.gradcheck(crop, (image, eyes), eps=1e-6, atol=1e-5)


# --- where it cannot be done ---------------------------------------------------------------------


def test_frames_without_landmarks_are_cut_by_their_box(noise):
    landmarks = LANDMARKS.clone()
    landmarks[1] = torch.nan
    crops = crop_boxes(noise, BOXES, EYES, landmarks)
    assert crops.isfinite().all()
    assert torch.equal(crops[1:2], crop_boxes(noise[1:2], BOXES[1:2], BOX))
    assert torch.equal(crops[::2], crop_boxes(noise, BOXES, EYES, LANDMARKS)[::2])
    assert torch.equal(crop_boxes(noise, BOXES, EYES, None), crop_boxes(noise, BOXES, BOX))


@pytest.mark.parametrize("field", ["visual", "textual"])
def test_the_published_crop_cannot_be_aligned(field):
    config = with_settings(
        micro(), {"modalities": (field,), f"{field}.crop": "paper", f"{field}.align": "eyes"}
    )
    with pytest.raises(ViperError, match=f"{field}.align eyes has no effect with {field}.crop paper"):
        ViPER(config)


def test_the_command_line_reaches_it():
    settings = parse_train(
        ["--train-shards", "a", "--run-dir", "b", "--preset", "micro", "--model.visual.align", "eyes"], "viper"
    )
    assert settings.model.visual.align == "eyes"


# --- cached in memory ------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"size": 24, "interpolation": "bicubic"}, {"size": 200}])
def test_cached_regions_give_bitwise_the_aligned_crops_of_whole_frames(noise, changes):
    spec = dataclasses.replace(EYES, **changes)
    cached = cut_regions(noise, BOXES, 0.25, LANDMARKS)
    whole = crop_boxes(noise, BOXES, spec, LANDMARKS)
    assert torch.equal(crop_boxes(cached, BOXES, spec, LANDMARKS), whole)
    assert cached.num_bytes < noise.numel()


def test_a_margin_that_holds_moved_boxes_holds_moved_eyes(noise):
    augment = Augment(("box",), dataclasses.replace(AugmentConfig(), box_shift=0.1, box_scale=0.2))
    cached = cut_regions(noise, BOXES, augment.box_reach, LANDMARKS)
    unmoved = crop_boxes(noise, BOXES, EYES, LANDMARKS)
    for seed in range(8):
        moved = augment.boxes(BOXES, torch.ones(3, dtype=torch.bool), seed)
        landmarks = moved_with(LANDMARKS, BOXES, moved)
        crops = crop_boxes(cached, moved, EYES, landmarks)
        assert torch.equal(crops, crop_boxes(noise, moved, EYES, landmarks))
        assert not torch.equal(crops, unmoved)


@pytest.mark.slow
@pytest.mark.parametrize("train", ["none", "all"])
def test_a_cached_clip_gives_bitwise_what_it_gave_at_first(portrait, train):
    config = with_settings(micro(), {"modalities": ("visual",), "visual.align": "eyes"})
    torch.manual_seed(0)
    model = training(ViPER(config), train).eval()
    frames = np.stack([portrait, turned(portrait, 25, 1.0)])
    clip = DecodedClip("a", frames, np.array([0.0, 0.5]), 1.0, display_size=(256, 256))
    with torch.no_grad():
        prepared, cache = model.prepare([clip]), TokenCache()
        first = model(prepared, cache=cache).intensities
        assert torch.equal(model([model.cacheable(prepared[0], cache)]).intensities, first)
    model.encoders["visual"].crop_spec = dataclasses.replace(model.encoders["visual"].crop_spec, align="box")
    assert not torch.equal(model.prepare([clip])[0].track.landmarks, torch.zeros(2, 5, 2))
    with torch.no_grad():
        assert not torch.equal(model(clip).intensities, first)


def test_an_identity_square_is_the_picture_itself():
    image = torch.rand(3, 8, 8)
    square = Squares(torch.zeros(2), torch.tensor([8.0, 0.0]), torch.tensor([0.0, 8.0]))
    torch.testing.assert_close(resample_square(image, square, 8, "bilinear"), image)
