"""training.py: settings of a training run in groups, with their values and what they mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from viper_e2e.config.bounds import (
    ABOVE_0,
    FROM_0,
    FROM_1,
    SHARE,
    SHARE_BELOW_1,
    Bounds,
)
from viper_e2e.config.changes import refuses_changes
from viper_e2e.config.depth import Depths, LaterDepths
from viper_e2e.config.values import Changes, Loss, Size, TaskWeights, Trackers

MixedPrecision = Literal["no", "bf16", "fp16", "auto"]
"""Half precision, if any; `auto` is resolved once, before a run."""


@refuses_changes
@dataclass(frozen=True)
class AugmentConfig:
    """Ranges of random changes to training clips, drawn for each clip and epoch, alike for all its frames."""

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


@dataclass(frozen=True)
class RunConfig:
    """Data and run folder."""

    train_shards: str = ""
    """Shards to train on: a path, a glob, a brace pattern, or https://, s3://, gs:// or hf:// addresses. Of
    several corpora a `NAME=WEIGHT:PATTERN` each: `acted=0.3:acted/train-*.tar wild=0.7:wild/train-*.tar`."""
    val_shards: str | None = None
    """Shards to validate on after each epoch, of several corpora as `NAME:PATTERN`; None: no validation, and
    `best` is never written."""
    fold: str = ""
    """Train on all other folds and validate on this one; see `folds`."""
    folds: str = "Fold"
    """Assignment of clips to folds: a file (`folds.json` of `viper cv`), or a packed column (`Session`)."""
    inner_val: Annotated[float, Bounds(0, 0.5)] = 0.0
    """Hold out this share of the training clips, by whole subjects, and validate on it; 0: none."""
    run_dir: str = ""
    """Folder for everything the run writes. Not overwritten unless `resume`."""
    resume: bool = False
    """Continue the run in `run_dir` where it stopped."""


@dataclass(frozen=True)
class LengthConfig:
    """Length of training, and random seeds."""

    epochs: Annotated[int, FROM_1] = 10
    """Passes over the training shards."""
    max_steps: Annotated[int | None, FROM_1] = None
    """Stop after this many optimizer steps; None: after `epochs`."""
    patience: Annotated[int, FROM_0] = 0
    """End after this many epochs in a row without a better model by validation; 0: after `epochs`."""
    batch_size: Annotated[int, FROM_1] = 16
    """Clips per process and micro-batch."""
    accumulation: Annotated[int, FROM_1] = 1
    """Micro-batches per optimizer step."""
    seed: Annotated[int, FROM_0] = 0
    """Decides the order of clips, dropout and the weights of new layers."""
    seeds: Annotated[int, FROM_1] = 1
    """Train this many times, with `seed`, `seed` + 1, …, each in its own folder; report mean ± deviation."""
    ensemble: Annotated[int, FROM_1] = 1
    """Train this many seeds, as `seeds` does, and average their heads: one model, with their spread."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer (AdamW) and learning rates."""

    lr: Annotated[float, FROM_0] = 1e-3
    """Peak learning rate of the fusion head."""
    recipe: Literal["none", "lpft", "lora"] = "none"
    """Fine-tuning in one word, short for settings below that you may still override: first the head trains
    on frozen backbones, then also their last blocks (`lpft`) or LoRA adapters (`lora`), at small rates."""
    backbone_lr: Annotated[float, FROM_0] = 1e-4
    """Peak learning rate of unfrozen backbones."""
    layer_decay: Annotated[float, Bounds(0, 1, open_low=True)] = 1.0
    """The learning rate of a block is that of the next one, nearer to the output, times this."""
    unfreeze: Depths = field(default=Depths())
    """Backbones to train, e.g. `visual=4,audio=all`: that many last blocks, or all. Others stay as the preset
    has them; `--freeze` freezes them."""
    unfreeze_at: LaterDepths = field(default=LaterDepths())
    """Backbones to train from a later epoch on: `2:visual=4,4:visual=all` unfreezes after 2 and 4 epochs.
    `2:visual=lora`: its adapters, frozen until then. What is unfrozen later has a `schedule` of its own, from
    there to the end of the run."""
    weight_decay: Annotated[float, FROM_0] = 0.01
    """Weight decay of AdamW, never applied to norms, biases and embeddings."""
    schedule: Literal["cosine", "halve", "constant"] = "cosine"
    """`cosine`: warm-up, then to zero. `halve`: ×0.5 every `halve_epochs` (published)."""
    warmup_fraction: Annotated[float, SHARE] = 0.05
    """Share of all steps used for warm-up (`cosine`)."""
    halve_epochs: Annotated[int, FROM_1] = 10
    """Epochs after which the rate is halved (`halve`)."""
    clip_norm: Annotated[float, FROM_0] = 1.0
    """Largest norm of the gradient; 0: unlimited."""
    ema_decay: Annotated[float, SHARE_BELOW_1] = 0.0
    """Validate and save a moving average of the trained weights, e.g. 0.999 of it kept per step; 0: none."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """Loss and augmentation."""

    loss: Loss = field(default=Loss())
    """Loss of intensities and numbers, a weighted sum: `mse=1,pearson=0.5` or `ccc=1`."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: clips of a rare class weigh as much together as those of a frequent one."""
    label_smoothing: Annotated[float, SHARE_BELOW_1] = 0.0
    """Label smoothing: this share of each class or label is spread evenly over all."""
    focal_gamma: Annotated[float, FROM_0] = 0.0
    """Exponent of the focal loss for classes and labels (Lin et al. 2017); 0: cross-entropy."""
    task_weights: TaskWeights = field(default=TaskWeights())
    """Weight of each task's loss in the sum, e.g. `emotion=1,valence=0.5`; 1 where a task is not named.
    `uncertainty`: learned with the model (Kendall et al. 2018)."""
    rescale: bool = False
    """Divide outputs by their (detached) maximum, here and wherever the model is used (published option)."""
    augment: Changes = field(default=Changes())
    """Random augmentation of training clips: `none`, `all`, or some of `pixels,box,sound`."""
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    """How far training clips are changed; see `augment`."""
    modality_dropout: Annotated[float, SHARE] = 0.1
    """Chance that a present modality is hidden from one clip; at least one stays (`tokens`)."""


