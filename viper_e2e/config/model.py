"""model.py: settings of a model, with their values and what they mean; saved beside its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from viper_e2e.config.bounds import (
    ABOVE_0,
    CROP,
    FROM_0,
    FROM_1,
    LAYERS,
    SHARE,
    SHARE_BELOW_1,
    WIDTH,
    Bounds,
)
from viper_e2e.config.changes import refuses_changes

FusionKind = Literal["tokens", "concat", "ridge", "ensemble"]
"""Kinds of heads, which read the tokens; `FusionConfig.kind` explains each."""

# --- decoding -----------------------------------------------------------------------------------


@refuses_changes
@dataclass(frozen=True)
class LimitsConfig:
    """Limits of a clip, checked before memory is allocated for it; a clip beyond one is an error."""

    max_bytes: Annotated[int, FROM_1] = 1024**4
    """Largest file on disk, which is read piece by piece."""
    max_bytes_in_memory: Annotated[int, FROM_1] = 2 * 1024**3
    """Largest clip in a shard, or given as bytes, which is held whole."""
    max_width: Annotated[int, FROM_1] = 8192
    """Width of a picture, in pixels."""
    max_height: Annotated[int, FROM_1] = 8192
    """Height of a picture, in pixels."""
    max_pixels: Annotated[int, FROM_1] = 36_000_000
    """Most pixels of one picture: 8K video has 33.2 million. Decoders keep up to 17 pictures."""
    max_seconds: Annotated[float, ABOVE_0] = 4 * 3600.0
    """Longest clip."""
    max_frames: Annotated[int, FROM_1] = 4 * 3600 * 120
    """Most frames of a clip: as many as four hours at 120 a second."""
    max_channels: Annotated[int, FROM_1] = 8
    """Most channels of sound."""
    min_sample_rate: Annotated[int, FROM_1] = 8_000
    """Lowest rate of sound, in samples per second."""
    max_sample_rate: Annotated[int, FROM_1] = 192_000
    """Highest rate of sound, in samples per second."""


@refuses_changes
@dataclass(frozen=True)
class DecodingConfig:
    """Settings of decoding: from a clip to frames and sound."""

    num_frames: Annotated[int, WIDTH] = 32
    """T: number of instants, from the first frame of a clip to its last."""
    sampling: Literal["time", "paper"] = "time"
    """`time`: instants evenly spaced in presentation time. `paper`: the published index rule."""
    max_side: Annotated[int | None, FROM_1] = 640
    """Longest side of decoded frames in pixels; larger ones are scaled down. None: the original size."""
    backend: Literal["pyav", "decord", "torchcodec", "nvdec"] = "pyav"
    """The decoder of pictures. `torchcodec` (install it separately) needs FFmpeg's libraries; `nvdec` is
    torchcodec on the GPU's own decoder, and needs `--num-workers 0`."""
    video_track: Annotated[int | None, FROM_1] = None
    """Picture track to use of several, from 1 on. None: the file's default one, else the largest picture."""
    audio_track: Annotated[int | None, FROM_1] = None
    """Sound track to use of several, from 1 on. None: the file's default one, else the first. A
    silent one is skipped for the next that is not; commentary and descriptions come last."""
    sound: Literal["spans", "windows", "none"] = "spans"
    """`spans`: only the seconds around each instant. `windows`: the whole stream (published rule)."""
    span_seconds: Annotated[float, Bounds(0.02, 3_600)] = 2.0
    """Length of sound per token under `spans`."""
    sample_rate: Annotated[int, Bounds(1_000, 384_000)] = 16_000
    """Samples of sound per second that encoders get."""
    for_modalities: tuple[str, ...] | None = None
    """Modalities whose needs decide what is decoded and detected, so that models that are compared read clips
    in the same way (`viper ablate --retrain`). None: the model's own."""
    limits: LimitsConfig = field(default_factory=LimitsConfig)


# --- faces --------------------------------------------------------------------------------------


@refuses_changes
@dataclass(frozen=True)
class FaceConfig:
    """Settings for finding and following faces."""

    detect_seconds: Annotated[float, FROM_0] = 0.5
    """Time between detections; frames between two detections of one track are interpolated. 0: every frame."""
    min_face_size: Annotated[int, FROM_1] = 40
    """Smallest face looked for, in pixels of the decoded frame (after `max_side`)."""
    thresholds: Annotated[tuple[float, float, float], SHARE] = (0.6, 0.7, 0.7)
    """Thresholds of MTCNN's three networks."""
    min_probability: Annotated[float, SHARE] = 0.9
    """Detections below this are discarded."""
    selection: Literal["track", "first"] = "track"
    """`track`: most probable × largest × nearest to the last. `first`: the detector's first box (published)."""
    margin: Annotated[float, FROM_0] = 0.0
    """Widens the box on every side by this share of its size."""
    close_ups: bool = False
    """If `max_side` leaves the face fewer pixels than its crop needs, decode the clip again at a higher
    resolution, only around the face. Needs no more memory than the frames do."""
    hold_margin: Annotated[float, FROM_0] = 0.25
    """Pixels kept around a box when a clip is cached in memory, as a share of its size."""


