"""released.py: the contents of a released checkpoint: the Perceiver's tensors, its sizes, its modalities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from viper_e2e.config import FusionConfig, in_order
from viper_e2e.errors import ViperError
from viper_e2e.fusion import build_fusion
from viper_e2e.published import safe_pickle
from viper_e2e.runtime import count_of, first_of

if TYPE_CHECKING:
    from viper_e2e.fusion import ConcatFusion

WIDTHS = {"visual": 768, "audio": 512, "textual": 768, "action_units": 32}
"""Channels of each modality in the published concatenation."""

MODALITIES_OF_WIDTH = {
    768: ("visual",),
    1280: ("visual", "audio"),
    1536: ("visual", "textual"),
    2048: ("visual", "audio", "textual"),
    800: ("visual", "action_units"),
    1312: ("visual", "audio", "action_units"),
    1568: ("visual", "textual", "action_units"),
    2080: ("visual", "audio", "textual", "action_units"),
}
"""Modalities of the eight released checkpoints, by the width of their input."""

ROOT = "transformers.models.perceiver.modeling_perceiver.PerceiverModel"

EXPECTED = {
    "qk_channels": None,
    "v_channels": None,
    "cross_attention_shape_for_attention": "kv",
    "self_attention_widening_factor": 1,
    "cross_attention_widening_factor": 1,
    "hidden_act": "gelu",
    "use_query_residual": True,
}
"""Settings that all released heads share and `ConcatFusion` builds."""

COMPARED = ("num_heads", "use_query_residual", "eps", "p", "normalized_shape", "in_features", "out_features")
"""Attributes of submodules that change what they compute."""

MAX_DEPTH = 16
MAX_LAYERS = 256


@dataclass(frozen=True)
class ReleasedHead:
    """A released Perceiver, ready for `ConcatFusion`."""

    path: Path
    state_dict: dict[str, Float[Tensor, "..."]]
    """float32, under the names of transformers' `PerceiverModel`; views of the file."""
    config: dict[str, Any]
    """Values of its PerceiverConfig."""
    modalities: tuple[str, ...]
    fusion: FusionConfig
    num_outputs: int
    _root: safe_pickle.Stub

    @property
    def widths(self) -> dict[str, int]:
        return {name: WIDTHS[name] for name in self.modalities}

    def build(self) -> ConcatFusion:
        """Today's module with the released weights, in evaluation mode; loads strictly, copies nothing."""
        from viper_e2e.fusion import ConcatFusion  # loads transformers

        with torch.device("meta"):
            fusion = build_fusion(self.fusion, self.widths, self.num_outputs, unit_interval=False)
        assert isinstance(fusion, ConcatFusion), self.fusion.kind
        self._compare_tensors(fusion.perceiver.state_dict())
        self._compare_modules(fusion.perceiver)
        fusion.perceiver.load_state_dict(self.state_dict, strict=True, assign=True)
        return fusion.eval()

    def _compare_tensors(self, ours: dict[str, Tensor]) -> None:
        theirs = self.state_dict
        missing, extra = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
        if missing or extra:
            raise ViperError(
                f"{self.path}: not the published head: {count_of(len(missing), 'tensor')} "
                f"missing ({_some(missing)}), "
                f"{len(extra)} unknown ({_some(extra)})"
            )
        for name, tensor in ours.items():
            if tensor.shape != theirs[name].shape:
                raise ViperError(
                    f"{self.path}: {name} is {tuple(theirs[name].shape)}, where the sizes in the file's own "
                    f"configuration ask for {tuple(tensor.shape)}"
                )

    def _compare_modules(self, perceiver: nn.Module) -> None:
        ours = dict(perceiver.named_modules())
        for name, stub in _modules(self._root, self.path):
            kind = stub.kind.rpartition(".")[2]
            if name not in ours or type(ours[name]).__name__ != kind:
                wanted = type(ours[name]).__name__ if name in ours else "nothing"
                raise ViperError(f"{self.path}: not the published head: {name} is a {kind}, expected {wanted}")
            for attribute in COMPARED:
                found, expected = stub.attributes.get(attribute), getattr(ours[name], attribute, None)
                if found is not None and found != expected:
                    raise ViperError(
                        f"{self.path}: not the published head: {name}.{attribute} is "
                        f"{safe_pickle.shown(found)}, expected {expected!r}"
                    )


