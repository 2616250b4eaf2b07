"""schema.py: every setting as dataclasses, with its values and what it means."""

from __future__ import annotations

from argparse import ArgumentError
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from viper_e2e.config.bounds import (
    ABOVE_0,
    FROM_0,
    FROM_1,
    SHARE,
    SHARE_BELOW_1,
    Bounds,
    check_settings,
)
from viper_e2e.config.depth import Depths, LaterDepths
from viper_e2e.config.values import Changes, Loss, Size, TaskWeights
from viper_e2e.errors import ViperError

MixedPrecision = Literal["no", "bf16", "fp16", "auto"]
"""What is computed in half precision; `auto` is settled once, before a run."""

# --- decoding -----------------------------------------------------------------------------------


@dataclass
class LimitsConfig:
    """What a clip may ask for before anything is allocated; more is an error."""

    max_bytes: Annotated[int, FROM_1] = 1024**4
    """Of a file on disk, which is read piece by piece."""
    max_bytes_in_memory: Annotated[int, FROM_1] = 2 * 1024**3
    """Of a clip in a shard, or given as bytes, which is held whole."""
    max_width: Annotated[int, FROM_1] = 8192
    max_height: Annotated[int, FROM_1] = 8192
    max_pixels: Annotated[int, FROM_1] = 36_000_000
    """Of one picture: 8K video has 33.2 million. Decoders keep up to 17 pictures."""
    max_seconds: Annotated[float, ABOVE_0] = 4 * 3600.0
    max_frames: Annotated[int, FROM_1] = 4 * 3600 * 120
    max_channels: Annotated[int, FROM_1] = 8
    min_sample_rate: Annotated[int, FROM_1] = 8_000
    max_sample_rate: Annotated[int, FROM_1] = 192_000


@dataclass
class DecodingConfig:
    """How a clip becomes frames and sound."""

    num_frames: Annotated[int, FROM_1] = 32
    """T: instants looked at, from the first frame to the last."""
    sampling: Literal["time", "paper"] = "time"
    """`time`: instants evenly spaced in presentation time. `paper`: the published index rule."""
    max_side: Annotated[int | None, FROM_1] = 640
    """Longer side of decoded frames in pixels; larger ones are scaled while converting. None: as they are."""
    backend: Literal["pyav", "decord", "torchcodec", "nvdec"] = "pyav"
    """What decodes pictures. `torchcodec` (installed apart) needs FFmpeg's libraries; `nvdec` is torchcodec on
    the GPU's own decoder, and needs `--num-workers 0`."""
    video_track: Annotated[int | None, FROM_1] = None
    """Which of several picture tracks, from 1 on. None: the file's default one, else the largest picture."""
    audio_track: Annotated[int | None, FROM_1] = None
    """Which of several sound tracks, from 1 on. None: the file's default one, else the first; one that is
    silent gives way to the next that is not, and commentary and descriptions to all others."""
    sound: Literal["spans", "windows", "none"] = "spans"
    """`spans`: only the seconds around each instant. `windows`: the whole stream (published rule)."""
    span_seconds: Annotated[float, Bounds(0.02, 3_600)] = 2.0
    """Length of sound heard per token under `spans`."""
    sample_rate: Annotated[int, Bounds(1_000, 384_000)] = 16_000
    limits: LimitsConfig = field(default_factory=LimitsConfig)


# --- faces --------------------------------------------------------------------------------------


@dataclass
class FaceConfig:
    """How faces are found and followed."""

    detect_seconds: Annotated[float, FROM_0] = 0.5
    """Time between detections; frames between two detections of one track are interpolated. 0: every frame."""
    min_face_size: Annotated[int, FROM_1] = 40
    """Smallest face looked for, in pixels of the decoded frame (after `max_side`)."""
    thresholds: Annotated[tuple[float, float, float], SHARE] = (0.6, 0.7, 0.7)
    """Of MTCNN's three networks."""
    min_probability: Annotated[float, SHARE] = 0.9
    """A detection below this is no face."""
    selection: Literal["track", "first"] = "track"
    """`track`: most probable × largest × nearest to the last. `first`: the detector's first box (published)."""
    margin: Annotated[float, FROM_0] = 0.0
    """Widens the box on every side by this share of its size."""
    close_ups: bool = False
    """Decode a clip once more, larger and only around the face, where `max_side` left the face fewer pixels
    than its crop has. Takes no more memory than the frames do."""
    hold_margin: Annotated[float, FROM_0] = 0.25
    """Pixels kept around a box when a clip is cached in memory, as a share of its size."""


