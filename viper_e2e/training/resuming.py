"""resuming.py: resuming a run: settings that may change, and all that must be as it was."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol, get_type_hints, runtime_checkable

import torch
import yaml

from viper_e2e.config import (
    SETTINGS_SCHEMA,
    WORDED,
    ModelConfig,
    Settings,
    TrainConfig,
    backbone_places,
    backbones_of,
    flat,
    option_of,
    settings_of_now,
)
from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet, are_alike
from viper_e2e.model import ViPER, labels_of, newest_whole, read_json
from viper_e2e.runtime import count_of, naming
from viper_e2e.shards import ShardSet, parse_corpora, with_patterns
from viper_e2e.splits import is_file_of_folds
from viper_e2e.training import state as training_state
from viper_e2e.training.data import shards_of
from viper_e2e.training.data_record import DATA, bank_id, other_shards, read_data, recorded_labels
from viper_e2e.training.optimizer import parameter_groups
from viper_e2e.training.run_folder import RunFolder, check_goes_on

MAY_CHANGE = frozenset(
    {
        # How fast it learns from here on, and when it ends; the schedule is counted again for the rest.
        *(
            "lr",
            "backbone_lr",
            "weight_decay",
            "clip_norm",
            "epochs",
            "max_steps",
            "patience",
            "seeds",
            "ensemble",
        ),
        # How the work is done; what is computed stays the same.
        *("num_workers", "prefetch", "reuse_memory", "compile", "process_timeout_seconds"),
        *("read", "read_ahead_memory", "cache", "cache_size"),
        # What happens to clips that cannot be read, and how often the run is saved.
        *("on_error", "clip_timeout_seconds", "max_worker_restarts", "save_every_steps", "save_every_minutes"),
        # What shows the run.
        *("log_with", "tracker_project"),
        # Where the run lies.
        *("run_dir", "resume"),
    }
)
"""Settings that take effect when they change. All others decide which clips a step sees or what is computed of
them (seed, batch size, loss, model, …): with one changed, the run would be neither the old nor a new one."""
BY_CONTENT = ("train_shards", "val_shards", "folds", "model.textual.bank")
"""Settings that name files: their content is compared, so that files may have moved."""
_WORDED = {name: kind for name, kind in get_type_hints(TrainConfig).items() if kind in WORDED}


class SavedRun:
    """A run, as an earlier start of it has written it."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        self.folder, self.settings = folder, settings
        self.data = read_data(folder)

    @classmethod
    def of(cls, folder: Path) -> SavedRun | None:
        """``None`` where no run was begun."""
        path = folder / "config.yaml"
        if not path.exists():
            return None
        try:
            with naming(path):
                settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ViperError(f"{path}: not valid YAML ({' '.join(str(error).split())[:200]})") from error
        if not isinstance(settings, dict):
            raise ViperError(f"{path}: holds no settings; was it edited?")
        return cls(folder, settings_of_now(settings, str(path)))

    @cached_property
    def last(self) -> Path | None:
        """The newest undamaged checkpoint."""
        return newest_whole(self.folder / "checkpoints" / "last")[0]

    @property
    def labels(self) -> LabelSet | None:
        """The run's labels, in its order."""
        if "labels" in self.data:
            return recorded_labels(self.data, self.folder / DATA)
        return labels_of(self.last) if self.last is not None else None

    def in_its_order(self, train: ShardSet, val: ShardSet | None) -> tuple[ShardSet, ShardSet | None]:
        """Shards with their labels as the run has them; those with others come back as they are."""
        labels = self.labels
        if labels is None or not are_alike(train.known_labels, labels):
            return train, val
        return train.labelled_as(labels, "the run"), val.labelled_as(labels, "the run") if val else None

    def check(self, settings: Settings, train: ShardSet, val: ShardSet | None) -> dict[str, list[Any]]:
        """Allowed changes: name → before and now. Raises `ViperError` with a line for all others."""
        lines, changed = [], {}
        for name, before, now in sorted(differences(self.settings, settings.to_dict()), key=itemgetter(0)):
            if name in MAY_CHANGE or name.startswith("model.decoding.limits."):
                changed[name] = [before, now]
            elif not (name == "mixed_precision" and now == "auto"):
                lines.append(f"{option_of(name)}: {said(now)}; the run has {said(before)}")
        lines += self._other_data(settings, train, val)
        if lines:
            text = "\n".join(f"  {line}" for line in lines)
            raise ViperError(
                f"{self.folder}: can only resume with the settings it began with; change back, or name another "
                f"--run-dir:\n{text}"
            )
        where = ("run_dir", "resume")
        return {name: values for name, values in changed.items() if name not in where}

    def _other_data(self, settings: Settings, train: ShardSet, val: ShardSet | None) -> Iterator[str]:
        labels = self.labels
        if labels is not None and not are_alike(train.known_labels, labels):
            yield f"labels: {', '.join(train.known_labels.names)}; the run has {', '.join(labels.names)}"
        for option, shards, name in (("--train-shards", train, "train"), ("--val-shards", val, "val")):
            if name in self.data:
                yield from other_shards(option, shards, self.data[name])
        if "bank" in self.data and self.data["bank"] != bank_id(settings.model):
            yield "--model.textual.bank: other sentences than in the run"

    def check_backbones(self, module: ViPER) -> None:
        """Weights that a checkpoint leaves out must be those it was trained with, wherever they lie now."""
        if self.last is None:
            return
        recorded = read_json(self.last / "config.json")["backbones"]
        found = {
            name: record for encoder in module.encoders.values() for name, record in encoder.records().items()
        }
        for name, record in recorded.items():
            wanted = record["tensors_sha256"]
            if name in found and wanted and found[name]["tensors_sha256"] != wanted:
                raise ViperError(
                    f"{self.folder}: --backbone {name}={found[name]['spec']} holds other weights than the run "
                    f"was trained with ({record['spec']}); name those"
                )


