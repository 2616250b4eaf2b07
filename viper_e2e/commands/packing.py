"""packing.py: `viper pack`: clips and a table of labels -> shards, and the report of what was packed."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import replace
from pathlib import Path

from viper_e2e.commands.findings import tell_findings
from viper_e2e.config import PackConfig
from viper_e2e.errors import ViperError
from viper_e2e.packing import (
    WINDOW_SECONDS,
    PackOptions,
    PackReport,
    frame_label_table,
    pack,
    shards_in_the_way,
)
from viper_e2e.runtime import AS_IT_IS, all_of, console, settle_file
from viper_e2e.runtime import counting as progress_bar
from viper_e2e.tables import AskedTasks, ColumnChoices, read_tasks, write_labels

TABLES = (".csv", ".tsv", ".txt", ".xlsx", ".xlsm", ".xls", ".parquet")


def run_pack(options: PackConfig) -> int:
    """Pack, print the report, and return the exit code: 2 where clips were left out."""
    if options.output:
        settle_file(options.output, "--output")
    with tempfile.TemporaryDirectory() as scratch:
        labels, choices, notes = _table_of(options, Path(scratch))
        with progress_bar("packing") as progress:
            how = _pack_options(options, choices)
            report = pack(Path(options.videos), labels, Path(options.out), how, progress=progress)
    report = replace(report, notes=(*notes, *report.notes))
    code = tell_findings(report, options.output)
    tell_next(report)
    return code


def _pack_options(options: PackConfig, choices: ColumnChoices) -> PackOptions:
    more = {"max_bytes": options.max_bytes.num_bytes} if options.max_bytes is not None else {}
    return PackOptions(
        choices=choices,
        audio=Path(options.audio) if options.audio else None,
        fau=Path(options.fau) if options.fau else None,
        shard_size=options.shard_size.num_bytes,
        seed=options.seed,
        overwrite=options.overwrite,
        subtitles=not options.no_subtitles,
        transcribe=options.transcribe,
        language=options.language,
        words_language=options.words_language,
        dry_run=options.dry_run,
        **more,
    )


def tell_next(report: PackReport) -> None:
    """Commands to run next on the shards."""
    if report.is_dry:
        console.print("next: the same command without --dry-run", **AS_IT_IS)
        return
    shards = {split.split: f"{report.out}/{split.split}-*.tar" for split in report.splits if split.shards}
    commands = [["viper", "check", "--shards", f"{report.out}/*.tar"]]
    if "train" in shards:
        val = ["--val-shards", shards["val"]] if "val" in shards else ["--inner-val", "0.1"]
        commands.append(["viper", "train", "--train-shards", shards["train"], *val, "--run-dir", "RUN"])
    for words in commands:
        console.print(f"next: {shlex.join(words)}", **AS_IT_IS)


def _table_of(options: PackConfig, scratch: Path) -> tuple[Path, ColumnChoices, tuple[str, ...]]:
    """The table that ``--labels`` names, what was said of its columns, and what to report about it."""

    def titles(given: list[str]) -> tuple[str, ...]:
        return tuple(title.strip() for words in given for title in words.split(",") if title.strip())

    tables = [word for word in options.labels if Path(word).suffix.lower() in TABLES or Path(word).is_file()]
    tables = tables or options.labels[:1]
    if len(tables) > 1:
        raise ViperError(f"--labels: one table is packed at a time, not {all_of(tables)}")
    asked = read_tasks(options.tasks) if options.tasks else AskedTasks()
    choices = ColumnChoices(
        labels=titles([word for word in options.labels if word not in tables]),
        ignore=titles(options.ignore),
        meta=titles(options.meta),
        tasks=asked.columns,
        combined=asked.combined,
        missing=titles(options.missing),
        id_column=options.id_column,
        split_column=options.split_column,
        subject_column=options.subject_column,
        split=options.split,
        encoding=options.encoding,
        sheet=options.sheet,
    )
    if Path(tables[0]).is_dir():
        return _of_frame_labels(Path(tables[0]), options, choices, scratch)
    if options.window_seconds is not None:
        raise ViperError("--window-seconds: goes with a folder of labels by frame, e.g. --labels VA_Set")
    return Path(tables[0]), choices, ()


def _of_frame_labels(
    folder: Path, options: PackConfig, choices: ColumnChoices, scratch: Path
) -> tuple[Path, ColumnChoices, tuple[str, ...]]:
    """The table that a folder of labels by frame comes to, written beside the shards, and its tasks."""
    out = Path(options.out)
    shards_in_the_way(out, options.overwrite)  # before the table of that run is replaced
    window_seconds = WINDOW_SECONDS if options.window_seconds is None else options.window_seconds
    made = frame_label_table(folder, Path(options.videos), window_seconds=window_seconds, split=options.split)
    if not made.rows:
        raise ViperError(f"{folder}: no window has a label, or no label file has a video in {options.videos}")
    table = (scratch if options.dry_run else out) / "labels.csv"
    write_labels(table, made.rows)
    return table, replace(choices, tasks=choices.tasks or made.tasks, split=""), made.notes