@refuses_changes
@dataclass(frozen=True)
class BackboneConfig:
    """Where a backbone's weights come from."""

    source: str = "random"
    """Hub id, local folder or file, or `random` (then `config` holds the architecture)."""
    config: dict[str, Any] | None = None
    """Architecture for `random`: a transformers config with `model_type`, or an open_clip model config."""
    revision: str | None = None
    """Commit of a hub id."""
    lora_rank: Annotated[int, Bounds(0, 4_096)] = 0
    """Rank of the adapters that train beside the frozen weights (LoRA, Hu et al. 2022; needs peft); 0: none."""
    lora_alpha: Annotated[float, ABOVE_0] = 16.0
    """Scale of an adapter's output, which is multiplied by this and divided by `lora_rank`."""
    lora_dropout: Annotated[float, SHARE_BELOW_1] = 0.0
    """Dropout before the adapters, in training."""


@refuses_changes
@dataclass(frozen=True)
class VisualConfig:
    """Settings of the visual encoder: from pictures of the face to tokens."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    pooling: Literal["cls", "mean", "both"] = "cls"
    """`cls`: the first token. `mean`: the mean of the patch tokens. `both`: side by side."""
    layers: Annotated[int, FROM_1] = 1
    """Hidden layers that are read, from the backbone's middle to its end; 1: the last."""
    crop: Literal["backbone", "paper"] = "backbone"
    """`backbone`: as its preprocessor says. `paper`: integer box, squashed, resized in uint8."""
    crop_size: Annotated[int | None, CROP] = None
    """Side of the crop in pixels; None: as the backbone's preprocessor says."""
    align: Literal["box", "eyes"] = "box"
    """`box`: the crop is the face's box. `eyes`: turned and scaled, with the eyes level in fixed places."""


@refuses_changes
@dataclass(frozen=True)
class AudioConfig:
    """Settings of the audio encoder: from sound to tokens."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    layer: Annotated[int | None, FROM_0] = None
    """Hidden layer that is read as if it were the last; None: the last."""
    layers: Annotated[int, FROM_1] = 1
    """Hidden layers that are read, from the backbone's middle to its end (`hidden`); 1: the last."""
    head: Literal["hidden", "xvector"] = "hidden"
    """`hidden`: mean hidden states of each instant. `xvector`: an x-vector for each window (published)."""
    max_piece_seconds: Annotated[float, Bounds(0.5)] = 20.0
    """Longer runs are encoded in pieces."""
    padding: Literal["clip", "full"] = "full"
    """Silence after each piece, for Whisper only. `full`: up to 30 s. `clip`: up to the next half second."""


@refuses_changes
@dataclass(frozen=True)
class TextualConfig:
    """Settings of the textual encoder: from sentences that fit the face to tokens."""

    image_text: BackboneConfig = field(default_factory=BackboneConfig)
    """CLIP, through open_clip: `hf-hub:…`, `NAME/PRETRAINED` (ViT-B-32-quickgelu/openai), a file, or random."""
    sentence_encoder: BackboneConfig | None = None
    """A text encoder from transformers; None: CLIP's own text tower embeds the sentences."""
    bank: str | None = None
    """File with one sentence per line, or a JSON list; None: the bank that comes with the package."""
    choice: Literal["soft", "hard"] = "soft"
    """`soft`: softmax over the bank × embeddings. `hard`: the best-fitting sentence (published)."""
    crop: Literal["backbone", "paper"] = "backbone"
    """`backbone`: CLIP's preprocessing of the exact box. `paper`: the same on an integer box, in uint8."""
    align: Literal["box", "eyes"] = "box"
    """See `visual.align`."""
    max_sentence_tokens: Annotated[int, WIDTH] = 16
    """Sentences are padded (with attention mask) or cut to this many tokens."""


@refuses_changes
@dataclass(frozen=True)
class ActionUnitConfig:
    """Settings of action units: from measured values to tokens."""

    source: Literal["shard", "py-feat"] = "shard"
    """`shard`: the sample's own `.fau.npy`. `py-feat`: if it has none, they are measured on whole frames."""
    num_units: Annotated[int, WIDTH] = 27
    """Number of action units per frame."""
    embed_dim: Annotated[int, WIDTH] = 32
    """Units are padded with zeros to this width (published: 27 → 32)."""


