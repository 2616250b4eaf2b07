"""visual.py: face crops -> one embedding each, by any vision transformer of the Hugging Face family."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPVisionConfig, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from viper_e2e.clip import CropSpec
from viper_e2e.config import ModelConfig, VisualConfig
from viper_e2e.encoders.backbone import Backbone, at_least_float32, contains_any
from viper_e2e.encoders.building import (
    build_model,
    check_align,
    find_blocks,
    pooler_off,
    read_architecture,
)
from viper_e2e.encoders.clip_view import ClipView
from viper_e2e.encoders.face_encoder import FaceCrops, FaceEncoder
from viper_e2e.encoders.layers import joined, layers_read, normalised
from viper_e2e.encoders.prefix import PrefixEncoder, run_from_prefix, run_prefix
from viper_e2e.encoders.prepared import Prefix
from viper_e2e.encoders.weights import NOWHERE, Found, Search, find
from viper_e2e.errors import ViperError

_INTERPOLATIONS: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}
"""PIL's numbers, as preprocessor files write them."""


class VisualEncoder(PrefixEncoder[FaceCrops], FaceEncoder):
    """ViT, DeiT, BEiT, DINOv2, DINOv3, CLIP's and SigLIP's image towers, …"""

    name = "visual"

    def __init__(self, config: VisualConfig, backbone: Backbone, crop_spec: CropSpec):
        super().__init__()
        self.pooling = config.pooling
        self.crop_spec = crop_spec
        self.backbone = backbone
        self._layers = layers_read(config.layers, len(backbone.blocks()), "visual")
        parts = 2 if config.pooling == "both" else 1
        self.embed_dim = parts * len(self._layers) * backbone.model.config.hidden_size
        self._interpolate = _interpolation(backbone, crop_spec.size, config.pooling)

    @classmethod
    def of_model(cls, config: ModelConfig, search: Search) -> VisualEncoder:
        return cls.build(config.visual, search)

    @classmethod
    def build(cls, config: VisualConfig, search: Search = NOWHERE) -> VisualEncoder:
        """Build from settings, and for a saved checkpoint from its folder of assets and records."""
        found = find("visual", config.backbone, search)
        architecture = read_architecture(found, config.backbone)
        # Of two-tower models (CLIP, SigLIP), only the image tower is read.
        architecture = getattr(architecture, "vision_config", architecture)
        model_class = _model_class(architecture, found)
        check_align("visual", config.crop, config.align)
        own_size = side_of(architecture.image_size)
        crop_spec = crop_spec_of(found, own_size, config.crop_size, is_paper=config.crop == "paper")
        crop_spec = replace(crop_spec, align=config.align)
        model, origin = build_model(found, search, architecture, model_class, **pooler_off(model_class))
        backbone = Backbone(
            "visual",
            model,
            origin,
            config.backbone,
            blocks=find_blocks(model),
            idle=contains_any("mask_token", "head.", "pooler."),
        )
        return cls(config, backbone, crop_spec)

    def embed(self, pixels: Float[Tensor, "N 3 S S"]) -> Float[Tensor, "N D"]:
        """Crops cut by ``crop_spec`` (normalised) -> class token, mean of patch tokens, or both; float32."""
        backbone, several = self.backbone, len(self._layers) > 1
        with backbone.computing(pixels.device):
            output = backbone.model(
                backbone.as_input(pixels), **self._interpolate, output_hidden_states=several
            )
            last = self._ended(output.last_hidden_state)
        states = at_least_float32(joined(last, output.hidden_states if several else None, self._layers))
        return self._parts(states).flatten(1)

    def _ended(self, last: Float[Tensor, "N L D"]) -> Float[Tensor, "N L D"]:
        """CLIP normalises after its blocks only what it pools."""
        is_clip = isinstance(self.backbone.model.config, CLIPVisionConfig)
        return self.backbone.model.post_layernorm(last) if is_clip else last

    @property
    def _num_patches(self) -> int:
        return (self.crop_spec.size // self.backbone.model.config.patch_size) ** 2

    # --- partly trained ---------------------------------------------------------------------------

    def encode_prefix(self, inputs: FaceCrops) -> Prefix:
        hidden, earlier = run_prefix(self.backbone, inputs.crops, self._layers, **self._interpolate)
        return Prefix(self.prefix_id(), (hidden,), (self._pooled(earlier, hidden),))

    def inputs_from_prefix(self, clip: ClipView, prefix: Prefix) -> FaceCrops:
        return FaceCrops.from_prefix(clip, self.crop_spec, prefix)

    def embed_together(self, inputs: Sequence[FaceCrops]) -> Float[Tensor, "N D"]:
        kept = [(clip.prefix, clip.frame) for clip in inputs if clip.prefix is not None]
        if not kept:
            return super().embed_together(inputs)
        hidden = torch.cat([prefix.hidden[0][frame] for prefix, frame in kept])
        earlier = torch.cat([prefix.earlier[0][frame] for prefix, frame in kept])
        size = self.crop_spec.size
        blank = torch.zeros(1, 3, size, size, device=hidden.device)
        last, later = run_from_prefix(self.backbone, hidden, blank, self._layers, **self._interpolate)
        with self.backbone.computing(hidden.device):
            last = self._ended(last)
        of_layers = torch.cat([earlier, self._pooled(later, hidden), self._parts(last)[:, :, None]], 2)
        return of_layers.flatten(1)

    def _pooled(
        self, states: Sequence[Float[Tensor, "N L D"]], like: Float[Tensor, "N L D"]
    ) -> Float[Tensor, "N P K D"]:
        """Parts of K layers before the last; ``like``: of K 0, where none is read."""
        made = [self._parts(normalised(state)) for state in states]
        return torch.stack(made, 2) if made else self._parts(like)[:, :, None][:, :, :0]

    def _parts(self, states: Float[Tensor, "N L D"]) -> Float[Tensor, "N P D"]:
        """Class token, mean of patch tokens, or both."""
        states, number = at_least_float32(states), self._num_patches
        parts = [states[:, 0]] if self.pooling != "mean" else []
        return torch.stack([*parts, states[:, -number:].mean(1)] if self.pooling != "cls" else parts, 1)

    def compile_targets(self, device: torch.device) -> list[nn.Module]:
        return [self.backbone.model]


def _model_class(architecture: PretrainedConfig, found: Found) -> type[PreTrainedModel]:
    kind = architecture.model_type.removesuffix("_vision_model")
    patch_size = getattr(architecture, "patch_size", None)
    if not isinstance(patch_size, int) or not hasattr(architecture, "num_hidden_layers"):
        raise ViperError(
            f"visual: {found.spec} is a {kind}, not a vision transformer of equal patches; "
            "allowed are vit, deit, beit, dinov2, dinov3_vit, clip, siglip and their like"
        )
    return MODEL_MAPPING[type(architecture)]


def _interpolation(backbone: Backbone, size: int, pooling: str) -> dict[str, bool]:
    """Arguments that let the model take crops of ``size``; an error where it cannot."""
    model, architecture = backbone.model, backbone.model.config
    kind, patch = architecture.model_type, architecture.patch_size
    if size % patch:
        raise ViperError(f"visual: crop_size {size} is not a multiple of the {patch}-pixel patches of {kind}")
    has_class_token = any(
        name.endswith(("cls_token", "class_embedding")) for name, _ in model.named_parameters()
    )
    if pooling != "mean" and not has_class_token:
        raise ViperError(f"visual: {kind} has no class token; set visual.pooling to mean")
    own_size = side_of(architecture.image_size)
    # DINOv2 and DINOv3 fit their positions to any grid without being told.
    if size == own_size or kind.startswith("dinov"):
        return {}
    if "interpolate_pos_encoding" not in inspect.signature(model.forward).parameters:
        raise ViperError(f"visual: {kind} takes crops of {own_size} pixels, not {size}")
    return {"interpolate_pos_encoding": True}


def side_of(size: Any) -> int:
    """Files write ``224``, ``[224, 224]``, ``{"height": 224, …}`` or ``{"shortest_edge": 224}``."""
    if isinstance(size, Mapping):
        size = size.get("height") or size.get("shortest_edge")
    return int(size[0] if isinstance(size, list | tuple) else size)


def crop_spec_of(found: Found, own_size: int, size: int | None, *, is_paper: bool = False) -> CropSpec:
    """The crop of the backbone's own preprocessor, read from its JSON (transformers refuses older files).

    Where a preprocessor resizes a little larger than it crops (DINOv2: 256 to 224), the outer rim that it would
    throw away is kept: a face box has none to spare.
    """
    if found.small is None:
        size = size or own_size
        return CropSpec(size, integer_boxes=is_paper, resize_in_uint8=is_paper)
    is_video = (found.small / "video_preprocessor_config.json").is_file()
    values = found.read_json("video_preprocessor_config.json" if is_video else "preprocessor_config.json")
    resample = values.get("resample", 2)
    if resample not in _INTERPOLATIONS:
        raise ViperError(
            f"{found.name}: {found.small}/preprocessor_config.json has resample {resample}; allowed 2, 3"
        )
    own = values.get("crop_size") if values.get("do_center_crop") else values.get("size")
    own = own or values.get("size") or own_size
    keeps_aspect = bool(values.get("do_center_crop"))
    normalises = values.get("do_normalize", True)
    mean = values.get("image_mean", (0.5, 0.5, 0.5)) if normalises else (0.0, 0.0, 0.0)
    std = values.get("image_std", (0.5, 0.5, 0.5)) if normalises else (1.0, 1.0, 1.0)
    white = _white(values)
    # ViViT's makes black −1 before it normalises.
    black = -1.0 if values.get("offset") else 0.0
    return CropSpec(
        size=size or side_of(own),
        aspect="short_side_center" if keeps_aspect and not is_paper else "squash",
        interpolation=_INTERPOLATIONS[resample],
        mean=_of_colours((float(x) - black) / white for x in mean),
        std=_of_colours(float(x) / white for x in std),
        integer_boxes=is_paper,
        resize_in_uint8=True,
    )


def _of_colours(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _white(values: Mapping[str, Any]) -> float:
    """Value of a white pixel before a preprocessor normalises it: 1 in ours and in nearly all others."""
    if not values.get("do_rescale", True):
        return 255.0
    white = 255.0 * float(values.get("rescale_factor", 1 / 255))
    return 1.0 if math.isclose(white, 1.0, rel_tol=1e-6) else white
