"""audio_backbone.py: a speech model as set: checked, loaded, cut after the last layer that is read."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, WhisperConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_AUDIO_XVECTOR_MAPPING, MODEL_MAPPING

from viper_e2e.config import AudioConfig
from viper_e2e.encoders.backbone import Backbone, contains_any
from viper_e2e.encoders.building import build_model, find_blocks, read_architecture
from viper_e2e.encoders.weights import Found, Search, find
from viper_e2e.errors import ViperError


def audio_backbone(
    config: AudioConfig, sound: str, sample_rate: int, search: Search
) -> tuple[Backbone, dict[str, Any]]:
    """The backbone and its preprocessor's settings; `ViperError` for what does not go together.

    ``sound``, ``sample_rate`` as in ``DecodingConfig``.
    """
    found = find("audio", config.backbone, search)
    architecture = read_architecture(found, config.backbone)
    _check(config, architecture, found, sound)
    preprocessor = found.read_json("preprocessor_config.json") if found.small is not None else {}
    expected = preprocessor.get("sampling_rate", 16_000)
    if sample_rate != expected:
        raise ViperError(
            f"audio: {found.spec} needs {expected} Hz; set decoding.sample_rate to that (now {sample_rate})"
        )
    if isinstance(architecture, WhisperConfig):
        from viper_e2e.encoders.whisper import encoder_class  # loads Whisper's model

        ears = encoder_class(config.padding)
        # Whole Whisper models hold the encoder under this prefix.
        model, origin = build_model(found, search, architecture, ears, key_mapping={r"^model\.encoder\.": ""})
    else:
        mapping = MODEL_FOR_AUDIO_XVECTOR_MAPPING if config.head == "xvector" else MODEL_MAPPING
        model, origin = build_model(found, search, architecture, mapping[type(architecture)])
    _truncate_after_layer(model, config.layer)
    # The final norm of pre-norm transformers is registered before the blocks it follows.
    is_pre_norm = getattr(architecture, "do_stable_layer_norm", False)
    top = contains_any("encoder.layer_norm") if is_pre_norm else contains_any()
    idle = contains_any("masked_spec_embed", "embed_positions", "classifier.", "objective.")
    blocks = find_blocks(model)
    backbone = Backbone("audio", model, origin, config.backbone, blocks=blocks, top=top, idle=idle)
    return backbone, preprocessor


def _check(config: AudioConfig, architecture: PretrainedConfig, found: Found, sound: str) -> None:
    """Refuse what does not go together, before any weights are read."""
    kind = architecture.model_type
    if not isinstance(architecture, WhisperConfig) and not hasattr(architecture, "conv_kernel"):
        raise ViperError(
            f"audio: {found.spec} is a {kind}; allowed are models that read the waveform "
            "(wav2vec2, hubert, wavlm, …) and whisper"
        )
    if sound == "none":
        raise ViperError("audio: decoding.sound is none; set it to spans or windows, or leave audio out")
    if config.head != "xvector":
        return
    if config.layers > 1:
        raise ViperError(
            "audio: an x-vector comes from one layer; leave audio.layers at 1, or set head to hidden"
        )
    if type(architecture) not in MODEL_FOR_AUDIO_XVECTOR_MAPPING:
        raise ViperError(f"audio: {kind} has no x-vector head; set audio.head to hidden")
    if sound != "windows":
        raise ViperError(
            "audio: an x-vector summarises a window; set decoding.sound to windows (or head to hidden)"
        )
    if config.layer is not None:
        raise ViperError("audio: an x-vector head reads its own layers; leave audio.layer out")


def _truncate_after_layer(model: PreTrainedModel, layer: int | None) -> None:
    """Drop what comes after hidden layer ``layer`` (transformers' ``hidden_states[layer]``)."""
    if layer is None:
        return
    is_whisper = isinstance(model.config, WhisperConfig)
    stack = model if is_whisper else model.encoder
    if not 0 <= layer <= len(stack.layers):
        raise ViperError(f"audio: layer {layer} of {len(stack.layers)}; allowed 0 to {len(stack.layers)}")
    if layer == len(stack.layers):
        return
    stack.layers = stack.layers[:layer]
    if is_whisper or model.config.do_stable_layer_norm:
        stack.layer_norm = nn.Identity()
