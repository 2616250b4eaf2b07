"""mutation_check.py: whether tests notice: changes chosen lines of the core one at a time and runs their tests.

``python tests/mutation_check.py`` prints a line a change and ends with 1 if more than two were not noticed. The
changes are made in a copy. ``--only WORD`` takes those whose file has this word in its name.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = 2
"""So many of them may stay unnoticed."""


class Mutation(NamedTuple):
    file: str
    before: str
    after: str
    tests: str


MUTATIONS = [
    Mutation("loading/order.py", "min(start + self._window, self._total)", "self._total", "order"),
    Mutation(
        "loading/order.py", "self._entropy = [seed, epoch, *stream]", "self._entropy = [seed, *stream]", "order"
    ),
    Mutation("decoding/plan.py", "instants + 0.5, side=", "instants - 0.5, side=", "plan"),
    Mutation("decoding/plan.py", "if duration_seconds <= window_seconds:", "if False:", "plan windows"),
    Mutation("decoding/plan.py", "if first >= last:", "if first > last:", "decoder windows sound_instants"),
    Mutation("training/losses.py", "torch.where(total > 0, total, 1.0)", "total", "losses"),
    Mutation("training/losses.py", "LossOutput(value * num_processes", "LossOutput(value", "losses"),
    Mutation("training/losses.py", "targets.repeat(1, self.num_networks)", "targets", "losses ensemble"),
    Mutation("scoring/task_sums.py", "else known.any(1)", "else known.all(1)", "task_scores"),
    Mutation("scoring/task_sums.py", "if name in CORRELATIONS else occurs", "", "task_scores"),
    Mutation("fusion/banded_ridge.py", "- 1 / len(y)", "", "banded_ridge"),
    Mutation("fusion/banded_ridge.py", "losses.detach() < best", "losses.detach() > best", "banded_ridge"),
    Mutation("fusion/closed_form.py", "(1 - leverage)", "(1 + leverage)", "ridge"),
    Mutation("fusion/tokens.py", "keep = keep & ~hidden[:, index, None]", "keep = keep", "fusion"),
    Mutation("fusion/tokens.py", "no_face = (keep & ~face_found)", "no_face = (~face_found)", "fusion"),
    Mutation(
        "fusion/tokens.py",
        "torch.where(stream.used[..., None], content + times, 0.0)",
        "content + times",
        "fusion",
    ),
    Mutation(
        "fusion/scale.py",
        "torch.where(self.widths > 0, scaled,",
        "torch.where(self.widths > -1, scaled,",
        "scale",
    ),
    Mutation("faces/crop.py", "if x0 < left or y0 < top", "if y0 < top", "faces close_ups"),
    Mutation("faces/track.py", "return self.source > NONE", "return self.source >= NONE", "faces no_face"),
    Mutation("shards/tar.py", "if data_offset + info.size > window.size:", "if False:", "shards left_out"),
    Mutation("shards/tar.py", "> limits.max_members:", "> 10**12:", "hostile shards"),
    Mutation("shards/index.py", "if actual != size:", "if False:", "shards"),
    Mutation("shards/index.py", "if size > limits.max_index_bytes:", "if False:", "shards hostile"),
    Mutation("shards/remote.py", "if first != offset or last", "if last", "remote"),
    Mutation("published/safe_pickle.py", "if count == MAX_INSTRUCTIONS:", "if False:", "safe_pickle hostile"),
    Mutation("loading/skips.py", "if self.in_a_row > self.max_in_a_row:", "if False:", "skips"),
    Mutation("loading/skips.py", 'if record.stage != "quarantine":', "if True:", "skips"),
    Mutation("loading/windows.py", "if (clip, number) != self._next:", "if False:", "windows"),
    Mutation("loading/clip_cache.py", "<= self.budget_bytes", "<= 2 * self.budget_bytes", "clip_cache"),
    Mutation("training/ema.py", "(10 + self.num_updates)", "(1 + self.num_updates)", "averaging"),
    Mutation("training/optimizer.py", "return (done + 1) / warmup", "return done / warmup", "optimizer"),
    Mutation("training/optimizer.py", "if parameter.ndim <= 1", "if parameter.ndim <= 0", "optimizer"),
    Mutation("training/guarding.py", "if num_skips == 0:", "if num_skips >= 0:", "guarding training"),
    Mutation("labels/names.py", "if sorted(names) != sorted(wanted):", "if False:", "labels"),
    Mutation(
        "tables/values.py",
        "return value if abs(value) <= LARGEST",
        "return value if True",
        "odd_tables packing",
    ),
    Mutation("scoring/tabular.py", "abs(cell) < 1e15", "abs(cell) < 1e1", "tabular"),
    Mutation(
        "model/checkpoint.py",
        "complaints += [str(error)] if folder != new",
        "complaints += [str(error)] if folder",
        "checkpoint",
    ),
    Mutation(
        "runtime/outfiles.py",
        "        partial.replace(target)\n",
        "        target.write_bytes(partial.read_bytes())\n",
        "run_folder",
    ),
    Mutation(
        "decoding/headers.py",
        "track.one_tick_each = count == 1 and",
        "track.one_tick_each = count == 1 or",
        "hostile container",
    ),
    Mutation("decoding/magic.py", "if not head:", "if False:", "container hostile"),
]


LIBRARIES = "av numpy torch torchvision transformers.modeling_utils open_clip perceiver_pytorch accelerate rich"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="changes whose file has this in its name")
    wanted = [m for m in MUTATIONS if parser.parse_args().only in m.file]
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}
    sys.dont_write_bytecode = False
    for name in LIBRARIES.split():
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "viper"
        shutil.copytree(
            ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "demo", "__pycache__", "site")
        )
        # What fails anyhow would notice everything.
        if broken := failures(copy, sorted({name for m in wanted for name in m.tests.split()})):
            sys.exit(f"without any change: {broken[0]}")
        unnoticed = [m for m in wanted if not is_noticed(copy, m)]
    print(f"{len(wanted) - len(unnoticed)} of {len(wanted)} changes noticed")
    return int(len(unnoticed) > ALLOWED)


def failures(copy: Path, names: Sequence[str]) -> list[str]:
    """Of the fast tests in these files, pytest's lines for the first that fails.

    In a forked process, which has the libraries loaded already and nothing of the package.
    """
    log = copy.parent / "pytest.log"
    pid = os.fork()
    if pid == 0:
        os.chdir(copy)
        sys.path[:] = [
            str(copy),
            *(place for place in sys.path if Path(place or ".").resolve() != ROOT / "tests"),
        ]
        os.environ["PYTHONPATH"] = str(copy)
        for number in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        files = [f"tests/test_{name}.py" for name in names]
        code = pytest.main(["-x", "-m", "not slow and not campaign", *files])
        sys.stdout.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    found = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return found or ([f"ERROR: pytest ended with {code}"] if code else [])


def is_noticed(copy: Path, mutation: Mutation) -> bool:
    """Whether a test fails with this change."""
    path = copy / "viper_e2e" / mutation.file
    text = path.read_text(encoding="utf-8")
    if mutation.before not in text:
        sys.exit(f"{mutation.file}: has no {mutation.before!r} any more; choose another line")
    path.write_text(text.replace(mutation.before, mutation.after, 1), encoding="utf-8")
    try:
        failed = failures(copy, mutation.tests.split())
    finally:
        path.write_text(text, encoding="utf-8")
    told = failed[0].partition(" - ")[0] if failed else "NOT NOTICED"
    print(
        f"{mutation.file}: {mutation.before.strip()} -> {mutation.after.strip() or '(nothing)'}: {told}",
        flush=True,
    )
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
