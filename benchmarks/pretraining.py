"""pretraining.py: whether clips without labels help the default head where few have labels.

    python benchmarks/pretraining.py --weights ../shared/weights --out runs/learning
        [--labelled 64] [--draws 3] [--only default,masked,…]

Corpus and frozen tokens are those of `learning.py`, in the same OUT. Of its 640 training clips 64 keep their
labels: the first 64, the second 64, … are draws. `VARIANTS` use all 640 in some other way first; then every
network learns the 64 as `--preset base` teaches it: 20 epochs, the weights that validate best. Networks are
taught one by one, the hidden layer on standardised features from its first step on, and the answer is joined as
`EnsembleFusion` joins it. A row is the mean Pearson correlation on 160 clips of people in no other split.

A draw moves the score by more than a seed does, so each has its own seed and a gain has to show on the mean of
several. Rows go into OUT/pretraining.jsonl; those that are there are not computed again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from learning import known, make_corpus, settings_of, tokens_of
from learning_variants import VARIANTS as READINGS
from pretraining_clips import read, score
from pretraining_draw import EPOCHS, SPLITS, VARIANTS, Draw

from viper_e2e.model import ViPER
from viper_e2e.runtime import console, table
from viper_e2e.shards import ShardSet


def measure(draw: Draw, key: str) -> dict[str, Any]:
    began, variant = time.perf_counter(), VARIANTS[key]
    whole = draw.answers(variant)
    parts = {
        part: score(draw.part(part, start)["test"], draw.splits["test"])
        for part, start in vars(variant).items()
        if part != "name"
    }
    return {
        "mean_pearson": score(whole["test"], draw.splits["test"]),
        "val": score(whole["val"], draw.splits["val"]),
        "parts": parts,
        "seconds": time.perf_counter() - began,
    }


def print_table(results: Mapping[str, Mapping[str, Any]], draws: int) -> None:
    lines = []
    for key, variant in VARIANTS.items():
        measured = [i for i in range(draws) if f"{key}/{i}" in results and f"default/{i}" in results]
        rows = [results[f"{key}/{i}"] for i in measured]
        gains = [
            results[f"{key}/{i}"]["mean_pearson"] - results[f"default/{i}"]["mean_pearson"] for i in measured
        ]
        if rows:
            each = " ".join(f"{row['mean_pearson']:.3f}" for row in rows)
            parts = " ".join(f"{fmean(row['parts'][part] for row in rows):.3f}" for part in rows[0]["parts"])
            lines.append(
                (variant.name, each, f"{fmean(row['val'] for row in rows):.3f}", f"{fmean(gains):+.3f}", parts)
            )
    titles = (
        "uses the clips without labels for",
        "each draw",
        "validation",
        "gain",
        "ridge, hidden layer, Perceiver",
    )
    console.print(table("mean Pearson on unseen subjects", titles, lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="as for learning.py")
    parser.add_argument("--out", type=Path, required=True, help="as for learning.py")
    parser.add_argument("--labelled", type=int, default=64, help="clips with labels in each draw")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--only", default=",".join(VARIANTS), help=f"some of {', '.join(VARIANTS)}")
    options = parser.parse_args()
    options.clips, options.epochs = [], EPOCHS
    options.out.mkdir(parents=True, exist_ok=True)
    make_corpus(options)
    file = options.out / "pretraining.jsonl"
    settings = settings_of(
        options, READINGS["default"], options.out / "none", f"{options.out}/shards/train-*.tar"
    )
    module, prepared = ViPER(settings.model).eval(), tokens_of(options)
    shards = {split: ShardSet(f"{options.out}/shards/{split}-*.tar") for split in SPLITS}
    splits = {split: read(module, shards[split], prepared[split]) for split in SPLITS}
    for number in range(options.draws):
        missing = [key for key in options.only.split(",") if f"{key}/{number}" not in known(file)]
        draw = Draw(module, settings.train, splits, number, options.labelled) if missing else None
        for key in missing:
            row = {"key": f"{key}/{number}", **measure(draw, key)}
            with file.open("a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")
            console.print(f"{row['key']}: {row['mean_pearson']:.4f} in {row['seconds']:.0f} s")
    print_table(known(file), options.draws)


if __name__ == "__main__":
    main()
