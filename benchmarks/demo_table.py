"""demo_table.py: what sight, hearing and both are worth on the demo corpus, between a floor and a ceiling.

    python benchmarks/demo_table.py --out runs/table [--seeds 3] [--epochs 15] [--parallel 2]
                                    [--corpus demo/corpus] [--markdown table.md] [--json table.json]

Separate trainings of the `tiny` preset from scratch, by `train.py`: with `visual`, with `audio` and with both
modalities, for the same number of epochs, each with several seeds; each one's best epoch on validation clips is
scored by `viper eval` on test clips, whose subjects, voices, light and strengths of expression come from ranges
that training never saw. The floor is the same training (both modalities) on labels exchanged among the training
and validation clips. The ceiling is a ridge regression from what the generator knows each clip to show.

Mean Pearson over the seven emotions: mean ± standard deviation over seeds; intervals are bootstrapped over test
clips, of the mean over seeds. `gap` is what both have over that row, on the same resamples.

Everything lies under `--out`: corpus (unless `--corpus` names one), shards, runs, scores and logs. What is
finished is not done again, so a broken-off run goes on when the command is repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from viper_e2e.config import PRESETS, TRAIN_DEFAULTS, plain
from viper_e2e.errors import ViperError
from viper_e2e.model import Predictions
from viper_e2e.report import stdout_console
from viper_e2e.scoring import bootstrap

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "datasets"))  # recipes are run by path, not installed
import demo  # noqa: E402

ROWS = {
    "visual": "visual",
    "audio": "audio",
    "both": "visual,audio",
    "floor (labels exchanged)": "visual,audio",
}
FLOOR, CEILING = "floor (labels exchanged)", "ceiling (ridge on the generator's parameters)"
VIPER = [sys.executable, "-c", "import sys; from viper_e2e.commands.cli import main; sys.exit(main())"]
NUM_RESAMPLES = 1000


@dataclass(frozen=True)
class Job:
    """One training and its scores."""

    row: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.row.split()[0]}-seed-{self.seed}"


@dataclass(frozen=True)
class Score:
    """One row of the table."""

    row: str
    per_seed: list[float]
    low: float
    high: float
    pearson: dict[str, float]
    """Per emotion, mean over seeds."""
    gap: float | None = None
    """Both minus this row."""
    gap_low: float | None = None
    gap_high: float | None = None

    @property
    def mean(self) -> float:
        return float(np.mean(self.per_seed))

    def cells(self) -> tuple[str, ...]:
        sd = f" ± {np.std(self.per_seed, ddof=1):.3f}" if len(self.per_seed) > 1 else ""
        gap = "" if self.gap is None else f"{self.gap:.3f} [{self.gap_low:.3f}, {self.gap_high:.3f}]"
        return self.row, f"{self.mean:.3f}{sd}", f"[{self.low:.3f}, {self.high:.3f}]", gap


COLUMNS = ("trained on", "mean Pearson", "95 % interval", "gap to both")


# --- the trainings ------------------------------------------------------------------------------


def main() -> None:
    options = _options()
    started = time.monotonic()
    try:
        _claim(options)
        corpus = _corpus(options)
        shards = {
            False: _shards(options, corpus, exchanged=False),
            True: _shards(options, corpus, exchanged=True),
        }
        jobs = [Job(row, seed) for seed in range(options.seeds) for row in ROWS]
        _run_all(jobs, shards, options)
        scores = _scores(jobs, corpus, options)
    except ViperError as error:
        sys.exit(f"demo_table.py: {error}")
    stdout_console().print(_table(scores, options))
    _write(scores, options, time.monotonic() - started)


def _claim(options: argparse.Namespace) -> None:
    """Refuse a folder that holds runs of other settings."""
    settings = {
        "epochs": options.epochs,
        "threads": options.threads,
        "corpus": options.corpus and str(options.corpus.resolve()),
        "model": plain(PRESETS["tiny"]()),
        "train": plain(TRAIN_DEFAULTS["tiny"]),
    }
    settings = json.loads(json.dumps(settings))
    path = options.out / "settings.json"
    if path.exists():
        if json.loads(path.read_text()) != settings:
            raise ViperError(f"{options.out}: holds runs with other settings; name another --out")
        return
    if options.out.exists() and any(options.out.iterdir()):
        raise ViperError(f"{options.out}: holds something else; name another --out")
    options.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=2) + "\n")


def _corpus(options: argparse.Namespace) -> Path:
    corpus = options.corpus or options.out / "corpus"
    if not (corpus / "labels.csv").exists():
        _call([sys.executable, str(ROOT / "datasets/demo.py"), "--out", str(corpus)], options, "corpus")
    return corpus


def _shards(options: argparse.Namespace, corpus: Path, *, exchanged: bool) -> Path:
    """The packed corpus, as it is or with labels exchanged among the clips that are not for testing."""
    shards = options.out / ("shards-exchanged" if exchanged else "shards")
    if not shards.exists():
        labels = corpus / "labels.csv"
        if exchanged:
            labels = _exchange(labels, options.out / "labels-exchanged.csv")
        words = ["pack", "--videos", str(corpus / "videos"), "--labels", str(labels), "--out", str(shards)]
        _call([*VIPER, *words], options, shards.name)
    return shards


def _exchange(labels: Path, out: Path) -> Path:
    with labels.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = [row for row in rows if row["Split"] != "test"]
    order = np.random.default_rng(0).permutation(len(kept))
    values = [{emotion: kept[i][emotion] for emotion in demo.EMOTIONS} for i in order]
    for row, other in zip(kept, values, strict=True):
        row.update(other)
    _write_rows(out, rows)
    return out


def _write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def _run_all(jobs: list[Job], shards: dict[bool, Path], options: argparse.Namespace) -> None:
    columns = (TextColumn("trainings"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar, ThreadPoolExecutor(options.parallel) as pool:
        task = bar.add_task("", total=len(jobs))
        done = [pool.submit(_run, job, shards[job.row == FLOOR], options) for job in jobs]
        for future in done:
            try:
                future.result()
            except ViperError:
                pool.shutdown(cancel_futures=True)
                raise
            bar.advance(task)


def _run(job: Job, shards: Path, options: argparse.Namespace) -> None:
    """Train and score, unless that was done before."""
    run, scores = options.out / "runs" / job.name, options.out / "scores" / job.name
    if (scores / "metrics.json").exists():
        return
    words = {
        "preset": "tiny",
        "modalities": ROWS[job.row],
        "train-shards": f"{shards}/train-*.tar",
        "val-shards": f"{shards}/val-*.tar",
        "run-dir": str(run),
        "epochs": str(options.epochs),
        "seed": str(job.seed),
        "reuse-memory": "2GB",
        "num-workers": "1",
    }
    resume = ["--resume"] if run.exists() else []
    train = [f"--{name}={value}" for name, value in words.items()]
    _call([sys.executable, str(ROOT / "train.py"), *train, *resume], options, job.name)
    best = str(run / "checkpoints" / "best")
    words = ["--checkpoint", best, "--shards", f"{shards}/test-*.tar", "--out", str(scores)]
    _call([*VIPER, "eval", *words], options, job.name)


def _call(command: list[str], options: argparse.Namespace, name: str) -> None:
    """Run a command, its output in a log."""
    log = options.out / "logs" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("a") as file:
        environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
        code = subprocess.run(command, stdout=file, stderr=file, env=environment).returncode
    if code:
        lines = log.read_text().strip().splitlines() or [""]
        raise ViperError(f"{name}: exit code {code}: {lines[-1]} (all of it: {log})")


# --- the table ----------------------------------------------------------------------------------


def _scores(jobs: list[Job], corpus: Path, options: argparse.Namespace) -> list[Score]:
    predicted: dict[str, list[np.ndarray]] = {row: [] for row in ROWS}
    true = None
    for job in jobs:
        predictions = Predictions.read_csv(options.out / "scores" / job.name / "predictions.csv")
        if not predictions.scored.all():
            raise ViperError(f"{job.name}: some test clips were not scored; see {options.out / 'logs'}")
        order = np.argsort(predictions.keys)
        assert true is None or np.array_equal(true, predictions.true[order])
        true = predictions.true[order]
        predicted[job.row].append(predictions.predicted[order])
    best, best_true = demo.regression(corpus / "parameters.csv", corpus / "labels.csv")
    scores = [_score(row, values, true, predicted["both"]) for row, values in predicted.items()]
    return [*scores, _score(CEILING, [best], best_true, None)]


def _score(row: str, predicted: list[np.ndarray], true: np.ndarray, both: list[np.ndarray] | None) -> Score:
    per_seed = [float(correlations(values, true).mean()) for values in predicted]
    # Seeds side by side as columns: one resample of clips for all, and the mean over columns is over seeds too.
    interval = bootstrap(np.concatenate(predicted, 1), np.tile(true, (1, len(predicted)))).mean_pearson
    pearson = np.mean([correlations(values, true) for values in predicted], 0)
    by_emotion = dict(zip(demo.EMOTIONS, pearson.tolist(), strict=True))
    gaps: tuple[float, ...] = ()
    if both is not None and row in ("visual", "audio"):
        rng = np.random.default_rng(0)
        everything = np.arange(len(true))
        draws = [rng.integers(len(true), size=len(true)) for _ in range(NUM_RESAMPLES)]
        gap = [_mean(both, true, rows) - _mean(predicted, true, rows) for rows in [everything, *draws]]
        gaps = (gap[0], *(float(value) for value in np.quantile(gap[1:], [0.025, 0.975])))
    return Score(row, per_seed, interval.low, interval.high, by_emotion, *gaps)


def _mean(predicted: list[np.ndarray], true: np.ndarray, rows: np.ndarray) -> float:
    return float(np.mean([correlations(values[rows], true[rows]) for values in predicted]))


def correlations(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Pearson of each column, `N E` → `E`."""
    x, y = predicted - predicted.mean(0), true - true.mean(0)
    return (x * y).sum(0) / np.sqrt((x * x).sum(0) * (y * y).sum(0))


