"""comparison.py: `viper compare`: runs on the same clips, and whether they differ by more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from viper_e2e.config import CompareConfig
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.report import (
    comparison_latex,
    comparison_markdown,
    comparison_note,
    comparison_tables,
    stdout_console,
)
from viper_e2e.runtime import (
    AS_IT_IS,
    console,
    count_of,
    plain_json,
    printable,
    settle_folder,
    versions,
    write_text,
)
from viper_e2e.scoring import compare, compared_record, on_common_clips, read_scored, readable


def run_compare(options: CompareConfig) -> int:
    """Compare runs with the first of them."""
    if len(options.runs) < 2:
        raise ViperError(f"{options.runs[0]}: only one run; name at least two")
    names = [name.strip() for name in options.names.split(",")] if options.names else names_of(options.runs)
    if len(names) != len(options.runs) or len(set(names)) < len(names):
        raise ViperError(f"--names {options.names}: give {len(options.runs)} different names, one for each run")
    if options.out is not None:
        settle_folder(Path(options.out), "--out")
    runs, notes = on_common_clips([read_scored(run) for run in options.runs], names)
    failed = sum(not all(rows) for rows in zip(*(run.valid.tolist() for run in runs), strict=True))
    notes += [f"{count_of(failed, 'clip')} could not be scored in all runs: left out"] if failed else []
    for note in notes:
        console.print(note, style="yellow", **AS_IT_IS)
    compared = compare(runs, seed=options.seed)
    if options.out is not None:
        tasks = {one.task.name: compared_record(one, names) for one in compared}
        record = {"runs": dict(zip(names, options.runs, strict=True)), "tasks": tasks, "notes": notes}
        record |= {"seed": options.seed, "versions": versions()}
        for ending, text in (
            ("json", plain_json.dumps(readable(record), indent=1) + "\n"),
            ("md", comparison_markdown(compared, names)),
            ("tex", comparison_latex(compared, names)),
        ):
            write_text(Path(options.out) / f"comparison.{ending}", text)
            console.print(f"wrote {Path(options.out) / f'comparison.{ending}'}", **AS_IT_IS)
    shown = stdout_console()
    for one in compared:
        for table in comparison_tables(one, names):
            shown.print(table)
            shown.print()
        shown.print(comparison_note(one))
        shown.print()
    return ExitCode.OK


def names_of(runs: Sequence[str]) -> list[str]:
    """The last parts of paths by which they differ, without what all of them share at their end."""
    parts = [Path(printable(run)).parts for run in runs]
    while all(len(one) > 1 for one in parts) and len({one[-1] for one in parts}) == 1:
        parts = [one[:-1] for one in parts]
    for length in range(1, max(map(len, parts)) + 1):
        found = ["/".join(one[-length:]) for one in parts]
        if len(set(found)) == len(found):
            return found
    raise ViperError(f"{runs[0]}: named twice; name different runs")
