"""card.py: the model card: what a checkpoint's README.md says of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from viper_e2e.config import ModelConfig, backbones_of
from viper_e2e.labels import LabelSet
from viper_e2e.model.calibration import Calibration
from viper_e2e.runtime import count_of


def _origin(provenance: Mapping[str, Any]) -> list[str]:
    """Lines of the model card: which clips, identified by content, and which scores."""
    lines = []
    if train := provenance.get("train"):
        lines.append(
            f"- Trained on {count_of(train['clips'], 'clip')} (sha256 of their shards' "
            f"content {train['sha256'][:16]}…)."
        )
    if (val := provenance.get("val")) and (scores := provenance.get("scores")):
        told = ", ".join(f"{name} {'undefined' if v is None else f'{v:.4f}'}" for name, v in scores.items())
        lines.append(
            f"- Validated on {count_of(val['clips'], 'clip')} (sha256 {val['sha256'][:16]}…) "
            f"after step {provenance['step']}: {told}."
        )
    if told := yardstick_line(provenance):
        lines.append(f"- {told[0].upper()}{told[1:]}.")
    return lines


def yardstick_line(provenance: object) -> str:
    """Line that compares a ridge on the tokens that a model was trained on with the model itself.

    Empty where a checkpoint does not say: of an earlier version, of `--head ridge`, of no validation.
    """
    measure = _at(provenance, "yardstick", "measure")
    if isinstance(measure, str):
        paths = ("yardstick", "value"), ("judged", "value")
    else:  # Earlier versions knew the mean Pearson alone.
        measure, paths = "mean Pearson", (("yardstick", "mean_pearson"), ("scores", "pearson"))
    ridge, own = (_at(provenance, *path) for path in paths)
    if not isinstance(ridge, float):
        return ""
    beside = f"; this model: {own:.4f}" if isinstance(own, float) else ""
    return f"yardstick (ridge on the same tokens), {measure} in validation: {ridge:.4f}{beside}"


def _at(data: object, *path: str) -> object:
    """The value there in JSON that anybody may have written."""
    for name in path:
        data = data.get(name) if isinstance(data, Mapping) else None
    return data


def _what_it_predicts(labels: LabelSet) -> str:
    if not labels.names_tasks:
        return f"{len(labels)} reaction intensities: {', '.join(labels.names)}"
    told = (f"{task.name} ({task.kind}: {', '.join(labels.names[own])})" for task, own in labels.parts)
    return "; ".join(told)


def model_card(
    config: ModelConfig,
    labels: LabelSet,
    settings: Mapping[str, Any],
    *,
    num_parameters: int,
    provenance: Mapping[str, Any] | None,
    calibration: Calibration | None,
) -> str:
    """README.md of a checkpoint, in the hub's form. ``settings``: what its config.json says."""
    adapted = [name for name, backbone in backbones_of(config).items() if backbone.lora_rank]
    inside = ["fusion", *settings["bundled"], *(f"LoRA adapters of {name}" for name in adapted)]
    lines = [
        "---",
        "library_name: viper_e2e",
        "tags: [emotion-recognition, video, multimodal, perceiver]",
        "---",
        "",
        "# A viper_e2e model",
        "",
        f"From a clip of a person to {_what_it_predicts(labels)}.",
        "",
        "```python",
        "import viper_e2e",
        'print(viper_e2e.load("THIS_FOLDER").predict("clip.mp4"))',
        "```",
        "",
        f"- Modalities: {', '.join(config.modalities)}; {num_parameters:,} parameters in all.",
        f"- Weights inside this folder: {', '.join(inside)}.",
    ]
    for name, record in settings["backbones"].items():
        lines.append(
            f"- Backbone `{name}`: {record['spec']} (sha256 of its tensors {record['tensors_sha256'][:16]}…)."
        )
    lines += _origin(provenance or {})
    lines += [] if calibration is None else [f"- Its predictions are {calibration.line}."]
    lines += [
        "",
        f"The numbers predict {'labels' if labels.names_tasks else 'self-reported reaction intensities'} like "
        "those of the training clips. They do not measure truthfulness or health, and do not show for certain "
        "what a person feels. Score people only with their consent.",
        "",
    ]
    return "\n".join(lines)