# --- encoders -----------------------------------------------------------------------------------


@dataclass
class BackboneConfig:
    """Where a backbone's weights come from."""

    source: str = "random"
    """Hub id, local folder or file, or `random` (then `config` holds the architecture)."""
    config: dict[str, Any] | None = None
    """Architecture for `random`: a transformers config with `model_type`, or an open_clip model config."""
    revision: str | None = None
    """Commit of a hub id."""
    lora_rank: Annotated[int, FROM_0] = 0
    """Rank of the adapters that train beside the frozen weights (LoRA, Hu et al. 2022; needs peft); 0: none."""
    lora_alpha: Annotated[float, ABOVE_0] = 16.0
    """What an adapter adds is multiplied by this and divided by `lora_rank`."""
    lora_dropout: Annotated[float, SHARE_BELOW_1] = 0.0
    """Dropout before the adapters, in training."""


@dataclass
class VisualConfig:
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    pooling: Literal["cls", "mean", "both"] = "cls"
    """`cls`: the first token. `mean`: the mean of the patch tokens. `both`: side by side."""
    layers: Annotated[int, FROM_1] = 1
    """Hidden layers that are read, from the backbone's middle to its end; 1: the last."""
    crop: Literal["backbone", "paper"] = "backbone"
    """`backbone`: as its preprocessor says. `paper`: integer box, squashed, resized in uint8."""
    crop_size: Annotated[int | None, FROM_1] = None
    """Side of the crop in pixels; None: as the backbone's preprocessor says."""
    align: Literal["box", "eyes"] = "box"
    """`box`: the crop is the face's box. `eyes`: turned and scaled until the eyes lie level in fixed places."""


@dataclass
class AudioConfig:
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    layer: Annotated[int | None, FROM_0] = None
    """Hidden layer that is read as the last one; None: the last."""
    layers: Annotated[int, FROM_1] = 1
    """Hidden layers that are read, from the backbone's middle to its end (`hidden`); 1: the last."""
    head: Literal["hidden", "xvector"] = "hidden"
    max_piece_seconds: Annotated[float, Bounds(0.5)] = 20.0
    """Longer runs are encoded in pieces."""
    padding: Literal["clip", "full"] = "full"
    """Of Whisper alone: silence behind each piece. `full`: up to 30 s. `clip`: to the next half second."""


@dataclass
class TextualConfig:
    image_text: BackboneConfig = field(default_factory=BackboneConfig)
    """CLIP, through open_clip: `hf-hub:…`, `NAME/PRETRAINED` (ViT-B-32-quickgelu/openai), a file, or random."""
    sentence_encoder: BackboneConfig | None = None
    """A text encoder from transformers; None: CLIP's own text tower embeds the sentences."""
    bank: str | None = None
    """File with one sentence a line, or a JSON list; None: the bank that comes with us."""
    choice: Literal["soft", "hard"] = "soft"
    """`soft`: softmax over the bank × embeddings. `hard`: the best-fitting sentence (published)."""
    crop: Literal["backbone", "paper"] = "backbone"
    """`backbone`: CLIP's preprocessing of the exact box. `paper`: the same on an integer box, in uint8."""
    align: Literal["box", "eyes"] = "box"
    """As `visual.align`."""
    max_sentence_tokens: Annotated[int, FROM_1] = 16
    """Sentences are padded (with attention mask) or cut to this many tokens."""


@dataclass
class ActionUnitConfig:
    source: Literal["shard", "py-feat"] = "shard"
    """`shard`: the sample's own `.fau.npy`. `py-feat`: where it has none, measured on whole frames."""
    num_units: Annotated[int, FROM_1] = 27
    embed_dim: Annotated[int, FROM_1] = 32
    """Units are padded with zeros to this width (published: 27 → 32)."""


