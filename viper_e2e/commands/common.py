"""common.py: loading a model and scoring with it, for all commands; `viper export` and `import-published`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch

from viper_e2e.commands.backbone_arguments import backbone_overrides
from viper_e2e.commands.reading_options import with_reading_options
from viper_e2e.config import BackboneOptions, CalibratedOptions, ExportConfig, ImportConfig, ScoringOptions
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.loading import ClipSource, Reading, notes_on_reading
from viper_e2e.model import (
    Prediction,
    Predictions,
    ViPER,
    check_compiler,
    compile_model,
    compute_dtype,
    resolve_precision,
)
from viper_e2e.published import import_published, is_published, published_checkpoint
from viper_e2e.runtime import (
    AS_IT_IS,
    Processes,
    console,
    count_of,
    loading,
    own_device,
    printable,
    progress_bar,
    settle_new_folder,
    tell_problems,
    without_collecting,
)
from viper_e2e.scoring import ResultJournal, Wanted, identity_of, score, scoring_accelerator
from viper_e2e.shards import ShardSet

MAX_NAMED = 20
S = TypeVar("S", bound=ScoringOptions)


def overrides_of(options: BackboneOptions) -> dict[str, str]:
    """First places to look for backbones and the sentence bank."""
    bank = {"sentence_bank": options.sentence_bank} if options.sentence_bank else {}
    return backbone_overrides(options.backbone) | bank


def load_model(options: ScoringOptions | ExportConfig) -> ViPER:
    """The checkpoint's model, frozen, on the chosen device; a released one is converted first."""
    source: str | Path = options.checkpoint
    if (Path(source) / "folds.json").is_file():
        raise ViperError(
            f"{source}: a cross-validation, whose scores are in its metrics.json; name the model of one fold, "
            f"such as {Path(source) / 'fold-1/checkpoints/last'}"
        )
    overrides = overrides_of(options)
    device = own_device(options.device if isinstance(options, ScoringOptions) else None)
    if isinstance(options, ScoringOptions) and options.compile:
        check_compiler(torch.device(device))
    if is_published(options.checkpoint):
        with loading("fetching and converting the model"):
            imported = published_checkpoint(options.checkpoint, overrides=overrides)
        source = imported.folder
        for note in imported.notes:
            console.print(f"[yellow]note: {note}[/yellow]")
    with loading(), without_collecting():
        model = ViPER.from_pretrained(source, overrides=overrides)
    if isinstance(options, ScoringOptions):
        model.set_decoding(with_reading_options(model.config.decoding, options))
    if isinstance(options, CalibratedOptions) and model.calibration is not None:
        if options.uncalibrated:
            model.calibration = None
        else:
            console.print(f"{model.calibration.line} (--uncalibrated leaves it out)", **AS_IT_IS)
    return model.to(device)


def set_computing(model: ViPER, options: S, processes: Processes) -> S:
    """Prepare the model as the options ask; returns them with a precision of ``auto`` resolved."""
    options = replace(options, mixed_precision=resolve_precision(options.mixed_precision, model, processes))
    model.set_compute_dtype(compute_dtype(options.mixed_precision))
    model.set_reading(reading_of(options))
    if options.compile:
        compile_model(model)
    return options


def reading_of(options: ScoringOptions) -> Reading:
    """Settings for reading clips, from the options."""
    return Reading(
        batch_size=options.batch_size,
        num_workers=options.num_workers,
        clip_timeout_seconds=options.clip_timeout_seconds,
        max_restarts=options.max_worker_restarts,
    )


def score_shards(
    model: ViPER,
    shards: ShardSet,
    options: ScoringOptions,
    out: Path,
    *how: object,
    wanted: Wanted | None = None,
) -> tuple[list[Prediction], Processes, ResultJournal]:
    """Predictions of all processes, and their journal in ``out/parts``, removed by who has written all.

    ``how``: what else the journal's results depend on.
    """
    processes = Processes(scoring_accelerator(model.device))
    with processes.telling_failures():
        if processes.is_main:
            tell_problems((*shards.problems, *notes_on_reading(shards.remote_reading, (shards,))))
        options = set_computing(model, options, processes)
        journal = ResultJournal(out / "parts", identity_of(model, options, *how), processes)
        (found,) = scored(model, [shards], options, processes, journal, wanted)
    return found, processes, journal


def scored(
    model: ViPER,
    sources: Sequence[ClipSource],
    options: ScoringOptions,
    processes: Processes,
    journal: ResultJournal | None,
    wanted: Wanted | None = None,
) -> list[list[Prediction]]:
    """Predictions of the clips of each source in its order, with a bar; in every process those of all."""
    found = []
    with progress_bar(disable=not processes.is_main) as bar:
        task = bar.add_task("scoring", total=sum(map(len, sources)), note="")

        def tell(one: Prediction, num_clips: int) -> None:
            bar.update(task, advance=num_clips, note=Path(one.clip).name)

        for source in sources:
            predictions = score(
                model,
                source,
                reading_of(options),
                wanted=wanted,
                processes=processes,
                journal=journal,
                tell=tell,
            )
            # Stable: windows of a clip stay as they are.
            found.append(sorted(predictions, key=lambda one: (one.index < 0, one.index)))
    return found


def tell_failed(predictions: Predictions) -> None:
    """Name the clips that could not be scored, as far as a line holds them."""
    failed = [key for key, error in zip(predictions.keys, predictions.errors, strict=True) if error is not None]
    if failed:
        more = f", and {len(failed) - MAX_NAMED} more" if len(failed) > MAX_NAMED else ""
        some = ", ".join(map(printable, failed[:MAX_NAMED]))
        console.print(
            f"{count_of(len(failed), 'clip')} could not be scored: {some}{more}", style="yellow", **AS_IT_IS
        )


def run_export(options: ExportConfig) -> int:
    """Write a folder that needs nothing outside of itself."""
    out = settle_new_folder(options.out, "--out")
    load_model(options).save_pretrained(out, self_contained=True)
    console.print(f"wrote {out}")
    return ExitCode.OK


def run_import(options: ImportConfig) -> int:
    """Convert one of the authors' released checkpoints into our folder format."""
    out = settle_new_folder(options.out, "--out")
    imported = import_published(options.source, out, overrides=overrides_of(options))
    for note in imported.notes:
        console.print(f"[yellow]note: {note}[/yellow]")
    console.print(f"wrote {imported.folder} ({', '.join(imported.modalities)})")
    return ExitCode.OK
