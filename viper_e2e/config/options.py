"""options.py: options of every command, one dataclass a command: name, type, default, help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from viper_e2e.config.bounds import ABOVE_0, FROM_0, FROM_1, SHARE_BETWEEN
from viper_e2e.config.model import FusionKind
from viper_e2e.config.presets import Preset
from viper_e2e.config.shared_options import (
    SHARDS,
    BackboneOptions,
    CalibratedOptions,
    ReadingOptions,
    RemoteOptions,
    ScoringOptions,
    WorkerOptions,
    option,
)

MODELS = """there is no default model; give --checkpoint one of these:
  VaianiLorenzo/ViPER-VA     one of the authors' eight, trained on Hume-Reaction (ViPER: validation r .3025)
  demo/run/checkpoints/best  what `make demo` trains on generated people; says nothing about real ones
  RUN/checkpoints/best       your own, by `viper train` on labelled clips; `viper eval` tells how good it is"""
NO_FACE = "for clips without a face: score the whole picture and report it (default), or give no numbers"


@dataclass(frozen=True, kw_only=True)
class TrainOptions(ReadingOptions):
    """Train from raw video shards."""

    # Beside the settings of a run: each stands for some of them.
    preset: Preset = option("base", help="where settings start from")
    modalities: str | None = option(None, help="e.g. visual,audio,textual (default: the preset's)")
    head: FusionKind | None = option(
        None,
        help="what reads the tokens: a Perceiver (tokens, or concat as published); ridge: one pass over the "
        "clips, closed form, nothing else is trained; ensemble: half a ridge, half small networks "
        "(default: the preset's)",
    )
    freeze: str | None = option(
        None, help="backbones that are not trained, e.g. all or visual,audio; see --unfreeze"
    )
    lora: str | None = option(
        None, metavar="NAME=RANK", help="backbones that train only LoRA adapters, e.g. visual=8,audio=8"
    )
    backbone: list[str] = option([], metavar="NAME=SOURCE", help="hub id or folder, e.g. visual=PATH")


@dataclass(frozen=True, kw_only=True)
class InferConfig(CalibratedOptions, ScoringOptions):
    """Score clips, folders of clips or shards with a trained model."""

    inputs: list[str] = option(
        positional=True,
        metavar="CLIP",
        help="clip, folder of clips, address of a clip (https://, s3://, gs://, hf://), or shards (*.tar)",
    )
    checkpoint: str = option("", missing=MODELS, help="folder of a trained model, or a hub id")
    text: str | None = option(
        None,
        help="transcript of the clip, for models that read words (default: .vtt, .srt or .txt next to it)",
    )
    words_language: str = option(
        "", metavar="XX", help="language of the subtitles to read where there are several (CLIP.en.srt)"
    )
    output: str | None = option(
        None, help="also write the scores to a file: .csv, .xlsx, .parquet, .json or .jsonl"
    )
    summary: str | None = option(
        None,
        metavar="FILE",
        help="table with one row per clip: means over its windows (default: NAME.summary.csv next to --output)",
    )
    bom: bool = option(False, help="mark a CSV file as UTF-8, for Excel")
    faces: bool = option(False, help="include the face box of every frame")
    out: str | None = option(None, metavar="DIR", help="folder for all results: scores.csv, plots, videos")
    render: str | None = option(
        None,
        metavar="OUT.mp4",
        bare="",
        bare_beside="out",
        help="write a video of the clip (with --out: of each) with its face box and scores",
    )
    window_seconds: Annotated[float | None, ABOVE_0] = option(
        None, help="score a long clip in windows of this length"
    )
    hop_seconds: Annotated[float | None, ABOVE_0] = option(
        None, help="time between windows (default: half a window)"
    )
    plot: str | None = option(
        None,
        metavar="OUT.png",
        bare="",
        bare_beside="out",
        help="plot the scores of one clip over time (with --out: of each)",
    )
    no_face: Literal["score", "nan"] = option("score", help=NO_FACE)


@dataclass(frozen=True, kw_only=True)
class EvalConfig(CalibratedOptions, ScoringOptions):
    """Score shards: metrics with intervals, predictions, plots."""

    shards: str = option(help=SHARDS)
    out: str = option(help="folder for metrics.json, predictions.csv and plots")
    fold: str = option("", metavar="NAME", help="score only the clips of this fold; see viper train")
    folds: str = option(
        "Fold", metavar="FILE|NAME", help="folds.json of viper cv, or what pack kept with each clip"
    )
    by: list[str] = option(
        [], metavar="A,B", help="also score groups: subject, split, shard, or what pack kept with --meta"
    )
    map: list[str] = option(
        [],
        metavar="THEIRS=OURS",
        help="for shards with other labels: their names and the model's, e.g. happy=joy,mood=emotion; equal "
        "names always match (--map same: only equal names do), and labels without a counterpart are left out",
    )
    submission: bool = option(False, help="also write the challenge's submission.csv")
    report: bool = option(False, help="also write one self-contained HTML page")
    bom: bool = option(False, help="mark predictions.csv as UTF-8, for Excel")
    no_face: Literal["score", "nan"] = option("score", help=NO_FACE)


@dataclass(frozen=True, kw_only=True)
class CalibrateConfig(ScoringOptions):
    """Fit a calibration of a model's probabilities and numbers, with intervals, and store it with the model."""

    shards: str = option(help=f"clips that the model was not trained on, such as those of validation: {SHARDS}")
    to: str = option("", metavar="DIR", help="write a calibrated copy here (default: into the checkpoint)")
    out: str | None = option(
        None, metavar="DIR", help="folder for calibration.json and .png (default: RUN/calibration)"
    )
    numbers: Literal["affine", "isotonic", "none"] = option(
        "affine",
        help="how intensities and numbers are calibrated: with a line, with rising steps, or not at all",
    )
    classes: Literal["temperature", "none"] = option(
        "temperature", help="how classes and labels are calibrated"
    )
    coverage: Annotated[float, SHARE_BETWEEN] = option(
        0.9, metavar="SHARE", help="share of clips whose label should lie in its interval or set"
    )
    seed: Annotated[int, FROM_0] = option(
        0, help="seed of the split into two halves: one to fit, the other to measure"
    )


