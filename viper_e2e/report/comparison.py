"""comparison.py: runs compared, as tables for the terminal and as papers print them: Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import isnan

from rich.table import Table

from viper_e2e.report.tables import plain_table, rounded, task_title, with_interval
from viper_e2e.runtime import count_of
from viper_e2e.scoring import SMALLER_IS_BETTER, Compared, Difference
from viper_e2e.tasks import measure_title

LEVEL = 0.05
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {character: f"\\{character}" for character in "&%$#_{}"}


def comparison_tables(compared: Compared, names: Sequence[str]) -> list[Table]:
    """The runs' measures with their intervals; then the differences from the first, each with its p."""
    values = plain_table(task_title(compared.task), ("measure", *names))
    for m in compared.measures:
        cells = zip(compared.values, compared.intervals, strict=True)
        values.add_row(measure_title(m), *(with_interval(of_run[m], spans[m]) for of_run, spans in cells))
    differences = plain_table("", ("difference", *(f"{name} − {names[0]}" for name in names[1:])))
    for m in compared.measures:
        signed = [_signed(from_first[m], is_corrected(compared)) for from_first in compared.differences]
        differences.add_row(measure_title(m), *signed)
    return [values, differences]


def comparison_note(compared: Compared) -> str:
    """Note below the tables of a comparison: their clips, and the method."""
    few = f" ({compared.caution}, and p is smaller than it should be)" if compared.caution else ""
    return (
        f"{count_of(compared.num_clips, 'clip')}; 95 % intervals and p (two-sided, of each "
        "difference by itself) by a paired "
        f"bootstrap over {compared.over}{few}"
    ) + (
        "; Holm: p after Holm's correction over the "
        f"{count_of(len(compared.differences), 'run')} compared in each measure"
        if is_corrected(compared)
        else ""
    )


def is_corrected(compared: Compared) -> bool:
    """Whether there are several differences to be right about at once."""
    return len(compared.differences) > 1


def _signed(difference: Difference, corrected: bool) -> str:
    if isnan(difference.value):
        return "–"
    low, high = (_with_sign(end) for end in (difference.interval.low, difference.interval.high))
    holm = f", Holm {p_value(difference.p_holm)}" if corrected else ""
    return f"{_with_sign(difference.value)} [{low}, {high}]  p {p_value(difference.p)}{holm}"


def _with_sign(value: float) -> str:
    shown = rounded(value)
    return shown if shown.startswith("-") or float(shown) == 0 else f"+{shown}"


def p_value(p: float) -> str:
    """``= .013``, or ``< .001``."""
    if isnan(p):
        return "–"
    return "< .001" if p < 0.001 else f"= {p:.3f}".replace("0.", ".", 1)


# --- as papers print them -------------------------------------------------------------------------


def comparison_markdown(compared: Sequence[Compared], names: Sequence[str]) -> str:
    """A table per task: the best value of each measure bold, a star where it differs from the first run's."""
    return "\n".join(_markdown(one, names) for one in compared)


def _markdown(compared: Compared, names: Sequence[str]) -> str:
    titles = [measure_title(measure) + _arrow(measure, "↑", "↓") for measure in compared.measures]
    cells = _cells(compared, lambda text: f"**{text}**", "\\*")
    lines = [
        "| " + " | ".join(["run", *titles]) + " |",
        "| :-- |" + " --: |" * len(titles),
        *("| " + " | ".join([_piped(name), *row]) + " |" for name, row in zip(names, cells, strict=True)),
    ]
    p = "p after Holm" if is_corrected(compared) else "p"
    stars = f"\\* differs from {_piped(names[0])} ({p} < {LEVEL:g})".replace("0.", ".")
    return (
        f"**{task_title(compared.task)}**\n\n"
        + "\n".join(lines)
        + f"\n\n{comparison_note(compared)}; {stars}.\n"
    )


def comparison_latex(compared: Sequence[Compared], names: Sequence[str]) -> str:
    """The same with the rules of the package booktabs."""
    return "% needs \\usepackage{booktabs}\n" + "\n".join(_latex(one, names) for one in compared)


def _latex(compared: Compared, names: Sequence[str]) -> str:
    titles = [
        measure_title(measure) + _arrow(measure, r" $\uparrow$", r" $\downarrow$")
        for measure in compared.measures
    ]
    cells = _cells(compared, lambda text: rf"\textbf{{{text}}}", "$^{*}$")
    note = latex_text(f"{task_title(compared.task)}: {comparison_note(compared)}").replace("−", "$-$")
    after = " after Holm" if is_corrected(compared) else ""
    stars = rf"$^{{*}}$ differs from {latex_text(names[0])} ($p < {LEVEL:g}${after})"
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \begin{{tabular}}{{l{'r' * len(titles)}}}",
            r"    \toprule",
            "    " + " & ".join(["run", *titles]) + r" \\",
            r"    \midrule",
            *(
                "    " + " & ".join([latex_text(name), *row]) + r" \\"
                for name, row in zip(names, cells, strict=True)
            ),
            r"    \bottomrule",
            r"  \end{tabular}",
            rf"  \caption{{{note}; {stars}.}}",
            r"\end{table}",
            "",
        ]
    )


def _cells(compared: Compared, bold: Callable[[str], str], star: str) -> list[list[str]]:
    rows = []
    for number, values in enumerate(compared.values):
        row = []
        for measure in compared.measures:
            value = values[measure]
            best = _best([of_run[measure] for of_run in compared.values], measure)
            text = "–" if isnan(value) else rounded(value)
            differs = number > 0 and compared.differences[number - 1][measure].p_holm < LEVEL
            row.append((bold(text) if text == best else text) + (star if differs else ""))
        rows.append(row)
    return rows


def _best(values: Sequence[float], measure: str) -> str:
    known = [value for value in values if not isnan(value)]
    if not known:
        return ""
    return rounded(min(known) if measure in SMALLER_IS_BETTER else max(known))


def _arrow(measure: str, up: str, down: str) -> str:
    return down if measure in SMALLER_IS_BETTER else up


def _piped(name: str) -> str:
    return name.replace("|", "\\|")


def latex_text(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return re.sub(r"[\\~^&%$#_{}]", lambda found: _LATEX[found[0]], text)