def check_to_resume(settings: Settings) -> None:
    """`ViperError` where ``--resume`` is asked of another command than began the run, or of as many seeds as it
    does not have."""
    if settings.train.resume:
        folder = Path(settings.train.run_dir)
        check_goes_on(folder, "train")
        check_same_layout(folder, settings.train, "seeds", "ensemble")


def check_same_layout(folder: Path, now: TrainConfig, *counts: str) -> None:
    """`ViperError` where one training would be resumed as several, or several as one.

    Each of several has a folder of its own: nothing would be resumed, and old results would stand beside the
    new ones.
    ``counts``: the settings of which any above 1 means several.
    """
    saved = SavedRun.of(folder)
    if saved is None:
        return
    before = max(saved.settings.get(name, 1) for name in counts)
    if (before > 1) == any(getattr(now, name) > 1 for name in counts):
        return
    options = " and ".join(option_of(name) for name in counts)
    advice = f"give --seeds {before}" if before > 1 else f"leave out {options}"
    raise ViperError(
        f"{folder}: was begun with {count_of(before, 'seed')}; {advice}, or name another --run-dir"
    )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name, value before, and value now of every setting that differs; what is compared by content is left out.

    A setting that a saved run does not know was added to the package since: the run had its default.
    """
    new = flat(now)
    unknown = Settings(TrainConfig(), ModelConfig(), new.get("preset", "")).to_dict()
    old = flat(unknown) | flat(before)
    for name in [*new, *(name for name in old if name not in new)]:
        values = old.get(name), new.get(name)
        if name not in BY_CONTENT and not _is_same(name, *values) and not _is_moved(name, *values):
            yield name, *values


def _is_same(name: str, before: object, now: object) -> bool:
    """Whether two values mean the same, however they are written; an empty group of settings is none."""
    if kind := _WORDED.get(name):
        return kind.parse(before) == kind.parse(now)
    return before == now or (before in (None, {}) and now in (None, {}))


def _is_moved(name: str, before: object, now: object) -> bool:
    """Weights from another place, which `check_backbones` compares."""
    if name.endswith(".revision"):
        return True
    return name.endswith(".source") and name != "model.action_units.source" and "random" not in (before, now)


def said(value: object) -> str:
    """A setting's value as messages show it."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False) if value == "" else str(value)


