"""image_text.py: CLIP models through open_clip, from hub ids, folders, OpenAI state dicts, or a config."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import open_clip
from jaxtyping import Int
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import convert_to_custom_text_state_dict
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from torch import Tensor, nn

from viper_e2e.clip import CropSpec
from viper_e2e.config import BackboneConfig
from viper_e2e.encoders.backbone import Origin
from viper_e2e.encoders.parameter_budget import ParameterBudget, check_buildable, check_settings_size
from viper_e2e.encoders.tokenization import read_tokenizer
from viper_e2e.encoders.weights import (
    Found,
    Search,
    check_hash,
    find,
    read_json,
    read_tensors,
    small_files_of,
    tensors_sha256,
    weight_files,
)
from viper_e2e.errors import ViperError, did_you_mean, nearest

logger = logging.getLogger(__name__)

_OPENAI_SCALARS = ("input_resolution", "context_length", "vocab_size")
"""Found in OpenAI's released state dicts only, beside the weights."""
_TOKENIZER_SETTINGS = {"clean", "strip_sep_token", "language", "tokenizer_mode"}
"""Those of open_clip. It hands all others to transformers, so that a model could ask for its code to be run."""
_ASPECTS: dict[str, Literal["short_side_center", "squash"]] = {
    "shortest": "short_side_center",
    "squash": "squash",
}


@dataclass(frozen=True)
class ImageTextModel:
    """A CLIP, and what belongs to it."""

    model: Any
    """open_clip's, whose classes have their towers in different places."""
    origin: Origin
    tokenize: Callable[[list[str]], Int[Tensor, "K L"]]
    embed_dim: int
    preprocess: dict[str, Any]
    """``mean``, ``std``, ``interpolation``, ``resize_mode``, as open_clip writes them."""
    is_random: bool

    def crop_spec(self, *, is_paper: bool) -> CropSpec:
        """CLIP's own preprocessing: short side resized, centre kept (SigLIP: squashed)."""
        values = self.preprocess
        mode, interpolation = values["resize_mode"], values["interpolation"]
        if mode not in _ASPECTS or interpolation not in ("bilinear", "bicubic"):
            raise ViperError(
                f"image_text: its preprocessing ({mode}, {interpolation}) is not supported; "
                "allowed: shortest or squash, bilinear or bicubic"
            )
        size = self.model.visual.image_size
        return CropSpec(
            size=size if isinstance(size, int) else size[0],
            aspect=_ASPECTS[mode],
            interpolation=interpolation,
            mean=tuple(values["mean"]),
            std=tuple(values["std"]),
            integer_boxes=is_paper,
            resize_in_uint8=is_paper or not self.is_random,
        )


def load_image_text(config: BackboneConfig, search: Search) -> ImageTextModel:
    """The CLIP named by a spec: ``NAME/PRETRAINED``, ``hf-hub:…``, a folder, a safetensors file, or random.

    A file of weights says nothing about the activation: OpenAI's models need QuickGELU, most others GELU, and
    the wrong one is quietly wrong. So it must be stated beside the file, or OpenAI's own scalars in it tell.
    """
    architecture, preprocess, hub_id = _named(search.spec("image_text", config), search)
    found = find("image_text", config, search, hub_id)
    tensors = None
    if found.path is None:
        if found.small is not None:
            architecture, preprocess = _described(found.small / "open_clip_config.json")
        else:
            architecture = copy.deepcopy(config.config or {})
            if not {"embed_dim", "vision_cfg", "text_cfg"} <= architecture.keys():
                raise ViperError(
                    "image_text: random weights need a config with embed_dim, vision_cfg and text_cfg"
                )
    else:
        tensors = read_tensors(weight_files(found))
        scalars = {name: tensors.pop(name) for name in _OPENAI_SCALARS if name in tensors}
        if architecture is None:
            architecture, preprocess = _architecture(found, tensors)
        _settle_activation(found, architecture, is_openai=bool(scalars))
    where = "its config" if found.small is None else found.small
    check_settings_size("image_text", where, architecture)
    if tensors is not None:
        budget = ParameterBudget.of_weights(tensor.shape for tensor in tensors.values())
    else:
        budget = search.checkpoint_budget if "image_text" in search.bundled else ParameterBudget()
    check_buildable("image_text", where, lambda: _build(architecture), budget)
    model = _build(architecture)
    sha256 = None
    if tensors is not None:
        sha256 = tensors_sha256(tensors)
        check_hash(found, sha256, search)
        _fill(model, tensors, found)
    elif "image_text" not in search.bundled:
        logger.warning("image_text: random weights, because the settings say so")
    preprocess = _complete(preprocess)
    files = small_files_of(found.small) if found.small is not None else {}
    description = {"model_cfg": architecture, "preprocess_cfg": preprocess}
    files["open_clip_config.json"] = json.dumps(description, indent=1).encode()
    origin = Origin(found.spec, found.revision, sha256, files)
    return ImageTextModel(
        model,
        origin,
        _tokenizer(architecture["text_cfg"], found),
        architecture["embed_dim"],
        preprocess,
        is_random=found.spec == "random",
    )