@dataclass
class MotionConfig:
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """A video transformer: videomae, timesformer, vivit or vjepa2."""
    num_frames: Annotated[int | None, FROM_1] = None
    """Frames that it sees together; None: as many as it was made for. A longer clip is seen in windows, a
    shorter one with its frames repeated."""
    crop_size: Annotated[int | None, FROM_1] = None
    """Side of the crop in pixels; None: as the backbone was made for."""
    align: Literal["box", "eyes"] = "box"
    """As `visual.align`."""


# --- fusion -------------------------------------------------------------------------------------


@dataclass
class FusionConfig:
    kind: Literal["tokens", "concat", "ridge", "ensemble"] = "tokens"
    """`tokens`: a stream per modality into perceiver-pytorch. `concat`: the published channel concatenation.
    `ridge`: linear in each modality's mean, deviation and change, fitted in closed form. `ensemble`: the mean
    of a ridge and of networks that learn alone: `tokens` and, with a `hidden_dim`, one hidden layer on what
    the ridge reads (`--head` sets it)."""
    change: bool = False
    """Beside each token, how it differs from the clip's mean (`tokens`, `ensemble`)."""
    dim: Annotated[int, FROM_1] = 256
    """Width of projected tokens (`tokens`)."""
    hidden_dim: Annotated[int, FROM_0] = 0
    """Width of the hidden layer on pooled features; 0: none (`ensemble`)."""
    hidden_dropout: Annotated[float, SHARE_BELOW_1] = 0.5
    """Before and after that layer (`ensemble`)."""
    num_latents: Annotated[int, FROM_1] = 64
    latent_dim: Annotated[int, FROM_1] = 256
    depth: Annotated[int, FROM_1] = 2
    """Cross-attentions (`tokens`) or blocks (`concat`)."""
    self_attends_per_block: Annotated[int, FROM_1] = 2
    num_cross_heads: Annotated[int, FROM_1] = 1
    num_latent_heads: Annotated[int, FROM_1] = 4
    dropout: Annotated[float, SHARE_BELOW_1] = 0.1
    output: Literal["auto", "sigmoid", "linear"] = "auto"
    """`auto`: sigmoid where all labels lie in [0, 1]. Other labels are learned in units of their spread."""
    rescale: bool = False
    """Divide outputs by the largest of them, a constant to the gradient (published; `--rescale` sets it)."""


# --- the module ---------------------------------------------------------------------------------


