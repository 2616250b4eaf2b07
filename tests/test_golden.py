"""A hundred steps of training give the losses that they gave before: exactly within a job, else to 1e-4.

`python tests/test_golden.py` writes the file anew; the commit says why the losses have changed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from support.training_runs import arguments, make_corpus

FILE = Path(__file__).with_name("golden_losses.json")
WORDS = ("--unfreeze=visual,audio", "--epochs=100", "--max-steps=100", "--batch-size=2", "--num-workers=0")


def hundred_losses(fork_server, corpus: Path, folder: Path) -> list[float]:
    file = folder / "losses.json"
    child = fork_server.fork("record_losses", arguments(corpus, folder / "run", *WORDS), str(file))
    assert child.wait(600) == 0, child.said
    return json.loads(file.read_text())


@pytest.mark.campaign
def test_losses_are_those_of_the_committed_file_and_of_any_run_of_this_job(fork_server, corpus, tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    losses = hundred_losses(fork_server, corpus, tmp_path / "1")
    assert losses == hundred_losses(fork_server, corpus, tmp_path / "2")
    golden = json.loads(FILE.read_text())
    assert len(losses) == len(golden["losses"]) == 100
    assert losses == pytest.approx(golden["losses"], abs=1e-4), (
        f"made with torch {golden['torch']} on {golden['cpu_capability']}, "
        f"here torch {torch.__version__} on {torch.backends.cpu.get_cpu_capability()}"
    )


def write() -> None:
    from support.fork_server import ForkServer

    with tempfile.TemporaryDirectory() as scratch:
        fork_server = ForkServer(Path(scratch))
        losses = hundred_losses(fork_server, make_corpus(Path(scratch) / "corpus"), Path(scratch))
        fork_server.close()
    record = {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "losses": losses,
    }
    FILE.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(write())
