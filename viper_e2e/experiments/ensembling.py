"""ensembling.py: `viper train --ensemble`: joins heads of several seeds into one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from viper_e2e.config import Frozen, Settings, backbones_of
from viper_e2e.errors import ViperError
from viper_e2e.fusion import LabelScale, MembersFusion, build_fusion
from viper_e2e.model import Predictions, ViPER, pretrained, write_over
from viper_e2e.report import ScoreRecord
from viper_e2e.runtime import Processes
from viper_e2e.scoring import with_thresholds
from viper_e2e.training import judged, provenance_of_scores


def check_joinable(settings: Settings) -> None:
    """`ViperError` before anything is trained whose heads could not share backbones."""
    train, backbones = settings.train, backbones_of(settings.model)
    if settings.model.fusion.members > 1:
        raise ViperError(
            "--model.fusion.members: members are trained separately and joined; use --ensemble instead"
        )
    if train.ensemble == 1:
        return
    if train.seeds > 1:
        raise ViperError(
            "--ensemble trains seeds and reports their mean and deviation itself; leave out --seeds"
        )
    trained = [name for name, b in backbones.items() if b.lora_rank or train.unfreeze.of(name) != Frozen()]
    if trained or train.unfreeze_at:
        raise ViperError(
            "--ensemble joins heads on the same frozen backbones, but "
            f"{', '.join(trained) or train.unfreeze_at} would be trained; give --freeze all, "
            "or train with --seeds and average the predictions of their models"
        )
    drawn = [name for name, backbone in backbones.items() if backbone.source == "random"]
    if drawn:
        raise ViperError(
            f"--ensemble joins heads on the same backbones, but random weights ({', '.join(drawn)}) differ "
            "with the seed; name pretrained ones with --backbone"
        )


def join(
    members: Sequence[Path],
    said: Sequence[Predictions],
    target: Path,
    processes: Processes,
    *,
    best_by: str = "",
) -> ScoreRecord | None:
    """Write the model whose heads are those of ``members``, folders of models; all processes must call it.

    Returns the scores of the mean of what each ``said`` of the validation clips; None without any.
    """
    record, labels = None, None
    if said:
        mean = replace(said[0], predicted=np.mean([one.predicted for one in said], 0))
        labels = with_thresholds(mean)
        record = judged(replace(mean, labels=labels), best_by)
    if processes.is_main:
        model = _joined(members)
        # What was fitted to the first member suits what it says alone.
        model.labels, model.calibration = labels or model.labels, None
        if model.provenance is not None and record is not None:
            model.provenance = {**model.provenance, **provenance_of_scores(record)}
        write_over(target, lambda new: pretrained.write(model, new))
    processes.wait("the members to be joined")
    return record


def _joined(folders: Sequence[Path]) -> ViPER:
    model = ViPER.from_pretrained(folders[0])
    known = {name: encoder.content_id() for name, encoder in model.encoders.items()}
    heads = [model.fusion]
    for folder in folders[1:]:
        other = ViPER.from_pretrained(folder)
        differing = [name for name, e in other.encoders.items() if e.content_id() != known[name]]
        if differing:
            raise ViperError(
                f"{folder}: its backbones of {', '.join(differing)} differ from those of {folders[0]}, so "
                "their "
                "heads cannot be joined"
            )
        heads.append(other.fusion)
    fusion = replace(model.config.fusion, members=len(heads))
    widths = {name: encoder.embed_dim for name, encoder in model.encoders.items()}
    scale = LabelScale.of(model.labels, bounded=fusion.output == "sigmoid")
    joined = build_fusion(fusion, widths, len(model.labels), model.labels.in_unit_interval, scale)
    assert isinstance(joined, MembersFusion), "more than one"
    joined.members = nn.ModuleList(heads)
    model.set_fusion(joined, fusion)
    return model
