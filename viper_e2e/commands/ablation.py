"""ablation.py: `viper ablate`: what each modality contributes, all subsets scored from one pass of encoding."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from viper_e2e.commands.common import load_model, score_shards, tell_failed
from viper_e2e.commands.evaluation import source_record
from viper_e2e.commands.pictures import draw
from viper_e2e.commands.reading_options import shard_limits
from viper_e2e.config import AblateConfig
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.model import Predictions, checkpoint
from viper_e2e.report import figures, stdout_console
from viper_e2e.runtime import (
    AS_IT_IS,
    console,
    settle_folder,
    table,
    versions,
    written_whole,
)
from viper_e2e.scoring import (
    MAIN_MEASURE,
    Wanted,
    interval_of_main,
    main_measure,
    main_score,
    readable,
    refuse_empty,
    scores_of,
    scores_record,
)
from viper_e2e.shards import ShardSet
from viper_e2e.tasks import COMBINED, Task, measure_title, names_none


def run_ablate(options: AblateConfig) -> int:
    """Score every non-empty subset of the trained modalities."""
    if options.retrain:
        raise ViperError("--retrain: give it on the command line, with the options of viper train")
    shards, out = ShardSet(options.shards, limits=shard_limits(options)), Path(options.out)
    settle_folder(out, "--out")
    refuse_empty(shards, options.shards)
    model = load_model(options)
    shards = shards.labelled_as(model.labels, "the model")
    wanted = Wanted(hidden=_hidden(model.modalities))
    found, processes, journal = score_shards(
        model, shards, options, out, "ablate", wanted.hidden, wanted=wanted
    )
    if not processes.is_main:
        return ExitCode.OK
    rows = []
    for hidden in wanted.hidden:
        of_set = [one for one in found if one.hidden == hidden]
        predictions = Predictions.of(of_set, model.labels, model.modalities, shards)
        if predictions.scored.sum() < 2:
            raise ViperError(f"{options.shards}: ablation needs at least two labelled clips that can be read")
        rows.append(_row([name for name in model.modalities if name not in hidden], predictions))
    # Undefined where the labels, or what is predicted, do not vary: last.
    rows.sort(key=lambda row: -row["score"] if np.isfinite(row["score"]) else np.inf)
    whole = Predictions.of((one for one in found if not one.hidden), model.labels, model.modalities, shards)
    failed = {key: error for key, error in zip(whole.keys, whole.errors, strict=True) if error is not None}
    code = _write(rows, out, source_record(model, shards, options) | {"failed": failed})
    if processes.count == 1:
        journal.remove()
    tell_failed(whole)
    return ExitCode.SOME_FAILED if failed else code


def _hidden(modalities: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Modalities that each subset leaves out, smaller subsets first."""
    sizes = range(1, len(modalities) + 1)
    subsets = [chosen for size in sizes for chosen in combinations(modalities, size)]
    return tuple(tuple(name for name in modalities if name not in chosen) for chosen in subsets)


def _row(shown: list[str], predictions: Predictions) -> dict[str, Any]:
    """``score``: what subsets are ranked by, the main measure of one task, of several the mean of theirs."""
    scores = scores_of(predictions)
    record = scores_record(scores)
    own = {name: one.task for name, one in scores.tasks.items() if one.task.kind != COMBINED}
    return {
        "modalities": shown,
        "measure": _ranked_by(own),
        "score": main_score(scores.tasks),
        **interval_of_main(scores.tasks),
        **{name: record[name] for name in ("mean_pearson", "pearson")},
        "tasks": {name: record["tasks"][name] for name in own},
    }


def _ranked_by(tasks: Mapping[str, Task]) -> str:
    titles = {name: measure_title(main_measure(task)) for name, task in tasks.items()}
    if len(titles) > 1:
        return f"mean of {', '.join(f'{name} {title}' for name, title in titles.items())}"
    (title,) = titles.values()
    return f"mean {title}" if names_none({name: task.kind for name, task in tasks.items()}) else title


def _write(rows: list[dict[str, Any]], out: Path, source: dict[str, Any]) -> int:
    by, several = rows[0]["measure"], len(rows[0]["tasks"]) > 1
    columns = ["modalities", by, *([] if several else ["95 % interval"])]
    columns += rows[0]["tasks"] if several else []
    cells = [(", ".join(row["modalities"]), f"{row['score']:.3f}", *_cells(row, several)) for row in rows]
    with written_whole(out / "ablation.json") as partial:
        checkpoint.write_json(partial, readable({"rows": rows, **source, "versions": versions()}))
    console.print(f"wrote {out / 'ablation.json'}", **AS_IT_IS)
    plot = out / "ablation.png"
    is_drawn = draw(plot, lambda: figures.ablation_plot(rows, plot))
    stdout_console().print(table(f"ablation{figures.intervals_in_words(rows)}", columns, cells))
    return ExitCode.OK if is_drawn else ExitCode.SOME_FAILED


def _cells(row: Mapping[str, Any], several: bool) -> list[str]:
    if several:
        mains = (one[MAIN_MEASURE[one["kind"]]] for one in row["tasks"].values())
        return ["–" if value is None else f"{value:.3f}" for value in mains]
    return ["–" if row["low"] is None else f"[{row['low']:.3f}, {row['high']:.3f}]"]