@dataclass(frozen=True, kw_only=True)
class AblateConfig(CalibratedOptions, ScoringOptions):
    """Score every subset of the trained modalities from one pass of encoding."""

    shards: str = option(help=SHARDS)
    out: str = option(help="folder for ablation.json and ablation.png")
    retrain: bool = option(
        False, help="retrain each subset, with the options of viper train in place of those below"
    )


@dataclass(frozen=True, kw_only=True)
class CrossValConfig:
    """Cross-validate: train once per fold, predict every clip once by a model that never saw its subject.

    Each fold is a run of its own in --run-dir, the one that `viper train --fold` makes, and all share one pass
    of encoding. The model of the last epoch predicts the held-out clips: choosing an epoch by their
    scores would inflate these. With --inner-val 0.1, a tenth of the training clips, by whole subjects, chooses
    the epoch.
    """

    folds: str = option(
        "",
        metavar="K|NAME|FILE",
        help="how many folds to make; or a column that pack kept with each clip (Fold, Session; Subject: leave "
        "one out); or a file such as folds.json (default: Fold)",
    )
    by: str = option(
        "",
        metavar="NAME",
        help="what must not be in two folds, e.g. Session; clip: split clip by clip (default: Subject)",
    )
    stratify: str = option(
        "",
        metavar="TASK",
        help="task in which made folds are alike; none: in size only (default: the first class, else task)",
    )


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Compare predictions for the same clips: differences with intervals and p, by a paired bootstrap.

    The others are compared with the first run.
    """

    runs: list[str] = option(
        positional=True,
        metavar="RUN",
        help="folder of viper eval or viper cv, a run evaluated into its folder eval, or a predictions.csv",
    )
    names: str = option("", metavar="A,B", help="names of the runs in tables (default: their folders)")
    out: str | None = option(
        None, metavar="DIR", help="also write comparison.json, .md and .tex (booktabs) into a folder"
    )
    seed: Annotated[int, FROM_0] = option(0, help="seed of the bootstrap")


@dataclass(frozen=True, kw_only=True)
class CheckConfig(ReadingOptions, RemoteOptions, WorkerOptions):
    """Read every clip of a set of shards and report what is in it and what is wrong."""

    shards: str = option(help=SHARDS)
    faces: bool = option(False, help="also look for faces (slower)")
    output: str | None = option(None, help="also write the findings as JSON")
    num_workers: Annotated[int | None, FROM_0] = option(
        None, help="decoding processes (default: one per CPU, at most 8)"
    )


@dataclass(frozen=True, kw_only=True)
class ExportConfig(CalibratedOptions, BackboneOptions):
    """Write a model with all its backbones inside, to be moved anywhere."""

    checkpoint: str = option(help="folder of a trained model, or a hub id")
    out: str = option(help="new folder")


@dataclass(frozen=True, kw_only=True)
class ImportConfig(BackboneOptions):
    """Convert a released ViPER checkpoint into our folder format."""

    source: str = option(positional=True, help="a .model file, or a hub id such as VaianiLorenzo/ViPER-VA")
    out: str = option(help="new folder")


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Measure what limits training on given shards, and say which setting to change."""

    shards: str = option(help=SHARDS)
    seconds: Annotated[float, ABOVE_0] = option(120.0, help="about how long to measure")


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Train with many settings on one pass over the clips, compare them by validation, and keep the best."""

    grid: list[str] = option(
        [],
        metavar="NAME=V1,V2",
        help="try every combination of these values, e.g. fusion.dropout=0.1,0.3 lr=1e-3,3e-4",
    )
    random: Annotated[int | None, FROM_1] = option(
        None, metavar="N", help="try this many combinations, drawn at random; see --range"
    )
    optuna: Annotated[int | None, FROM_1] = option(
        None,
        metavar="N",
        help="try this many, which optuna proposes from earlier results; see --range",
    )
    range: list[str] = option(
        [],
        metavar="NAME=LOW..HIGH",
        help="what --random and --optuna choose from: LOW..HIGH, log:LOW..HIGH (evenly in the logarithm), "
        "or V1,V2",
    )
    sweep_seed: Annotated[int, FROM_0] = option(
        0, metavar="N", help="seed of what --random draws and --optuna proposes"
    )


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """Print what this installation has: versions, devices, decoders. Put it into bug reports."""


@dataclass(frozen=True, kw_only=True)
class CompletionConfig:
    """Print a script with which a shell completes commands and options."""

    shell: Literal["bash", "zsh", "fish"] = option(
        positional=True, help='e.g. eval "$(viper completion bash)", or viper completion fish | source'
    )
