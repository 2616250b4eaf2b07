"""tables.py: parameters of a run and scores of its epochs, as tables and lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from viper_e2e.config import FusionConfig
from viper_e2e.loading import Share, clips_per_epoch
from viper_e2e.model import ViPER
from viper_e2e.report import EpochRecord, ValidationRecord, shown_score
from viper_e2e.runtime import table
from viper_e2e.scoring import AGREEMENT
from viper_e2e.shards import Corpus
from viper_e2e.tasks import BLENDS, measure_title


def branch_table(model: ViPER) -> Table:
    """Per branch: backbone, source, trainable and frozen parameters, dtype."""
    rows = []
    for modality, encoder in model.encoders.items():
        for name, backbone in encoder.backbones().items():
            parameters = list(backbone.parameters())
            trained = sum(p.numel() for p in parameters if p.requires_grad)
            frozen = sum(p.numel() for p in parameters) - trained
            dtypes = "/".join(sorted({str(p.dtype).removeprefix("torch.") for p in parameters}))
            branch = modality if name == modality else f"{modality} · {name}"
            rows.append((branch, backbone.origin.spec, trained, frozen, dtypes))
    learned = sum(p.numel() for p in model.fusion.parameters() if p.requires_grad)
    fitted = sum(p.numel() for p in model.fusion.parameters()) - learned
    rows.append(("fusion", _head_name(model.config.fusion), learned, fitted, "float32"))
    detector = sum(b.numel() for b in model.faces.buffers())
    rows.append(("faces", "MTCNN", 0, detector, "float32"))
    return table("model", ("branch", "source", "trainable", "frozen", "dtype"), rows)


def _head_name(config: FusionConfig) -> str:
    if config.kind == "ensemble":
        return "ridge + Perceiver" + (" + hidden layer" if config.hidden_dim else "")
    return "ridge" if config.kind == "ridge" else f"Perceiver ({config.kind})"


def groups_table(groups: Sequence[Mapping[str, Any]]) -> Table:
    """Per group of the optimizer: trainable parameters, learning rate at its peak, weight decay."""
    rows = [
        (
            group["name"],
            sum(p.numel() for p in group["params"]),
            f"{group.get('initial_lr', group['lr']):.3g}",
            f"{group['weight_decay']:g}",
        )
        for group in groups
    ]
    return table("trained", ("group", "parameters", "learning rate", "weight decay"), rows)


def epoch_line(record: EpochRecord) -> str:
    """An epoch in one line."""
    line = f"epoch {record.epoch + 1:>3}  step {record.step:>6}  loss {shown_score(record.train_loss)}"
    if record.val is not None:
        scores = record.val.scores
        told = [f"{name} {shown_score(scores.mean(key))}" for name, key in MEASURES]
        if scores.names_tasks:
            told = [f"{task} {task_line(one)}" for task, one in scores.tasks.items()]
        line += f"  {'val of the average' if record.val.weights == 'average' else 'val'} {'  '.join(told)}"
    if record.task_weights:
        weights = (f"{task} {weight:.3g}" for task, weight in record.task_weights.items())
        line += f"  weights {', '.join(weights)}"
    return line


MEASURES = tuple((measure_title(name), name) for name in AGREEMENT)
"""Title and name of the measures of intensities, where there is no other task."""
SHOWN = {
    "class": (("UAR", "uar"), ("WAR", "war")),
    "labels": (("macro F1", "macro_f1"),),
    "number": (("CCC", "ccc"),),
    "intensities": (("Pearson", "pearson"),),
}
"""Measures in an epoch's line, by kind of task."""


def measures_in(record: Mapping[str, Any]) -> list[str]:
    """Names in a task's record that have one number each."""
    return [
        name
        for name, value in record.items()
        if name != "num_clips" and (value is None or isinstance(value, int | float))
    ]


def titled_measures(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Titles and names of what is shown of a task's record."""
    return [*SHOWN.get(record["kind"], ())] or [(name, name) for name in measures_in(record)]


def task_line(record: Mapping[str, Any]) -> str:
    shown = [*titled_measures(record), *((name, name) for name in BLENDS if name in record)]
    return " ".join(f"{name} {shown_score(record[key])}" for name, key in shown)


def corpus_lines(record: ValidationRecord) -> Iterator[str]:
    """A line for each corpus that an epoch was validated on."""
    width = max(map(len, record.corpora), default=0)
    for corpus, tasks in record.corpora.items():
        yield f"{corpus:<{width}}  " + "  ".join(f"{name} {task_line(one)}" for name, one in tasks.items())


def mixture_table(shares: Sequence[Share], corpora: Sequence[Corpus]) -> Table:
    """Per corpus: its tasks and clips, and how many of these an epoch has, and how often."""
    counts, rows = clips_per_epoch(shares), []
    for share, count, corpus in zip(shares, counts, corpora, strict=True):
        names = [task.name for task, _ in corpus.labels.parts] if corpus.labels is not None else []
        part, times = f"{count / sum(counts):.1%}", f"{count / max(1, share.num_clips):.2f}"
        rows.append((share.name, ", ".join(names), share.num_clips, count, part, times))
    return table("mixture", ("corpus", "tasks", "clips", "clips an epoch", "share", "times an epoch"), rows)


def flat_numbers(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """``{"val": {"pearson": {"fear": 0.5}}}`` → ``("val/pearson/fear", 0.5)``: numbers only."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from flat_numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", value
