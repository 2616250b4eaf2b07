"""train_commands.py: further commands with every option of `viper train`: words -> what they run."""

from __future__ import annotations

from collections.abc import Sequence

from viper_e2e.commands.command_line import parse, parse_beside_train
from viper_e2e.commands.parsing import parse_train
from viper_e2e.commands.scratch import keep_scratch_in_memory
from viper_e2e.config import AblateConfig, BenchConfig, CrossValConfig
from viper_e2e.runtime import without_collecting

# What is imported inside needs torch, and the words are read before.


def sweep(words: Sequence[str]) -> int:
    """`viper sweep`."""
    from viper_e2e.commands.sweeping import parse_sweep, run_sweep

    options, files, others = parse_sweep(words)
    keep_scratch_in_memory()
    return run_sweep(options, files, others, ["viper", "sweep", *words])


def cross_validate(words: Sequence[str]) -> int:
    """`viper cv`."""
    more = "Every option of viper train works too: --train-shards, --run-dir, --resume, --epochs, …"
    options, files, others = parse_beside_train(CrossValConfig, words, "viper cv", more)
    settings = parse_train(others, "viper cv", options, files)
    keep_scratch_in_memory()
    with without_collecting():
        from viper_e2e.commands.cross_validation import run_cv

    return run_cv(options, settings, words)


def ablate(words: Sequence[str]) -> int:
    """`viper ablate`; with ``--retrain`` its other options are those of a training."""
    if "--retrain" in words:
        from viper_e2e.commands.retraining import run_retraining

        keep_scratch_in_memory()
        return run_retraining([word for word in words if word != "--retrain"], ["viper", "ablate", *words])
    options = parse(AblateConfig, words, "viper ablate")
    with without_collecting():
        from viper_e2e.commands.ablation import run_ablate

    return run_ablate(options)


def bench(words: Sequence[str]) -> int:
    """`viper bench`."""
    more = "Every option of viper train works too: --preset, --num-workers, --batch-size, …"
    options, files, others = parse_beside_train(BenchConfig, words, "viper bench", more)
    # Nothing is written, so no run folder is needed; a name stands in for it.
    own = ["--train-shards", options.shards, "--run-dir", "none"]
    settings = parse_train([*others, *own], "viper bench", options, files)
    with without_collecting():
        from viper_e2e.commands.bench import run_bench
        from viper_e2e.shards import ShardSet
        from viper_e2e.training import limits_of

    return run_bench(settings, ShardSet(options.shards, limits=limits_of(settings)), options.seconds)