def has_ended(run: Settings) -> bool:
    """Whether the run stands complete in its folder, as these settings would leave it; `ViperError` where what
    stands there is of other settings."""
    saved = SavedRun.of(Path(run.train.run_dir)) if run.train.resume else None
    if saved is None or saved.last is None:
        return False
    if run.model.fusion.kind == "ridge":
        run = replace(run, train=replace(run.train, epochs=1))
    shards = saved.in_its_order(*shards_of(run))
    if saved.check(run, *shards):
        return False  # a setting that may change has changed: the trainer takes it up
    state = training_state.read(saved.last)
    is_through = state.cursor.epoch >= run.train.epochs or state.step == run.train.max_steps
    is_through = is_through or state.is_out_of_patience(run.train.patience)
    is_through = is_through and state.validated_step == state.step and not state.unsaved
    return is_through and not RunFolder(saved.folder, resume=True, owner=False).lacking(state.unwritten)


# --- what a run says of its data --------------------------------------------------------------------


def with_absolute_paths(settings: Settings) -> dict[str, Any]:
    """Settings as ``config.yaml`` holds them: to be understood from any folder."""
    data = {"schema": SETTINGS_SCHEMA, **settings.to_dict()}
    for name in ("train_shards", "val_shards"):
        data[name] = _absolute_shards(data[name])
    data["run_dir"] = _absolute(data["run_dir"])
    if is_file_of_folds(data["folds"]):
        data["folds"] = _absolute(data["folds"])
    places = backbone_places(settings.model)
    for name, backbone in backbones_of(settings.model).items():
        if Path(backbone.source).expanduser().exists():
            _at(data["model"], places[name])["source"] = _absolute(backbone.source)
    textual = data["model"]["textual"]
    textual["bank"] = _absolute(textual["bank"])
    return data


def _at(data: dict[str, Any], place: str) -> dict[str, Any]:
    for name in place.split("."):
        data = data[name]
    return data


def _absolute_shards(text: str | None) -> str | list[str] | None:
    """One pattern, or a list of them."""
    if text is None:
        return None
    patterns = [pattern for corpus in parse_corpora(text, "shards") for pattern in corpus.patterns]
    lines = with_patterns(text, [_absolute(pattern) or pattern for pattern in patterns]).split("\n")
    return lines[0] if len(lines) == 1 else lines


def _absolute(pattern: str | None) -> str | None:
    """A pattern from the root; where that cannot be said without changing its meaning, as it is."""
    here = os.getcwd()  # noqa: PTH109  as text, to be put before a pattern
    if not pattern or "://" in pattern or pattern.startswith(("{", "~")) or set(here) & set("*?[]{}"):
        return pattern
    return os.path.join(here, pattern)  # noqa: PTH118  keeps what a pattern means


# --- rates that take effect ---------------------------------------------------------------------------


@runtime_checkable
class HasBaseRates(Protocol):
    """A schedule of torch, or accelerate's around one."""

    base_lrs: list[float | torch.Tensor]


def take_rates(
    optimizer: torch.optim.Optimizer, schedule: HasBaseRates, module: ViPER, config: TrainConfig
) -> None:
    """Rates and decay as the settings say now; the state that was loaded brought the old ones back."""
    wanted = {group["name"]: group for group in parameter_groups(module, config)}
    for place, group in enumerate(optimizer.param_groups):
        new = wanted[group["name"]]
        group["weight_decay"] = new["weight_decay"]
        group["initial_lr"] = schedule.base_lrs[place] = new["lr"]