# --- what kind of model -------------------------------------------------------------------------


def _named(spec: str, search: Search) -> tuple[dict[str, Any] | None, dict[str, Any], str | None]:
    """Architecture, preprocessing and repository of ``NAME/PRETRAINED``; the repository of ``hf-hub:…``."""
    if spec.startswith("hf-hub:"):
        return None, {}, spec.removeprefix("hf-hub:")
    name, _, tag = spec.partition("/")
    architecture = open_clip.get_model_config(name)
    is_path = spec == "random" or Path(spec).expanduser().exists() or spec.startswith(("/", ".", "~"))
    # A checkpoint describes its CLIP itself, wherever the weights lay when it was trained.
    if is_path or (architecture is None and search.small_files("image_text") is not None):
        return None, {}, None
    if architecture is None:
        hint = did_you_mean(nearest(name, open_clip.list_models()))
        raise ViperError(
            f"image_text: {spec} is not a file, a folder, hf-hub:OWNER/NAME or open_clip's "
            f"NAME/PRETRAINED{hint}"
        )
    pretrained = open_clip.get_pretrained_cfg(name, tag)
    if not pretrained.get("hf_hub"):
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name))
        raise ViperError(f"image_text: {name} has no weights {tag!r} on the hub; open_clip knows: {tags}")
    if bool(pretrained.get("quick_gelu")) != bool(architecture.get("quick_gelu")):
        raise ViperError(
            f"image_text: {spec} pairs a model and weights with different activations; "
            f"name the model {'with' if pretrained.get('quick_gelu') else 'without'} -quickgelu"
        )
    architecture.setdefault("quick_gelu", False)
    return architecture, pretrained, pretrained["hf_hub"].rstrip("/")