@dataclass
class ModelConfig:
    """Everything that decides what `ViPER` computes; saved beside its weights."""

    modalities: tuple[str, ...] = ("visual", "audio", "textual")
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    faces: FaceConfig = field(default_factory=FaceConfig)
    visual: VisualConfig = field(default_factory=VisualConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    textual: TextualConfig = field(default_factory=TextualConfig)
    action_units: ActionUnitConfig = field(default_factory=ActionUnitConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)
    extra_modalities: dict[str, Any] = field(default_factory=dict)
    """Settings of modalities that do not come with the package, by name (`config/modalities.py`)."""
    fusion: FusionConfig = field(default_factory=FusionConfig)


# --- training -----------------------------------------------------------------------------------


@dataclass
class AugmentConfig:
    """How far training clips are changed: drawn anew per clip and epoch, the same for all frames of a clip."""

    flip: Annotated[float, SHARE] = 0.5
    """Chance to mirror the face (`pixels`)."""
    color: Annotated[float, SHARE] = 0.2
    """Brightness, contrast and saturation change by up to this share, hue by a quarter of it (`pixels`)."""
    rotate_degrees: Annotated[float, Bounds(0, 180)] = 8.0
    """The crop is turned by up to this angle (`pixels`)."""
    translate: Annotated[float, SHARE] = 0.05
    """The crop is moved by up to this share of its side, its border repeated (`pixels`)."""
    scale: Annotated[float, Bounds(0, 0.9)] = 0.1
    """The crop is enlarged or shrunk by up to this share (`pixels`)."""
    blur: Annotated[float, SHARE] = 0.2
    """Chance of a Gaussian blur (`pixels`)."""
    erase: Annotated[float, SHARE] = 0.2
    """Chance that a rectangle of 2 to 15 % of the crop is covered in grey (`pixels`)."""
    box_shift: Annotated[float, SHARE] = 0.04
    """The face's box is moved by up to this share of its size before it is cut out (`box`)."""
    box_scale: Annotated[float, Bounds(0, 0.9)] = 0.08
    """The face's box is enlarged or shrunk by up to this share (`box`)."""
    gain_decibels: Annotated[float, Bounds(0, 100)] = 6.0
    """Sound becomes up to this much louder or quieter (`sound`)."""
    noise: Annotated[float, SHARE] = 0.5
    """Chance of white noise (`sound`)."""
    noise_snr_decibels: Annotated[float, Bounds(0, 200)] = 15.0
    """The loudest noise is this far below the sound; drawn up to 20 dB further below (`sound`)."""
    shift_seconds: Annotated[float, FROM_0] = 0.1
    """Sound is moved against the picture by up to this time (`sound`)."""
    mask_seconds: Annotated[float, FROM_0] = 0.2
    """A gap of up to this length per run of sound; 0: none (`sound`)."""
    mask_hertz: Annotated[float, FROM_0] = 800.0
    """A silenced band of up to this width per run of sound; 0: none (`sound`)."""


@dataclass
class RunConfig:
    """What is trained on, and where the run writes."""

    train_shards: str = ""
    """Shards to train on: a path, a glob, a brace pattern, or https://, s3://, gs:// or hf:// addresses."""
    val_shards: str | None = None
    """Shards to validate on after each epoch; None: no validation, and `best` is never written."""
    run_dir: str = ""
    """Folder for everything the run writes. Not overwritten unless `resume`."""
    resume: bool = False
    """Go on where the run in `run_dir` stopped."""


@dataclass
class LengthConfig:
    """How long training takes, and what it draws at random."""

    epochs: Annotated[int, FROM_1] = 10
    """Passes over the training shards."""
    max_steps: Annotated[int | None, FROM_1] = None
    """Stop after this many optimizer steps; None: after `epochs`."""
    batch_size: Annotated[int, FROM_1] = 16
    """Clips per process and micro-batch."""
    accumulation: Annotated[int, FROM_1] = 1
    """Micro-batches per optimizer step."""
    seed: Annotated[int, FROM_0] = 0
    """Decides the order of clips, dropout and the weights of new layers."""
    seeds: Annotated[int, FROM_1] = 1
    """Train this many times, with `seed`, `seed` + 1, …, in folders of their own; tell mean ± deviation."""


@dataclass
class OptimizerConfig:
    """How weights change (AdamW)."""

    lr: Annotated[float, FROM_0] = 1e-3
    """Peak learning rate of the fusion head."""
    backbone_lr: Annotated[float, FROM_0] = 1e-4
    """Peak learning rate of unfrozen backbones."""
    layer_decay: Annotated[float, Bounds(0, 1, open_low=True)] = 1.0
    """Each block nearer to the input learns this factor slower than the next one."""
    unfreeze: Depths = field(default=Depths())
    """Backbones that train, e.g. `visual=4,audio=all`: their last blocks, or all. Others stay as the preset has
    them; `--freeze` takes away."""
    unfreeze_at: LaterDepths = field(default=LaterDepths())
    """Backbones that train more from later epochs on: `2:visual=4,4:visual=all` begins after 2 and 4 epochs."""
    weight_decay: Annotated[float, FROM_0] = 0.01
    """Of AdamW; never applied to norms, biases and embeddings."""
    schedule: Literal["cosine", "halve", "constant"] = "cosine"
    """`cosine`: warm-up, then to zero. `halve`: ×0.5 every `halve_epochs` (published)."""
    warmup_fraction: Annotated[float, SHARE] = 0.05
    """Share of all steps spent warming up (`cosine`)."""
    halve_epochs: Annotated[int, FROM_1] = 10
    """See `schedule`."""
    clip_norm: Annotated[float, FROM_0] = 1.0
    """Largest norm of the gradient; 0: unlimited."""
    ema_decay: Annotated[float, SHARE_BELOW_1] = 0.0
    """Validate and save a moving average of the trained weights, e.g. 0.999 of it kept per step; 0: none."""


@dataclass
class ObjectiveConfig:
    """What is minimized, on which changes of the clips."""

    loss: Loss = field(default=Loss())
    """Weighted sum, e.g. `mse=1,pearson=0.5` or `ccc=1`; of intensities and numbers."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: clips of a rare class weigh as much together as those of a frequent one."""
    label_smoothing: Annotated[float, SHARE_BELOW_1] = 0.0
    """Of classes and labels: this share of each is spread evenly."""
    focal_gamma: Annotated[float, FROM_0] = 0.0
    """Of the focal loss for classes and labels (Lin et al. 2017); 0: cross-entropy."""
    task_weights: TaskWeights = field(default=TaskWeights())
    """Of each task's loss in the sum, e.g. `emotion=1,valence=0.5`; 1 where a task is not named."""
    rescale: bool = False
    """Divide outputs by their (detached) maximum, here and wherever the model is used (published option)."""
    augment: Changes = field(default=Changes())
    """What is changed at random in training: `none`, `all`, or some of `pixels,box,sound`."""
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    """How far; see `augment`."""
    modality_dropout: Annotated[float, SHARE] = 0.1
    """Chance that a present modality is hidden from one clip; at least one stays (`tokens`)."""


@dataclass
class ComputingConfig:
    """How it is computed."""

    mixed_precision: MixedPrecision = "no"
    """Of the forward pass and of frozen weights. `auto`: the faster of `no` and `bf16` on this device."""
    compile: bool = False
    """Compile image towers, Whisper and the fusion (torch.compile), which takes minutes at the first step."""
    gradient_checkpointing: bool = False
    """Trained blocks compute their activations again in the backward pass: less memory, a third more time."""
    reuse_memory: Annotated[Size, FROM_0] = field(default=Size())
    """Memory per process for clips already encoded, e.g. `2GB`; 0: none."""
    process_timeout_seconds: Annotated[float, ABOVE_0] = 600.0
    """Processes that train together wait for one another so long, then name the one that is missing."""


@dataclass
class LoadingConfig:
    """How clips are decoded ahead, and what becomes of those that cannot be."""

    num_workers: Annotated[int, FROM_0] = 2
    """Processes that decode ahead; 0: decode in the training process."""
    prefetch: Annotated[int | None, FROM_1] = None
    """Clips decoded ahead per worker; None: enough for a whole batch."""
    shuffle_window: Annotated[int, FROM_1] = 2048
    """Samples are permuted inside windows of this many, over permuted shards."""
    clip_timeout_seconds: Annotated[float, ABOVE_0] = 300.0
    """A clip that takes a worker longer is set aside."""
    max_worker_restarts: Annotated[int, FROM_0] = 1000
    """Workers that crash or hang are replaced so many times an epoch; then the run ends."""
    on_error: Literal["skip", "raise"] = "skip"
    """What to do with a clip that cannot be read; `skip` keeps its place with weight 0."""


@dataclass
class SavingConfig:
    """When checkpoints are written beside the end of an epoch."""

    save_every_steps: Annotated[int, FROM_0] = 0
    """Also save `checkpoints/last` every so many steps; 0: at the end of epochs only."""
    save_every_minutes: Annotated[float, FROM_0] = 0.0
    """The same by the clock; 0: off."""
    best_by: str = ""
    """Measure that chooses `checkpoints/best`, e.g. `emotion.war` or `valence.ccc`. Empty: the mean Pearson, or
    of tasks the mean of UAR (class), macro F1 (labels), CCC (number) and Pearson (intensities)."""


@dataclass
class TrainConfig(
    ObjectiveConfig, SavingConfig, LoadingConfig, ComputingConfig, OptimizerConfig, LengthConfig, RunConfig
):
    """How a model is trained: the settings of all these groups, under their own names."""


TRAIN_GROUPS = TrainConfig.__bases__[::-1]
"""In the order in which people read them; a dataclass collects the fields of its bases from the last one on."""


# --- settings <-> plain data ----------------------------------------------------------------------


def model_config_from_dict(data: dict[str, Any], source: str) -> ModelConfig:
    """Build a :class:`ModelConfig` from plain data (a checkpoint's JSON), checking names and types.

    ``source`` names the file in the :class:`ViperError` that an unknown name or a wrong type raises.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--model", type=ModelConfig)
    try:
        model = parser.instantiate(parser.parse_object({"model": data})).model
    except (ArgumentError, TypeError) as error:
        raise ViperError(f"{source}: {' '.join(str(error).split())}") from error
    check_settings(f"{source}: ", {"model.": model})
    return model
