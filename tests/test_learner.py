"""A further way to learn is one class: the loop reads, saves and resumes for it."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator
from support.training_runs import lines, settings
from torch import Tensor

from viper_e2e.loading import ClipBatch, Cursor
from viper_e2e.runtime import Processes
from viper_e2e.training.hooks import TrainerHooks
from viper_e2e.training.learner import Learner
from viper_e2e.training.reuse_forecast import forecast_for
from viper_e2e.training.state import TrainingState
from viper_e2e.training.trainer import Trainer
from viper_e2e.training.training_run import TrainingRun, open_run
from viper_e2e.training.yardstick import Yardstick

pytestmark = pytest.mark.slow


class Reciter:
    """Learns the keys of its clips by heart, and a bias of 1 more at each step."""

    lr = None

    def __init__(self, run: TrainingRun):
        self.run, self.keys = run, []
        self.yardstick = Yardstick(run.module, run.processes, validates=False)

    def task_weights(self) -> dict[str, float]:
        return {}

    def enter(self, epoch: int) -> None:
        self.yardstick.enter(epoch)

    def measure(self, group: list[ClipBatch]) -> None: ...

    def step(self, group: list[ClipBatch], total_weight: Tensor, state: TrainingState) -> float:
        self.keys += [key for batch in group for key in batch.keys]
        self.bias.add_(1.0)
        return float(total_weight.sum())

    @property
    def bias(self) -> Tensor:
        return self.run.module.fusion.perceiver.to_logits[-1].bias.data

    def end_epoch(self) -> None: ...

    def gather(self) -> None: ...

    def parts(self) -> dict[str, object]:
        return {"memory": self}

    def resume(self, total_steps: int) -> None: ...

    def state_dict(self) -> dict[str, list[str]]:
        return {"keys": self.keys}

    def load_state_dict(self, state: dict[str, list[str]]) -> None:
        self.keys = state["keys"]


def recited(corpus, folder, *words: str) -> Reciter:
    given = settings(corpus, folder, "--freeze=all", "--head=tokens", "--epochs=2", "--batch-size=2", *words)
    accelerator = Accelerator(cpu=True)
    run = open_run(given, accelerator, Processes(accelerator))
    state = TrainingState(Cursor(run.config.seed))
    learner = Reciter(run)
    assert isinstance(learner, Learner)
    trainer = Trainer(run, learner, state, forecast_for(run, 8, None), TrainerHooks())
    assert trainer.train() == 0
    trainer.close()
    return learner


def test_a_further_way_to_learn_is_a_class_that_trains_saves_and_resumes_like_any_other(corpus, tmp_path):
    whole = recited(corpus, tmp_path / "whole")
    assert len(whole.keys) == 16
    assert [line["train_loss"] for line in lines(tmp_path / "whole", "metrics.jsonl")] == [2.0, 2.0]
    recited(corpus, tmp_path / "run", "--max-steps=3")
    resumed = recited(corpus, tmp_path / "run", "--max-steps=8", "--resume")
    assert resumed.keys == whole.keys
    assert torch.equal(resumed.bias, whole.bias)
