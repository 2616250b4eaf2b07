"""shared_options.py: options that several commands share, and how to declare an option."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field
from typing import Annotated, Any, Literal

from viper_e2e.config.bounds import ABOVE_0, FROM_0, FROM_1
from viper_e2e.config.model import LimitsConfig
from viper_e2e.config.training import RemoteConfig, TrainConfig
from viper_e2e.config.values import Size

SHARDS = "path, glob, brace pattern, https://, s3://, gs:// or hf://"


def option(
    default: Any = MISSING,  # of the field's own type
    *,
    help: str,
    metavar: str | None = None,
    positional: bool = False,
    bare: str | None = None,
    bare_beside: str | None = None,
    dashed: bool = False,
    missing: str | None = None,
    group: str | None = None,
) -> Any:
    """A field with what ``--help`` says of it. Without a default it must be given.

    ``positional``: without a name. ``bare``: its value where the name stands alone; beside the option
    ``bare_beside`` it always does. ``dashed``: its value may begin with a dash. ``missing``: the error where
    nothing gives it a value. ``group``: the heading of ``--help`` it stands under. A list is an option that may
    be repeated.
    """
    how = {
        "help": help,
        "metavar": metavar,
        "positional": positional,
        "group": group,
        "bare": bare,
        "bare_beside": bare_beside,
        "dashed": dashed,
        "missing": missing,
    }
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=how)
    return field(default=default, metadata=how)


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """Options for reading clips; `train` and `bench` have the same."""

    max_bytes: Annotated[Size | None, FROM_1] = option(
        None, metavar="SIZE", help="largest file that is read as a clip, e.g. 500GB"
    )
    max_side_in: Annotated[int | None, FROM_1] = option(
        None,
        metavar="N",
        help=f"longest side of pictures that are read, in pixels (default: {LimitsConfig.max_width})",
    )
    max_seconds: Annotated[float | None, ABOVE_0] = option(
        None, metavar="S", help=f"longest clip that is read, in seconds (default: {LimitsConfig.max_seconds:g})"
    )
    video_track: Annotated[int | None, FROM_1] = option(
        None,
        metavar="N",
        help="picture track to use, from 1 on (default: the file's default, else the largest)",
    )
    audio_track: Annotated[int | None, FROM_1] = option(
        None,
        metavar="N",
        help="sound track to use, from 1 on (default: the file's default, unless it is silent)",
    )


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """Options for clips that crash or hang their process; `train` has the same."""

    clip_timeout_seconds: Annotated[float, ABOVE_0] = option(
        TrainConfig.clip_timeout_seconds,
        metavar="S",
        help="leave out a clip that takes longer; py-feat may take twice as long",
    )
    max_worker_restarts: Annotated[int, FROM_0] = option(
        TrainConfig.max_worker_restarts,
        metavar="N",
        help="give up after more crashed or hung worker processes than this",
    )


@dataclass(frozen=True, kw_only=True)
class RemoteOptions:
    """Options for reading remote shards; `train` has the same."""

    read: Literal["range", "ahead"] = option(
        RemoteConfig.read,
        help="how remote shards are read: one request per clip (range), or per whole shard (ahead)",
    )
    read_ahead_memory: Annotated[Size, FROM_1] = option(
        RemoteConfig.read_ahead_memory, metavar="SIZE", help="memory for shards that are read ahead"
    )
    cache: str | None = option(
        None,
        metavar="DIR",
        help="folder in which remote shards are cached (default: none, the disk is not used)",
    )
    cache_size: Annotated[Size, FROM_0] = option(
        Size(),
        metavar="SIZE",
        help="largest size of that folder, e.g. 200GB (default: as much as the disk has)",
    )


@dataclass(frozen=True, kw_only=True)
class BackboneOptions:
    """Options for finding backbones."""

    backbone: list[str] = option(
        [],
        metavar="NAME=SOURCE",
        help="where to load a backbone from, e.g. visual=PATH (may be repeated)",
    )
    sentence_bank: str | None = option(None, help="file with the sentences that CLIP chooses from")


@dataclass(frozen=True, kw_only=True)
class CalibratedOptions:
    """Whether what `viper calibrate` has fitted is applied."""

    uncalibrated: bool = option(False, help="do not apply the calibration by `viper calibrate`")


@dataclass(frozen=True, kw_only=True)
class ScoringOptions(ReadingOptions, RemoteOptions, WorkerOptions, BackboneOptions):
    """A trained model, and how it computes."""

    checkpoint: str = option(help="folder of a trained model, or a hub id")
    device: str | None = option(
        None, help="where to compute: cpu, cuda, cuda:1 (default: a GPU if there is one)"
    )
    mixed_precision: Literal["no", "bf16", "auto"] = option(
        "no", help="precision; auto: the faster of no and bf16 on this device"
    )
    compile: bool = option(False, help="compile image towers, Whisper and the fusion (torch.compile)")
    batch_size: Annotated[int, FROM_1] = option(8, help="clips per forward pass")
    num_workers: Annotated[int, FROM_0] = option(1, help="decoding processes")