@dataclass(frozen=True)
class ComputingConfig:
    """Precision, compilation and memory."""

    mixed_precision: MixedPrecision = "no"
    """Precision of the forward pass and of frozen weights; `auto`: the faster of `no` and `bf16` here."""
    compile: bool = False
    """Compile image towers, Whisper and the fusion (torch.compile), which takes minutes at the first step."""
    gradient_checkpointing: bool = False
    """Trained blocks compute their activations again in the backward pass: less memory, a third more time."""
    reuse_memory: Annotated[Size, FROM_0] = field(default=Size())
    """Memory per process for clips already encoded, e.g. `2GB`; 0: none."""
    process_timeout_seconds: Annotated[float, ABOVE_0] = 600.0
    """How long distributed processes wait for one another before they report the one that is missing."""


@dataclass(frozen=True)
class LoadingConfig:
    """Workers that decode clips ahead, and clips that cannot be decoded."""

    num_workers: Annotated[int, FROM_0] = 2
    """Processes that decode ahead; 0: decode in the training process."""
    prefetch: Annotated[int | None, FROM_1] = None
    """Clips decoded ahead per worker; None: enough for a whole batch."""
    shuffle_window: Annotated[int, FROM_1] = 2048
    """Samples are shuffled within windows of this many, over shuffled shards."""
    clip_timeout_seconds: Annotated[float, ABOVE_0] = 300.0
    """Leave out a clip that takes a worker longer than this."""
    max_worker_restarts: Annotated[int, FROM_0] = 1000
    """End the run once more workers than this have crashed or hung in an epoch."""
    on_error: Literal["skip", "raise"] = "skip"
    """Action on a clip that cannot be read; `skip` keeps its place with weight 0."""


@dataclass(frozen=True)
class RemoteConfig:
    """Settings for reading remote shards; local ones are always read directly."""

    read: Literal["range", "ahead"] = "range"
    """`range`: a request for each clip. `ahead`: whole shards by one request each, where requests are slow."""
    read_ahead_memory: Annotated[Size, FROM_1] = field(default=Size(2 * 10**9))
    """Memory per process, its workers' included, for shards that are read ahead."""
    cache: str | None = None
    """Folder in which whole shards are cached for later epochs and runs; None: the disk is never used."""
    cache_size: Annotated[Size, FROM_0] = field(default=Size())
    """Largest size of that folder; the shards least recently used are removed. 0: as much as the disk has."""


@dataclass(frozen=True)
class SavingConfig:
    """Checkpoints, besides those at the end of each epoch."""

    save_every_steps: Annotated[int, FROM_0] = 0
    """Also save `checkpoints/last` after this many steps; 0: at the end of epochs only."""
    save_every_minutes: Annotated[float, FROM_0] = 0.0
    """Also save `checkpoints/last` after this many minutes; 0: never."""
    best_by: str = ""
    """Measure that chooses `checkpoints/best`, e.g. `emotion.war` or `valence.ccc`. Empty: the mean Pearson, or
    of tasks the mean of UAR (class), macro F1 (labels), CCC (number) and Pearson (intensities)."""


@dataclass(frozen=True)
class TrackingConfig:
    """Experiment trackers; `metrics.jsonl` and plots are always written."""

    log_with: Trackers = field(default=Trackers())
    """Trackers that get settings, losses, measures and plots: some of `tensorboard,trackio,wandb,mlflow`, or
    `none`. If one fails, that is reported and training continues."""
    tracker_project: str = "viper_e2e"
    """Project (mlflow: experiment) of the run, which is named after its folder."""


@refuses_changes
@dataclass(frozen=True)
class TrainConfig(
    TrackingConfig,
    ObjectiveConfig,
    SavingConfig,
    RemoteConfig,
    LoadingConfig,
    ComputingConfig,
    OptimizerConfig,
    LengthConfig,
    RunConfig,
):
    """Settings of a training: those of all these groups, under their own names."""


TRAIN_GROUPS = TrainConfig.__bases__[::-1]
"""Groups in reading order; a dataclass collects the fields of its bases from the last one on."""
