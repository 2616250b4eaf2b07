"""motion.py: face crops in order of time -> what moves in them, by video transformers: VideoMAE, V-JEPA 2, …"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PretrainedConfig, VJEPA2Config
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from viper_e2e.clip import CropSpec
from viper_e2e.config import ModelConfig, MotionConfig
from viper_e2e.encoders.backbone import Backbone, at_least_float32, contains_any
from viper_e2e.encoders.base import Encoder, Stream
from viper_e2e.encoders.building import (
    build_model,
    find_blocks,
    pooler_off,
    read_architecture,
)
from viper_e2e.encoders.clip_view import ClipView
from viper_e2e.encoders.face_encoder import FaceCrops, crops_of_noise, stream_of
from viper_e2e.encoders.visual import crop_spec_of, side_of
from viper_e2e.encoders.weights import NOWHERE, Found, Search, find
from viper_e2e.errors import ViperError


class VideoShape(NamedTuple):
    """Shape of a video transformer's input, and the layout of its tokens."""

    num_frames: int
    """Frames of one window."""
    tubelet: int
    """Frames that share a token."""
    size: int
    """Side of a frame in pixels."""
    num_patches: int
    """Patches of a frame."""
    has_class_token: bool = False
    is_time_last: bool = False
    """Tokens in order of patch, then time; else of time, then patch."""


class Windows(NamedTuple):
    """Windows: frames of a clip that a video transformer sees together."""

    frames: Int[Tensor, "W F"]
    """Index of a frame: a short clip's are repeated to fill one window, a long clip's windows overlap."""
    token: Int[Tensor, " N"]
    """For each frame, which of all windows' tokens (in order, W · F / tubelet) shows it: in the window where it
    lies nearest to the middle."""


