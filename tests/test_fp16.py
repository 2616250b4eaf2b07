"""fp16 with a loss scaler, as on a GPU: torch's own for the CPU stands in, where accelerate makes none."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from support.training_runs import lines, settings, spoiled_steps

from viper_e2e.errors import ViperError
from viper_e2e.training.hooks import TrainerHooks
from viper_e2e.training.trainer import Trainer, open_trainer

pytestmark = pytest.mark.slow

WORDS = ("--mixed-precision=fp16", "--modalities=visual", "--unfreeze=visual", "--batch-size=2", "--lr=0.01")


@pytest.fixture
def make_trainer(corpus, tmp_path):
    """`make_trainer(*words)`: a run in this process, on a device that scales the loss."""
    AcceleratorState._reset_state()
    made = []

    def make(*words: str, hooks: TrainerHooks | None = None) -> Trainer:
        accelerator = Accelerator(mixed_precision="fp16", step_scheduler_with_optimizer=False, cpu=True)
        accelerator.scaler, accelerator.native_amp = torch.amp.GradScaler("cpu"), True
        made.append(open_trainer(settings(corpus, tmp_path / "run", *WORDS, *words), accelerator, hooks=hooks))
        return made[-1]

    yield make
    for trainer in made:
        trainer.close()
    AcceleratorState._reset_state()


def test_one_loss_that_is_no_number_costs_one_step(make_trainer):
    trainer = make_trainer("--epochs=2", hooks=spoiled_steps(range(2, 3)))
    assert trainer.train() == 0
    assert [record["step"] for record in lines(trainer.run.folder.path, "nonfinite.jsonl")] == [2]
    assert trainer.state.last_good_step == 7
    assert all(p.isfinite().all() for p in trainer.run.module.parameters())


def test_after_three_such_losses_the_run_goes_back(make_trainer):
    trainer = make_trainer("--epochs=3", "--reuse-memory=1GB", hooks=spoiled_steps(range(5, 8)))
    assert trainer.train() == 0
    assert [record["step"] for record in lines(trainer.run.folder.path, "nonfinite.jsonl")] == [5, 6, 7]
    assert len(trainer.run.quarantine.train.reasons) == 6
    assert trainer.state.went_back_at == 7


def test_gradients_that_are_never_a_number_end_the_run(make_trainer):
    trainer = make_trainer("--epochs=20", "--reuse-memory=1GB")
    next(trainer.run.module.encoders["visual"].parameters()).register_hook(
        lambda gradient: gradient * float("nan")
    )
    trained = [p for p in trainer.run.module.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    with pytest.raises(ViperError, match=r"again 3 steps in a row were not finite \(NaN\).*nonfinite\.jsonl"):
        trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(before, trained, strict=True))
    assert trainer.state.last_good_step == -1
    assert len(lines(trainer.run.folder.path, "nonfinite.jsonl")) == 6


def test_without_a_scaler_it_is_said(corpus, fork_server, tmp_path):
    from support.training_runs import arguments

    words = arguments(
        corpus, tmp_path / "run", "--mixed-precision=fp16", "--modalities=visual", "--max-steps=1"
    )
    child = fork_server.fork("train", words)
    assert child.wait() == 0, child.said
    assert "on this device the loss is not scaled" in child.said
