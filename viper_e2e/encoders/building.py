"""building.py: transformers' models, from files or (random) from a config."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from viper_e2e.config import BackboneConfig
from viper_e2e.encoders.backbone import Origin
from viper_e2e.encoders.parameter_budget import ParameterBudget, check_buildable, check_settings_size
from viper_e2e.encoders.weights import (
    Found,
    Search,
    check_hash,
    read_tensors,
    small_files_of,
    tensors_sha256,
    weight_files,
)
from viper_e2e.errors import ViperError
from viper_e2e.runtime import count_of, first_of

logger = logging.getLogger(__name__)

_ROWS = ("layer", "layers", "blocks", "resblocks")
"""Names of models for their row of blocks."""


def read_architecture(found: Found, config: BackboneConfig) -> PretrainedConfig:
    """The transformers config of a backbone, from its files or (random) from the settings."""
    if found.small is None:
        settings = dict(config.config or {})
        if "model_type" not in settings:
            raise ViperError(f"{found.name}: random weights need a config with a model_type (vit, wav2vec2, …)")
        check_settings_size(found.name, "its config", settings)
        architecture = AutoConfig.for_model(**settings)
    else:
        found.read_json("config.json")
        try:
            architecture = AutoConfig.from_pretrained(
                found.small, local_files_only=True, trust_remote_code=False
            )
        except ValueError as error:
            raise ViperError(
                f"{found.name}: {found.small} is not one of transformers' own models; code that comes with a "
                "model is never run"
            ) from error
    # transformers fetches attention of such a name from the hub, and runs it.
    if "/" in (attention := str(architecture._attn_implementation)):
        raise ViperError(
            f"{found.name}: its config names attention from the hub ({attention}), which is code that runs; "
            "remove attn_implementation from it"
        )
    # Our augmentation masks sound; skipped layers would leave parameters without gradients on one process.
    for switch, off in {"apply_spec_augment": False, "layerdrop": 0.0, "encoder_layerdrop": 0.0}.items():
        if hasattr(architecture, switch):
            setattr(architecture, switch, off)
    return architecture


def build_model(
    found: Found,
    search: Search,
    architecture: PretrainedConfig,
    model_class: type[PreTrainedModel],
    *,
    key_mapping: dict[str, str] | None = None,
    **options: Any,  # of the model's own `from_pretrained`
) -> tuple[PreTrainedModel, Origin]:
    """A transformers model in float32, with the weights of ``found``, and its origin.

    A weight that is missing from the files is an error: nothing is initialised silently.
    """
    small = small_files_of(found.small) if found.small is not None else {}
    small.setdefault("config.json", architecture.to_json_string(use_diff=False).encode())
    where = "its config" if found.small is None else found.small / "config.json"

    def build() -> PreTrainedModel:
        return model_class(architecture, **options)

    if found.path is None:
        is_bundled = found.name in search.bundled
        check_buildable(found.name, where, build, search.checkpoint_budget if is_bundled else ParameterBudget())
        if not is_bundled:
            logger.warning("%s: random weights, because the settings say so", found.name)
        return build(), Origin(found.spec, found.revision, None, small)
    files = weight_files(found)
    tensors = read_tensors(files)
    check_buildable(
        found.name, where, build, ParameterBudget.of_weights(tensor.shape for tensor in tensors.values())
    )
    sha256 = tensors_sha256(tensors)
    check_hash(found, sha256, search)
    del tensors  # the library reads them again
    with quiet_transformers():
        model, report = model_class.from_pretrained(
            files[0].parent,
            config=architecture,
            dtype="auto",
            local_files_only=True,
            use_safetensors=files[0].suffix == ".safetensors",
            output_loading_info=True,
            key_mapping=key_mapping,
            **options,
        )
    missing = sorted(name for name in report["missing_keys"] if "masked_spec_embed" not in name)
    if missing:
        raise ViperError(
            f"{found.name}: {files[0].parent} lacks {count_of(len(missing), 'weight')} of "
            f"{model_class.__name__} "
            f"({first_of(missing)}); is it another kind of model?"
        )
    return model.float(), Origin(found.spec, found.revision, sha256, small)


def pooler_off(model_class: type[PreTrainedModel]) -> dict[str, Any]:
    """The argument that leaves out the pooling head, which nobody reads, where a model has one."""
    has_one = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    return {"add_pooling_layer": False} if has_one else {}


def find_blocks(model: nn.Module) -> Sequence[nn.Module]:
    """The transformer blocks of a model: its longest list of layers."""
    rows = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and name.rsplit(".", 1)[-1] in _ROWS
    ]
    longest = max(rows, key=len, default=nn.ModuleList())
    return list(longest)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and load reports: what is missing or unexpected, we judge ourselves."""
    verbosity = transformers_logging.get_verbosity()
    bar = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()


def check_align(modality: str, crop: str, align: str) -> None:
    """`ViperError` for an alignment that would have no effect."""
    if crop == "paper" and align != "box":
        raise ViperError(
            f"{modality}.align {align} has no effect with {modality}.crop paper, which cuts whole-pixel boxes; "
            "leave one of them out"
        )