class MotionEncoder(Encoder[FaceCrops]):
    """VideoMAE and its kin, TimeSformer, ViViT, V-JEPA 2."""

    name = "motion"
    crop_spec: CropSpec

    def __init__(self, config: MotionConfig, backbone: Backbone, crop_spec: CropSpec, shape: VideoShape):
        super().__init__()
        self.backbone = backbone
        self.crop_spec = crop_spec
        self.shape = shape
        self.embed_dim = backbone.model.config.hidden_size
        takes = inspect.signature(backbone.model.forward).parameters
        self._options = {"skip_predictor": True} if "skip_predictor" in takes else {}

    @classmethod
    def of_model(cls, config: ModelConfig, search: Search) -> MotionEncoder:
        return cls.build(config.motion, config.decoding.num_frames, search)

    @classmethod
    def build(cls, config: MotionConfig, num_slots: int, search: Search = NOWHERE) -> MotionEncoder:
        """``num_slots``: frames looked at per clip, at most."""
        found = find("motion", config.backbone, search)
        architecture = read_architecture(found, config.backbone)
        shape = _shape(config, architecture, found, num_slots)
        spec = replace(crop_spec_of(found, shape.size, shape.size), align=config.align)
        model_class = MODEL_MAPPING[type(architecture)]
        model, origin = build_model(found, search, architecture, model_class, **pooler_off(model_class))
        if isinstance(architecture, VJEPA2Config):
            # What it guesses of hidden patches is of use in its pre-training alone.
            model.predictor = nn.Identity()
        backbone = Backbone(
            "motion",
            model,
            origin,
            config.backbone,
            blocks=find_blocks(model),
            idle=contains_any("mask_token", "head.", "pooler."),
        )
        return cls(config, backbone, spec, shape)

    def inputs(self, clip: ClipView) -> FaceCrops:
        return FaceCrops.of(clip, self.crop_spec)

    def forward(self, inputs: Sequence[FaceCrops]) -> Stream:
        # At least one window of each clip, so that every process runs every parameter in every step.
        made = self.embed([clip.crops for clip in inputs])
        tokens = torch.stack([of_frames[clip.frame] for of_frames, clip in zip(made, inputs, strict=True)])
        return stream_of(inputs, tokens, [self.seconds(clip.frame_seconds)[clip.frame] for clip in inputs])

    def example_input(self) -> FaceCrops:
        return crops_of_noise(self.crop_spec, next(self.parameters()).device)

    def compile_targets(self, device: torch.device) -> list[nn.Module]:
        return [self.backbone.model]

    def embed(self, clips: Sequence[Float[Tensor, "_ 3 S S"]]) -> list[Float[Tensor, "_ D"]]:
        """Crops of each clip's frames, in order of time and cut by ``crop_spec`` -> a token per frame, float32.

        Frames of one tubelet have the same token: the mean of its patches.
        """
        plans = [self.windows(len(crops)) for crops in clips]
        videos = torch.cat([crops[p.frames.to(crops.device)] for p, crops in zip(plans, clips, strict=True)])
        tokens = iter(self._encode(videos).split([len(p.frames) for p in plans]))
        return [next(tokens).flatten(0, 1)[p.token.to(videos.device)] for p in plans]

    def seconds(self, frame_seconds: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """When the token of each frame is: the mean time of the frames that its tubelet shows."""
        plan = self.windows(len(frame_seconds))
        times = frame_seconds[plan.frames.to(frame_seconds.device)].unflatten(1, (-1, self.shape.tubelet))
        return times.mean(2).flatten()[plan.token.to(frame_seconds.device)]

    def windows(self, num_frames: int) -> Windows:
        """The windows of a clip with so many distinct frames; they do not depend on the batch."""
        length, tubelet = self.shape.num_frames, self.shape.tubelet
        number = max(1, -(-num_frames // length))
        if number == 1:
            frames = ((torch.arange(length) * 2 + 1) * num_frames // (2 * length))[None]
        else:
            starts = torch.arange(number) * (num_frames - length) // (number - 1)
            frames = starts[:, None] + torch.arange(length)
        # Twice the distance from a window's middle, so that it is whole; of equals the first.
        distance = (2 * torch.arange(length) - (length - 1)).abs().repeat(number)
        distance = distance * len(distance) + torch.arange(len(distance))
        shows = frames.flatten() == torch.arange(num_frames)[:, None]
        place = torch.where(shows, distance, distance.max() + 1).argmin(1)
        # Windows are whole tubelets long.
        return Windows(frames, place // tubelet)

    def _encode(self, videos: Float[Tensor, "W F 3 S S"]) -> Float[Tensor, "W K D"]:
        backbone, shape = self.backbone, self.shape
        with backbone.computing(videos.device):
            hidden = backbone.model(backbone.as_input(videos), **self._options).last_hidden_state
        patches = hidden[:, 1:] if shape.has_class_token else hidden
        num_times = shape.num_frames // shape.tubelet
        if shape.is_time_last:
            return at_least_float32(patches).unflatten(1, (shape.num_patches, num_times)).mean(1)
        return at_least_float32(patches).unflatten(1, (num_times, shape.num_patches)).mean(2)


def _shape(config: MotionConfig, architecture: PretrainedConfig, found: Found, num_slots: int) -> VideoShape:
    """Shape that the architecture states, with the settings' number of frames and size where it takes them."""
    kind = architecture.model_type
    if kind not in ("videomae", "timesformer", "vivit", "vjepa2"):
        raise ViperError(
            f"motion: {found.spec} is a {kind}, not a supported video transformer; "
            "allowed are videomae, timesformer, vivit and vjepa2"
        )
    tubelet, patch = getattr(architecture, "tubelet_size", 1), getattr(architecture, "patch_size", None)
    if kind == "vivit":
        tubelet, *patch = architecture.tubelet_size
    own_frames = architecture.frames_per_clip if kind == "vjepa2" else architecture.num_frames
    own_size = side_of(architecture.crop_size if kind == "vjepa2" else architecture.image_size)
    size, num_frames = config.crop_size or own_size, config.num_frames or own_frames
    if kind in ("videomae", "vivit") and (size, num_frames) != (own_size, own_frames):
        raise ViperError(
            f"motion: {kind} takes {own_frames} frames of {own_size} pixels, not {num_frames} of {size}"
        )
    if kind == "vjepa2" and config.num_frames is None:
        # Its positions are relative: it needs no more frames than there are, and repeated ones cost as much.
        num_frames = min(num_frames, -(-num_slots // tubelet) * tubelet)
    patch = side_of(patch)
    if num_frames % tubelet or size % patch:
        raise ViperError(
            f"motion: {num_frames} frames of {size} pixels do not divide into {kind}'s tubelets of {tubelet} "
            f"frames and patches of {patch} pixels"
        )
    has_class_token = kind in ("timesformer", "vivit")
    return VideoShape(num_frames, tubelet, size, (size // patch) ** 2, has_class_token, kind == "timesformer")