@refuses_changes
@dataclass(frozen=True)
class MotionConfig:
    """Settings of the motion encoder: from windows of frames to tokens."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """A video transformer: videomae, timesformer, vivit or vjepa2."""
    num_frames: Annotated[int | None, WIDTH] = None
    """Frames per window; None: as many as the backbone was trained with. Longer clips are split into windows,
    shorter ones repeat their frames."""
    crop_size: Annotated[int | None, CROP] = None
    """Side of the crop in pixels; None: what the backbone was trained with."""
    align: Literal["box", "eyes"] = "box"
    """See `visual.align`."""


@refuses_changes
@dataclass(frozen=True)
class WordsConfig:
    """Settings of the words encoder: from what is said to tokens."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """A text encoder of transformers: bert, roberta, xlm-roberta (many languages), …; `random` reads bytes."""
    layers: Annotated[int, FROM_1] = 1
    """Hidden layers that are read, from the backbone's middle to its end; 1: the last."""
    piece_tokens: Annotated[int, FROM_1] = 256
    """Longer texts are encoded in pieces of this many tokens, or of as many as the backbone takes."""
    max_tokens: Annotated[int, FROM_1] = 2048
    """Limit per clip; further tokens are not read, and the clip's record says so."""


@refuses_changes
@dataclass(frozen=True)
class FusionConfig:
    """Settings of the head: from tokens of all modalities to predictions."""

    kind: FusionKind = "tokens"
    """`tokens`: a stream per modality into perceiver-pytorch. `concat`: the published channel concatenation.
    `ridge`: linear in each modality's mean, deviation and change, fitted in closed form. `ensemble`: half of it
    a ridge, half networks that learn alone: `tokens` and, with a `hidden_dim`, one hidden layer on what the
    ridge reads (`--head` sets it)."""
    change: bool = False
    """Append to each token its difference from the clip's mean (`tokens`, `ensemble`)."""
    dim: Annotated[int, WIDTH] = 256
    """Width of projected tokens (`tokens`)."""
    max_deviations: Annotated[float | None, ABOVE_0] = None
    """Pooled features are cut off this many standard deviations from their mean over training clips, so that
    no number is without bounds for a clip unlike any of them; null: never (`ridge`, and that of `ensemble`)."""
    hidden_dim: Annotated[int, Bounds(0, 65_536)] = 0
    """Width of the hidden layer on pooled features; 0: none (`ensemble`)."""
    hidden_dropout: Annotated[float, SHARE_BELOW_1] = 0.5
    """Before and after that layer (`ensemble`)."""
    num_latents: Annotated[int, WIDTH] = 64
    """Number of learned latents of the Perceiver; this and the settings from here to `dropout` are for
    `tokens`, `concat` and `ensemble`."""
    latent_dim: Annotated[int, WIDTH] = 256
    """Width of a latent."""
    depth: Annotated[int, LAYERS] = 2
    """Cross-attentions (`tokens`) or blocks (`concat`)."""
    self_attends_per_block: Annotated[int, LAYERS] = 2
    """Self-attentions among latents after each cross-attention."""
    num_cross_heads: Annotated[int, LAYERS] = 1
    """Attention heads from latents to tokens."""
    num_latent_heads: Annotated[int, LAYERS] = 4
    """Attention heads among latents."""
    dropout: Annotated[float, SHARE_BELOW_1] = 0.1
    """Dropout in attentions and, with `tokens`, in feed-forward layers."""
    output: Literal["auto", "sigmoid", "linear"] = "auto"
    """`auto`: sigmoid if all labels are in [0, 1]. Other labels are learned in units of their spread."""
    rescale: bool = False
    """Divide outputs by their maximum, a constant to the gradient (published; `--rescale` sets it)."""
    members: Annotated[int, LAYERS] = 1
    """Heads of this kind whose outputs are averaged, each trained separately (`viper train --ensemble`)."""


# --- the module ---------------------------------------------------------------------------------


@refuses_changes
@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides what `ViPER` computes; saved beside its weights."""

    modalities: tuple[str, ...] = ("visual", "audio", "textual")
    """Ways of reading a clip (`--modalities` sets them)."""
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    faces: FaceConfig = field(default_factory=FaceConfig)
    visual: VisualConfig = field(default_factory=VisualConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    textual: TextualConfig = field(default_factory=TextualConfig)
    action_units: ActionUnitConfig = field(default_factory=ActionUnitConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)
    words: WordsConfig = field(default_factory=WordsConfig)
    extra_modalities: dict[str, Any] = field(default_factory=dict)
    """Settings of modalities that do not come with the package, by name (`config/modalities.py`)."""
    fusion: FusionConfig = field(default_factory=FusionConfig)
