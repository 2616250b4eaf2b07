"""comparing.py: several predictions of the same clips, compared by a paired bootstrap over subjects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from viper_e2e.errors import ViperError
from viper_e2e.labels import are_alike, differing, order_of
from viper_e2e.model import Predictions
from viper_e2e.runtime import all_of, count_of, first_of
from viper_e2e.scoring.bootstrap import Interval, Over, drawn, finite_or_none, interval_of, resamples
from viper_e2e.scoring.task_scores import Ruler, rulers
from viper_e2e.tasks import Task

NUM_RESAMPLES = 2000
MAX_NAMES = 5


@dataclass(frozen=True)
class Difference:
    """Difference of a run from the first one in one measure."""

    value: float
    interval: Interval
    """95 %, of the difference itself."""
    p: float
    """p of no difference, two-sided: twice the share of resamples on the other side of 0 (Efron and Tibshirani
    1993); never below one in their number."""
    p_holm: float
    """The same after Holm's correction (1979) over all runs that are compared in this measure."""


@dataclass(frozen=True)
class Compared:
    """One task of all runs, on the clips that all of them have scored."""

    task: Task
    num_clips: int
    over: Over
    """Units that are drawn."""
    caution: str
    """See `Drawn`."""
    values: tuple[Mapping[str, float], ...]
    """Values of each run: measure → value."""
    intervals: tuple[Mapping[str, Interval], ...]
    differences: tuple[Mapping[str, Difference], ...]
    """Differences of each run after the first."""
    num_drawn: int
    """How many subjects, or clips, there are to draw."""

    @property
    def measures(self) -> tuple[str, ...]:
        return tuple(self.values[0])


def on_common_clips(runs: Sequence[Predictions], names: Sequence[str]) -> tuple[list[Predictions], list[str]]:
    """The clips that all runs have, in the order of the first, and notes on the others.

    `ViperError` where runs have other labels, for the set or for a clip, or no clip in common.
    """
    ordered = _with_columns_of_first(runs, names)
    for name, run in zip(names, runs, strict=True):
        if twice := len(run.keys) - len(set(run.keys)):
            raise ViperError(
                f"{name}: {count_of(twice, 'clip is', 'clips are')} in it twice and cannot be matched by name"
            )
    common = set(runs[0].keys).intersection(*(run.keys for run in runs))
    if not common:
        raise ViperError(f"{all_of(names)} have no clip in common; compare runs on the same shards")
    keys = [key for key in runs[0].keys if key in common]
    notes = [
        f"{name}: {len(run) - len(keys)} of its {len(run)} clips are not in all runs: left out"
        for name, run in zip(names, runs, strict=True)
        if len(run) > len(keys)
    ]
    kept = [run.only(np.array([key in common for key in run.keys])) for run in ordered]
    rows = [Predictions.joined([run], keys) for run in kept]
    for name, run in zip(names[1:], rows[1:], strict=True):
        _check_same_labels(name, run, names[0], rows[0])
    return rows, [*notes, *_other_subjects(rows, names)]


def _with_columns_of_first(runs: Sequence[Predictions], names: Sequence[str]) -> list[Predictions]:
    """Labels in one order, measured as all of them are."""
    labels = runs[0].labels
    for run in runs[1:]:
        labels = labels.measured_as(run.labels)
    first = replace(runs[0], labels=labels)
    ordered = [first]
    for name, run in zip(names[1:], runs[1:], strict=True):
        if not are_alike(run.labels, first.labels):
            raise ViperError(differing(name, run.labels, names[0], first.labels))
        order = order_of(run.labels.names, first.labels.names)
        assert order is not None, "they are alike"
        columns = list(order)
        ordered.append(
            replace(
                run,
                labels=first.labels.with_thresholds(run.labels.thresholds),
                predicted=run.predicted[:, columns],
                true=run.true[:, columns],
            )
        )
    return ordered


def _check_same_labels(name: str, run: Predictions, first_name: str, first: Predictions) -> None:
    """`ViperError` where clips of the same names, in the same order, have other labels."""
    other = ~np.isclose(run.true, first.true, equal_nan=True).all(1)
    if other.any():
        some = [key for key, differs in zip(run.keys, other, strict=True) if differs]
        raise ViperError(
            f"{name}: {len(some)} of {len(run.keys)} clips have other labels than in {first_name}: "
            f"{first_of(some, MAX_NAMES)}; are these other clips, or were they labelled again?"
        )


def _other_subjects(runs: Sequence[Predictions], names: Sequence[str]) -> Iterator[str]:
    """A line for each run in which clips are of the same people otherwise than in the first that knows them."""
    known = [
        (name, run.subjects)
        for name, run in zip(names, runs, strict=True)
        if run.subjects and None not in run.subjects
    ]
    for name, subjects in known[1:]:
        first, drawn = known[0]
        # People may have other names; who is whom must be the same.
        pairs = set(zip(subjects, drawn, strict=True))
        if not len(pairs) == len(set(subjects)) == len(set(drawn)):
            yield f"{name}: its clips have other subjects than in {first}; the bootstrap draws those of {first}"