def _table(scores: list[Score], options: argparse.Namespace) -> Table:
    table = Table(title=f"demo corpus, {options.seeds} seeds, {options.epochs} epochs", title_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == COLUMNS[0] else "right", no_wrap=True)
    for score in scores:
        table.add_row(*score.cells())
    return table


def _write(scores: list[Score], options: argparse.Namespace, seconds: float) -> None:
    if options.markdown:
        rows = [COLUMNS, (":--", "--:", "--:", "--:"), *(score.cells() for score in scores)]
        options.markdown.write_text("".join(f"| {' | '.join(row)} |\n" for row in rows))
        print(f"wrote {options.markdown}")
    if options.json:
        record = {
            "date": date.today().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
            "seconds": round(seconds),
            "epochs": options.epochs,
            "rows": [asdict(score) | {"mean": score.mean} for score in scores],
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")
        print(f"wrote {options.json}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0].split(": ", 1)[1])
    parser.add_argument("--out", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--corpus", type=Path, help="demo corpus (default: made under --out)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings per row (default 3)")
    parser.add_argument("--epochs", type=int, default=TRAIN_DEFAULTS["tiny"]["epochs"], help="of each training")
    parser.add_argument("--parallel", type=int, default=2, help="trainings at a time (default 2)")
    parser.add_argument("--threads", type=int, default=1, help="of each training (default 1)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table for a document")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every number")
    return parser.parse_args()


if __name__ == "__main__":
    main()
