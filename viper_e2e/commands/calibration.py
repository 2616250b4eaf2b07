"""calibration.py: `viper calibrate`: fits a calibration, which is saved beside the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from viper_e2e.commands.common import load_model, score_shards, tell_failed
from viper_e2e.commands.pictures import draw
from viper_e2e.commands.reading_options import shard_limits
from viper_e2e.commands.training_clips import TrainingClips, own_folder, run_of
from viper_e2e.config import CalibrateConfig
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.model import Calibration, Predictions, ViPER, checkpoint, pretrained, write_folder
from viper_e2e.report import calibration_plot, stdout_console, tables
from viper_e2e.runtime import (
    AS_IT_IS,
    console,
    count_of,
    first_of,
    settle_folder,
    settle_new_folder,
    spelt_apart,
    taken_apart,
    versions,
    written_whole,
)
from viper_e2e.scoring import (
    CalibrationMethod,
    Interval,
    TaskReport,
    finite_or_none,
    fit_calibration,
    readable,
    refuse_empty,
)
from viper_e2e.shards import (
    ShardSet,
    shared_clips,
    shared_subjects,
    subjects_of,
    without_subject,
)

MANY = 3
"""Clips and people that a message names."""


def run_calibrate(options: CalibrateConfig) -> int:
    """Fit on ``--shards``, keep it in the checkpoint, show what it does."""
    folder = _folder(options)
    shards = ShardSet(options.shards, limits=shard_limits(options))
    refuse_empty(shards, options.shards)
    model = load_model(options)
    model.calibration = None  # an earlier one is replaced
    model.labels = model.labels if shards.labels is None else model.labels.measured_as(shards.labels)
    shards = shards.labelled_as(model.labels, "the model")
    for line in _refuse_training_clips(model, shards, folder):
        console.print(line, style="yellow", **AS_IT_IS)
    out = Path(options.out) if options.out else _report_folder(folder, options)
    settle_folder(out, "--out")
    found, processes, journal = score_shards(model, shards, options, out)
    if not processes.is_main:
        return ExitCode.OK
    predictions = Predictions.of(found, model.labels, model.modalities, shards)
    method = CalibrationMethod(options.numbers, options.classes, options.coverage, options.seed)
    calibration, reports, notes = fit_calibration(predictions, method, shards.content_id())
    target = _keep(calibration, model, folder, options)
    _show(calibration, reports, notes)
    all_drawn = _write(calibration, reports, notes, out)
    if processes.count == 1:
        journal.remove()
    console.print(f"{target}: from here on its predictions are {calibration.line}", **AS_IT_IS)
    tell_failed(predictions)
    return ExitCode.OK if all_drawn and predictions.valid.all() else ExitCode.SOME_FAILED


def _folder(options: CalibrateConfig) -> Path | None:
    """Folder of the checkpoint; None for one that is not ours to write into."""
    if options.to:
        settle_new_folder(options.to, "--to")
    folder = own_folder(options.checkpoint)
    if folder is None and not options.to:
        raise ViperError(
            f"{options.checkpoint}: there is no model folder here; is the path right? For a model on the hub, "
            "add --to DIR, which writes a calibrated copy"
        )
    return folder


def _report_folder(folder: Path | None, options: CalibrateConfig) -> Path:
    run = run_of(folder)
    if run is not None and not options.to:
        return run / "calibration"
    made = Path(options.to) if options.to or folder is None else folder
    return made.with_name(f"{made.name}-calibration")


def _refuse_training_clips(model: ViPER, shards: ShardSet, folder: Path | None) -> list[str]:
    """`ViperError` for clips that the model was trained on, by content; returns what could not be compared."""
    training = TrainingClips(model, folder)
    refused = "a model is overconfident on clips that it was trained on; give others, such as --shards VAL"
    if training.are(shards):
        raise ViperError(f"these are the clips that the model was trained on: {refused}")
    if training.saved is None:
        return ["its run folder is not here, so single clips could not be compared with the training clips"]
    if both := training.num_shards_among(shards):
        raise ViperError(
            f"{count_of(both, 'shard was', 'shards were')} among the training shards of the run: {refused}"
        )
    try:
        trained = training.opened()
    except ViperError as error:
        return [f"single clips could not be compared with the training clips ({error})"]
    if shared := shared_clips({"train": trained.shards, "these": shards.shards}):
        some = first_of((where["these"][0] for where in shared), MANY)
        raise ViperError(
            f"{count_of(len(shared), 'clip was', 'clips were')} among the training clips of the run ({some}): "
            f"{refused}"
        )
    return [*_shared_people(trained, shards)]


def _shared_people(trained: ShardSet, shards: ShardSet) -> Iterator[str]:
    """Lines on people who are, or may be, in the training clips as well."""
    sets = {"training": trained.shards, "--shards": shards.shards}
    told = "intervals will be too narrow for new people"
    if people := shared_subjects(sets):
        some = first_of(people, MANY)
        count = count_of(len(people), "subject is", "subjects are")
        yield f"{count} in the training clips too ({some}): {told}"
    if alike := spelt_apart(*map(subjects_of, sets.values())):
        yield f"subjects as in the training clips but for their spelling: {taken_apart(alike)}"
    if lacking := without_subject(sets):
        yield f"{lacking} have no subject: if people are in both, {told}"


def _keep(calibration: Calibration, model: ViPER, folder: Path | None, options: CalibrateConfig) -> Path:
    """Into a copy of the model, or into its folder, which is whole at any moment."""
    if options.to:
        model.calibration = calibration
        model.save_pretrained(options.to)
        return Path(options.to)
    assert folder is not None

    def fill(new: Path) -> None:
        checkpoint.copy_files(folder, new)
        pretrained.write_calibration(calibration, new)

    write_folder(folder, fill)
    return folder


def _write(calibration: Calibration, reports: Sequence[TaskReport], notes: Sequence[str], out: Path) -> bool:
    record = calibration.to_json() | {
        "held_out": {
            report.task.name: {
                "before": _record(report.before),
                "after": _record(report.after),
                "intervals_over": report.over,
                **({"intervals_caution": report.caution} if report.caution else {}),
            }
            for report in reports
        },
        "notes": list(notes),
        "versions": versions(),
    }
    with written_whole(out / "calibration.json") as partial:
        checkpoint.write_json(partial, readable(record))
    console.print(f"wrote {out / 'calibration.json'}", **AS_IT_IS)
    plot = out / "calibration.png"
    return draw(plot, lambda: calibration_plot(reports, plot))


def _record(measures: Mapping[str, tuple[float, Interval | None]]) -> dict[str, Any]:
    return {
        name: {
            "value": finite_or_none(value),
            "interval_95": None if span is None else [finite_or_none(span.low), finite_or_none(span.high)],
        }
        for name, (value, span) in measures.items()
    }


def _show(calibration: Calibration, reports: Sequence[TaskReport], notes: Sequence[str]) -> None:
    made: list[Table] = [tables.calibration_table(report) for report in reports]
    for table in made:
        stdout_console().print(table)
    for line in notes:
        console.print(line, style="yellow", **AS_IT_IS)
    subjects = calibration.clips["subjects"]
    if subjects is not None and subjects < calibration.clips["clips"]:
        told = "clips of one person are alike, so that intervals are surer of new people than they should be"
        console.print(
            f"{count_of(subjects, 'subject')} in {count_of(calibration.clips['clips'], 'clip')}: {told}",
            **AS_IT_IS,
        )