def compare(
    runs: Sequence[Predictions], *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> list[Compared]:
    """Every task of runs on the same clips, as `on_common_clips` gives them."""
    usable = np.logical_and.reduce([run.scored for run in runs])
    known = [run.subjects for run in runs if run.subjects]
    subjects = next((each for each in known if None not in each), known[0] if known else None)
    people = None if subjects is None else np.array(subjects, object)
    of_tasks = zip(*(rulers(run.labels) for run in runs), strict=True)
    return [_compared(of_runs, runs, usable, people, num_resamples, seed) for of_runs in of_tasks]


def _compared(
    of_runs: Sequence[Ruler],
    runs: Sequence[Predictions],
    usable: Bool[np.ndarray, "N"],
    subjects: np.ndarray | None,
    num_resamples: int,
    seed: int,
) -> Compared:
    task, true = of_runs[0].task, runs[0].true
    known = usable & of_runs[0].known(true)
    if known.sum() < 2:
        raise ViperError(f"{task.name}: fewer than two labelled clips that all runs have scored")
    sums = [
        ruler.clip_sums(run.predicted[known], true[known]) for ruler, run in zip(of_runs, runs, strict=True)
    ]
    of_each = [drawn(of_run, None if subjects is None else subjects[known]) for of_run in sums]
    groups = [of_run.sums for of_run in of_each]
    values = [_alone(of_runs[0], of_run) for of_run in groups]
    draws: list[list[Mapping[str, np.ndarray]]] = [[] for _ in runs]
    # One and the same resample for all: what is hard about its clips is hard for every run.
    for counts in resamples(len(groups[0]), num_resamples, seed):
        for of_run, found in zip(groups, draws, strict=True):
            found.append(of_runs[0].measured(counts @ of_run).values)
    together = [{name: np.concatenate([one[name] for one in found]) for name in found[0]} for found in draws]
    differences = [
        {name: _difference(values[0], together[0], value, of_run, name) for name in value}
        for value, of_run in zip(values[1:], together[1:], strict=True)
    ]
    return Compared(
        task,
        int(known.sum()),
        of_each[0].over,
        of_each[0].caution,
        tuple(values),
        tuple({name: interval_of(of_run[name], 0.95) for name in of_run} for of_run in together),
        tuple(_corrected(differences)),
        len(groups[0]),
    )


def _corrected(found: Sequence[Mapping[str, Difference]]) -> list[dict[str, Difference]]:
    """Differences of runs with what Holm makes of their p: each measure is a family of its own."""
    corrected = {name: holm([of_run[name].p for of_run in found]) for name in found[0]}
    return [
        {name: replace(one, p_holm=corrected[name][place]) for name, one in of_run.items()}
        for place, of_run in enumerate(found)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): the chance of any false difference among all is at most each value.

    What is NaN stays so and is not counted.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if not np.isnan(p))
    made, largest = [float("nan")] * len(p_values), 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        made[place] = largest
    return made


def _alone(ruler: Ruler, groups: Float[np.ndarray, "G S"]) -> dict[str, float]:
    return {name: float(value[0]) for name, value in ruler.measured(groups.sum(0)[None]).values.items()}


def _difference(
    first: Mapping[str, float],
    first_drawn: Mapping[str, np.ndarray],
    value: Mapping[str, float],
    drawn: Mapping[str, np.ndarray],
    name: str,
) -> Difference:
    differences = drawn[name] - first_drawn[name]
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        nan = float("nan")
        return Difference(value[name] - first[name], Interval(nan, nan), nan, nan)
    beyond = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    p = min(1.0, 2 * (beyond + 1) / (len(differences) + 1))
    return Difference(value[name] - first[name], interval_of(differences, 0.95), p, p)


def compared_record(compared: Compared, names: Sequence[str]) -> dict[str, Any]:
    """Record for JSON; undefined values become ``None``."""
    return {
        "kind": compared.task.kind,
        "num_clips": compared.num_clips,
        "intervals_over": compared.over,
        f"num_{compared.over}": compared.num_drawn,
        **({"intervals_caution": compared.caution} if compared.caution else {}),
        "runs": {
            name: {
                measure: {"value": finite_or_none(value), "interval_95": _pair(intervals[measure])}
                for measure, value in values.items()
            }
            for name, values, intervals in zip(names, compared.values, compared.intervals, strict=True)
        },
        f"difference_from_{names[0]}": {
            name: {
                measure: {
                    "value": finite_or_none(one.value),
                    "interval_95": _pair(one.interval),
                    "p": finite_or_none(one.p),
                    "p_holm": finite_or_none(one.p_holm),
                }
                for measure, one in differences.items()
            }
            for name, differences in zip(names[1:], compared.differences, strict=True)
        },
    }


def _pair(interval: Interval) -> list[float | None]:
    return [finite_or_none(interval.low), finite_or_none(interval.high)]