def _architecture(found: Found, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings from the JSON beside the weights; a bare OpenAI state dict implies its own dimensions."""
    assert found.small is not None
    if (found.small / "open_clip_config.json").is_file():
        return _described(found.small / "open_clip_config.json")
    if (found.small / "config.json").is_file():
        values = read_json(found.small / "config.json")
        if "vision_cfg" in values:
            if "quick_gelu" not in values:
                raise ViperError(_which_activation(f"{found.small}/config.json"))
            return {k: values[k] for k in ("embed_dim", "quick_gelu", "vision_cfg", "text_cfg")}, {}
    return _dimensions(found, tensors), {}


def _described(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    values = read_json(path)
    if "model_cfg" not in values:
        raise ViperError(f"{path}: has no model_cfg; an open_clip configuration is expected")
    # Open_clip's own files leave the activation out where it is GELU.
    return {"quick_gelu": False, **values["model_cfg"]}, values.get("preprocess_cfg", {})


def _dimensions(found: Found, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Dimensions of an OpenAI state dict, as open_clip finds them (``build_model_from_openai_state_dict``)."""
    if "visual.proj" not in tensors or "text_projection" not in tensors:
        raise ViperError(
            f"image_text: {found.path} is not an OpenAI CLIP state dict, and there is no "
            "open_clip_config.json beside it"
        )
    patch_weight = tensors["visual.conv1.weight"]
    width, patch = patch_weight.shape[0], patch_weight.shape[-1]
    grid = round((tensors["visual.positional_embedding"].shape[0] - 1) ** 0.5)
    layers = {
        tower: len(
            {k.split("resblocks.")[1].split(".")[0] for k in tensors if k.startswith(f"{tower}.resblocks.")}
        )
        for tower in ("visual.transformer", "transformer")
    }
    text_width = tensors["ln_final.weight"].shape[0]
    return {
        "embed_dim": tensors["text_projection"].shape[1],
        "vision_cfg": {
            "image_size": grid * patch,
            "patch_size": patch,
            "width": width,
            "layers": layers["visual.transformer"],
        },
        "text_cfg": {
            "context_length": tensors["positional_embedding"].shape[0],
            "vocab_size": tensors["token_embedding.weight"].shape[0],
            "width": text_width,
            "heads": max(1, text_width // 64),
            "layers": layers["transformer"],
        },
    }


def _settle_activation(found: Found, architecture: dict[str, Any], *, is_openai: bool) -> None:
    stated = architecture.get("quick_gelu")
    if is_openai and stated is False:
        raise ViperError(
            f"image_text: {found.path} holds OpenAI's CLIP, which needs quick_gelu true, not false"
        )
    if stated is None and not is_openai:
        raise ViperError(_which_activation(str(found.path)))
    architecture["quick_gelu"] = is_openai or bool(stated)


def _which_activation(what: str) -> str:
    return (
        f"image_text: {what} does not say which activation its weights were trained with; put beside them a "
        'config.json with "quick_gelu": true (OpenAI) or false, embed_dim, vision_cfg and text_cfg'
    )


# --- the model ----------------------------------------------------------------------------------


def _build(architecture: dict[str, Any]) -> nn.Module:
    settings = {k: v for k, v in copy.deepcopy(architecture).items() if k != "custom_text"}
    text = settings["text_cfg"]
    if "multimodal_cfg" in settings or "hf_model_name" in text:
        raise ViperError(
            "image_text: a CLIP with its own text tower is needed, not CoCa or one with a foreign tower"
        )
    # Tokenisers are ours to build, and no part of the network may fetch weights of its own.
    for key in ("hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode"):
        text.pop(key, None)
    settings["vision_cfg"].pop("timm_model_pretrained", None)
    model_class = open_clip.CustomTextCLIP if architecture.get("custom_text") else open_clip.CLIP
    return model_class(**settings).eval()


def _fill(model: nn.Module, tensors: dict[str, Tensor], found: Found) -> None:
    if isinstance(model, open_clip.CustomTextCLIP) and "positional_embedding" in tensors:
        tensors = convert_to_custom_text_state_dict(tensors)
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    wrong = {k: v for k, v in shapes.items() if k not in tensors or tuple(tensors[k].shape) != v}
    extra = sorted(tensors.keys() - shapes.keys())
    if wrong or extra:
        name, shape = next(iter(wrong.items()), (extra[0] if extra else "", None))
        given = tuple(tensors[name].shape) if name in tensors else "nothing"
        raise ViperError(
            f"image_text: {found.path} does not fit its configuration: {name} is {given}, "
            f"expected {shape or 'nothing'} ({len(wrong) + len(extra)} tensors in all)"
        )
    model.load_state_dict(tensors)


def _complete(preprocess: Mapping[str, Any]) -> dict[str, Any]:
    """Open_clip's defaults for what a configuration leaves out: OpenAI's preprocessing."""
    defaults = {
        "mean": OPENAI_DATASET_MEAN,
        "std": OPENAI_DATASET_STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    return {key: preprocess.get(key) or default for key, default in defaults.items()}


def _tokenizer(text: dict[str, Any], found: Found) -> Callable[[list[str]], Int[Tensor, "K L"]]:
    length = text.get("context_length", 77)
    if not text.get("hf_tokenizer_name"):
        return SimpleTokenizer(context_length=length)
    settings = text.get("tokenizer_kwargs") or {}
    if unknown := sorted(settings.keys() - _TOKENIZER_SETTINGS):
        raise ViperError(f"image_text: {found.small}: tokenizer_kwargs may not set {unknown[0]!r}; remove it")
    read_tokenizer(found)  # what cannot be read, or only by its own code, is refused in one line
    return HFTokenizer(
        str(found.small), context_length=length, local_files_only=True, trust_remote_code=False, **settings
    )
