"""Clips on which the published scripts crash or mislead, scored under the published rules and under ours."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from support.media import tone

from viper_e2e.config import BackboneConfig, ModelConfig, with_settings
from viper_e2e.config.presets import micro, paper
from viper_e2e.model.output import ViPEROutput
from viper_e2e.model.viper import ViPER

HEIGHT, WIDTH = 160, 240


def small(config: ModelConfig, like: ModelConfig) -> ModelConfig:
    """A preset's rules with backbones and a head of a few thousand random weights."""
    return with_settings(
        config,
        {
            "modalities": ("visual", "audio", "textual"),
            "visual.backbone": like.visual.backbone,
            "visual.crop_size": like.visual.crop_size,
            "textual.image_text": like.textual.image_text,
            "textual.sentence_encoder": None,
            "audio.backbone": BackboneConfig(
                config=like.audio.backbone.config | {"xvector_output_dim": 16, "tdnn_dim": [16] * 5}
            ),
            "fusion.num_latents": 4,
            "fusion.latent_dim": 16,
            "fusion.self_attends_per_block": 1,
            "fusion.num_cross_heads": 2,
            "fusion.num_latent_heads": 2,
        },
    )


@cache
def model_of(preset: str) -> ViPER:
    torch.manual_seed(0)
    return ViPER(small(paper(), micro()) if preset == "paper" else micro()).eval()


@pytest.fixture(params=["paper", "micro"])
def score(request):
    """``score(clip) -> (output of a batch of one, its modalities)`` under the published rules and ours."""
    model = model_of(request.param)

    def run(clip) -> tuple[ViPEROutput, dict[str, bool]]:
        with torch.no_grad():
            output = model([clip])
        assert output.errors == (None,)
        assert output.intensities.isfinite().all()
        return output, dict(zip(model.modalities, output.present[0].tolist(), strict=True))

    run.num_slots = model.config.decoding.num_frames
    run.is_paper = request.param == "paper"
    return run


def face(size: int) -> np.ndarray:
    picture = Image.fromarray(astronaut()[40:220, 140:320])
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))


def scene(*places: tuple[int, int], size: int = 110) -> np.ndarray:
    """A frame with a face at each place (left, top), or none."""
    frame = np.random.default_rng(0).normal(110, 8, (HEIGHT, WIDTH, 3)).clip(0, 255).astype(np.uint8)
    for left, top in places:
        frame[top : top + size, left : left + size] = face(size)
    return frame


@pytest.mark.slow
@pytest.mark.parametrize("num_frames", [1, 3, 15, 16, 40])
def test_clips_of_any_number_of_frames_are_scored(score, tiny_clip, num_frames):
    path = tiny_clip(frames=[scene((60, 20))] * num_frames, fps=10, sound=tone(num_frames / 10, 16_000, 1))
    output, present = score(path)
    assert present["visual"]
    assert present["audio"]
    assert output.face_found.all()
    # Published: every slot is filled, frames are repeated. Ours: slots that no frame fills are masked.
    shown = min(num_frames, score.num_slots)
    if score.is_paper and num_frames == 40:
        shown = 31  # the published rule names 39 twice: its step rounds up to it, and it is the last
    assert output.used.sum() == (score.num_slots if score.is_paper else shown)
    assert len(output.frame_seconds[0].unique()) == shown


@pytest.mark.parametrize("claimed", [2, 5_000])
def test_a_container_that_lies_about_its_frames_is_not_believed(score, tiny_clip, claimed):
    data = tiny_clip("clip.avi", codec="mpeg4", num_frames=20, sound=None).read_bytes()
    at = data.find(b"avih") + 8 + 16
    lying = data[:at] + claimed.to_bytes(4, "little") + data[at + 4 :]
    honest, _ = score(data)
    output, _ = score(lying)
    assert torch.equal(output.intensities, honest.intensities)
    assert len(output.frame_seconds[0].unique()) == min(20, score.num_slots)


def test_sound_shorter_than_one_window_is_heard(score, tiny_clip):
    """0.02 s: 32 windows of half that overlap are a few samples each, below what the encoder can take."""
    path = tiny_clip(num_frames=20, sound=tone(0.02, 16_000, 1), audio_codec="flac", name="clip.mkv")
    _, present = score(path)
    assert present["audio"]


def test_a_clip_without_sound_is_scored_by_what_there_is(score, tiny_clip):
    _, present = score(tiny_clip(num_frames=20, sound=None))
    assert present["visual"]
    assert not present["audio"]


def test_a_clip_without_a_face_is_scored_by_whole_frames(score, tiny_clip):
    output, present = score(tiny_clip(frames=[scene()] * 20, sound=None))
    assert present["visual"]
    assert not output.face_found.any()
    whole = torch.tensor([0.0, 0.0, WIDTH, HEIGHT])
    assert torch.equal(output.boxes[0], whole.expand_as(output.boxes[0]))


@pytest.mark.slow
def test_of_more_faces_one_is_scored_throughout(score, tiny_clip):
    """The published scripts take whichever box comes first; both rules hold to one person here."""
    frame = scene((10, 20), (125, 20), size=105)
    output, _ = score(tiny_clip(frames=[frame] * 20, sound=None))
    assert output.face_found.all()
    centres = (output.boxes[0, :, 0] + output.boxes[0, :, 2]) / 2
    assert (centres < 120).all() or (centres > 120).all()
    alone = [
        tiny_clip(name, frames=[scene(place, size=105)] * 20, sound=None)
        for name, place in (("left.mp4", (10, 20)), ("right.mp4", (125, 20)))
    ]
    nearest = min((score(path)[0].boxes - output.boxes).abs().max() for path in alone)
    assert nearest < 6, "a box of both, or of neither"
