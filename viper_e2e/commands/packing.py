"""packing.py: `viper pack`: clips and a table of labels -> shards, and the report of what was packed."""

from __future__ import annotations

from pathlib import Path

from viper_e2e.commands.findings import tell_findings
from viper_e2e.config import PackConfig
from viper_e2e.errors import ViperError
from viper_e2e.packing import ColumnChoices, pack, read_tasks
from viper_e2e.runtime import counting as progress_bar
from viper_e2e.runtime import settle_file

TABLES = (".csv", ".tsv", ".txt", ".xlsx", ".xlsm", ".xls")


def run_pack(options: PackConfig) -> int:
    """Pack, print the report, and return the exit code: 2 where clips were left out."""
    if options.output:
        settle_file(options.output, "--output")
    labels, choices = _table_of(options)
    more = {"max_bytes": options.max_bytes.num_bytes} if options.max_bytes is not None else {}
    with progress_bar("packing") as progress:
        report = pack(
            Path(options.videos),
            labels,
            Path(options.out),
            choices=choices,
            audio=Path(options.audio) if options.audio else None,
            fau=Path(options.fau) if options.fau else None,
            shard_size=options.shard_size.num_bytes,
            seed=options.seed,
            overwrite=options.overwrite,
            progress=progress,
            subtitles=not options.no_subtitles,
            transcribe=options.transcribe,
            language=options.language,
            **more,
        )
    return tell_findings(report, options.output)


def _table_of(options: PackConfig) -> tuple[Path, ColumnChoices]:
    """The table that ``--labels`` names, and what was said of its columns."""

    def titles(given: list[str]) -> tuple[str, ...]:
        return tuple(title.strip() for words in given for title in words.split(",") if title.strip())

    tables = [word for word in options.labels if Path(word).suffix.lower() in TABLES or Path(word).is_file()]
    tables = tables or options.labels[:1]
    if len(tables) > 1:
        raise ViperError(f"--labels: one table is packed at a time, not {' and '.join(tables)}")
    choices = ColumnChoices(
        labels=titles([word for word in options.labels if word not in tables]),
        ignore=titles(options.ignore),
        meta=titles(options.meta),
        tasks=read_tasks(options.tasks) if options.tasks else (),
        missing=titles(options.missing),
        id_column=options.id_column,
        split_column=options.split_column,
        subject_column=options.subject_column,
        split=options.split,
        encoding=options.encoding,
        sheet=options.sheet,
    )
    return Path(tables[0]), choices