def read_released(path: Path) -> ReleasedHead:
    """Read a checkpoint as the authors release them: a whole pickled transformers `PerceiverModel`.

    See `safe_pickle.read` for why this is safe. Raises `ViperError` that says what was found, for anything
    that is not one of the eight published heads.
    """
    root = safe_pickle.read(path)
    if not isinstance(root, safe_pickle.Stub) or root.kind != ROOT:
        raise ViperError(f"{path}: holds {safe_pickle.shown(root)}, not a whole pickled {ROOT}")
    tensors = dict(_tensors(root, path))
    config = _config(root, path)
    latents, inputs, final = (
        _tensor(tensors, name, path)
        for name in (
            "embeddings.latents",
            "encoder.cross_attention.attention.self.layernorm2.weight",
            "decoder.decoder.final_layer.weight",
        )
    )
    modalities = MODALITIES_OF_WIDTH.get(inputs.shape[0])
    if modalities is None:
        known = ", ".join(f"{width} ({' '.join(names)})" for width, names in MODALITIES_OF_WIDTH.items())
        raise ViperError(f"{path}: its input is {inputs.shape[0]} wide; released ones are {known}")
    assert modalities == in_order(modalities)
    layers = {name.split(".")[2] for name in tensors if name.startswith("encoder.self_attends.")}
    measured = {
        "num_latents": latents.shape[0],
        "d_latents": latents.shape[-1],
        "d_model": inputs.shape[0],
        "num_self_attends_per_block": len(layers),
    }
    _check_sizes(config, measured, path)
    fusion = FusionConfig(
        kind="concat",
        num_latents=latents.shape[0],
        latent_dim=latents.shape[-1],
        depth=_number(config, "num_blocks", path),
        self_attends_per_block=len(layers),
        num_cross_heads=_number(config, "num_cross_attention_heads", path),
        num_latent_heads=_number(config, "num_self_attention_heads", path),
        dropout=_share(config, "attention_probs_dropout_prob", path),
        output="linear",
    )
    return ReleasedHead(path, tensors, config, modalities, fusion, final.shape[0], root)


def _check_sizes(config: Mapping[str, Any], measured: Mapping[str, int], path: Path) -> None:
    """Sizes come from the tensors; the configuration has to agree before anything is built from it."""
    for name, value in {**EXPECTED, **measured}.items():
        if config.get(name) != value:
            raise ViperError(
                f"{path}: {name} is {safe_pickle.shown(config.get(name))} in its configuration, "
                f"expected {value!r}"
            )


def _modules(root: safe_pickle.Stub, path: Path) -> Iterator[tuple[str, safe_pickle.Stub]]:
    """Every submodule under its dotted name, the root first; each may occur once."""
    seen, waiting = set(), [("", root, 0)]
    while waiting:
        name, stub, depth = waiting.pop()
        if id(stub) in seen or depth > MAX_DEPTH:
            raise ViperError(f"{path}: module {safe_pickle.shown(name)} occurs twice or lies too deep")
        seen.add(id(stub))
        yield name, stub
        for key, child in _entries(stub, "_modules", path):
            if child is not None and not isinstance(child, safe_pickle.Stub):
                raise ViperError(f"{path}: submodule {key} is a {type(child).__name__}")
            if child is not None:
                waiting.append((f"{name}.{key}".lstrip("."), child, depth + 1))


def _tensors(root: safe_pickle.Stub, path: Path) -> Iterator[tuple[str, Tensor]]:
    """Parameters and persistent buffers, as float32."""
    for name, stub in _modules(root, path):
        skipped = stub.attributes.get("_non_persistent_buffers_set", set())
        entries = _entries(stub, "_parameters", path) + _entries(stub, "_buffers", path)
        for key, tensor in entries:
            if tensor is None or (isinstance(skipped, set) and key in skipped):
                continue
            if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                found = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
                raise ViperError(f"{path}: {name}.{key} is a {found}, expected numbers with a fraction")
            yield f"{name}.{key}".lstrip("."), tensor.float()


def _entries(stub: safe_pickle.Stub, attribute: str, path: Path) -> list[tuple[str, Any]]:
    entries = stub.attributes.get(attribute, {})
    if not isinstance(entries, dict) or not all(_is_name(key) for key in entries):
        raise ViperError(f"{path}: {attribute} of {stub} is no table of names")
    return list(entries.items())


def _is_name(key: object) -> bool:
    return isinstance(key, str) and len(key) <= 80 and (key.isidentifier() or key.isdecimal())


def _config(root: safe_pickle.Stub, path: Path) -> dict[str, Any]:
    config = root.attributes.get("config")
    if not isinstance(config, safe_pickle.Stub) or config.kind.rpartition(".")[2] != "PerceiverConfig":
        raise ViperError(f"{path}: its configuration is {safe_pickle.shown(config)}, not a PerceiverConfig")
    return config.attributes


def _tensor(tensors: dict[str, Tensor], name: str, path: Path) -> Tensor:
    if name not in tensors or tensors[name].ndim not in (1, 2):
        raise ViperError(f"{path}: not the published head: it has no {name} (found {_some(sorted(tensors))})")
    return tensors[name]


def _number(config: dict[str, Any], name: str, path: Path) -> int:
    value = config.get(name)
    if type(value) is not int or not 1 <= value <= MAX_LAYERS:
        raise ViperError(
            f"{path}: {name} is {safe_pickle.shown(value)} in its configuration, expected 1 to {MAX_LAYERS}"
        )
    return value


def _share(config: dict[str, Any], name: str, path: Path) -> float:
    value = config.get(name)
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise ViperError(f"{path}: {name} is {safe_pickle.shown(value)} in its configuration, expected 0 to 1")
    return float(value)


def _some(names: list[str]) -> str:
    return first_of(names) or "none"
