"""Weights between tasks by uncertainty: Kendall's loss, followed by Adam, in any number of processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from viper_e2e.config.values import TaskWeights
from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.tasks import Task
from viper_e2e.training.task_losses import TaskLoss, TaskLossSettings, label_weights
from viper_e2e.training.uncertainty import UncertaintyWeights

MOOD, VALENCE = Task("mood", "class", 3), Task("valence", "number", 1, -1.0, 1.0)
LABELS = LabelSet(("mood a", "mood b", "mood c", "valence"), -1.0, 1.0, tasks=(MOOD, VALENCE))


def follow(weights: UncertaintyWeights, *steps: tuple[float, ...]) -> None:
    for lost in steps:
        for i, value in enumerate(lost):
            weights.add(i, torch.tensor(value), torch.tensor(4.0 if value == value else 0.0))
        weights.end_step(takes_effect=True)


def test_steps_are_those_of_adam_on_kendalls_loss():
    rng = np.random.default_rng(0)
    steps = [tuple(map(float, row)) for row in rng.uniform(0.1, 3, (30, 2))]
    ours = UncertaintyWeights([MOOD, VALENCE])
    follow(ours, *steps)
    s = torch.nn.Parameter(torch.zeros(2))
    adam = torch.optim.Adam([s], lr=0.01)
    for classes, numbers in steps:
        adam.zero_grad()
        (torch.exp(-s[0]) * classes + s[0] / 2 + torch.exp(-s[1]) * numbers / 2 + s[1] / 2).backward()
        adam.step()
    assert ours.log_variances.numpy() == pytest.approx(s.detach().numpy(), abs=1e-5)


@pytest.mark.slow
def test_in_the_end_each_loss_weighs_the_same():
    """Where exp(−s) L + s / 2 is least, a task's weighted loss is a half, however large its loss is."""
    weights = UncertaintyWeights([MOOD, VALENCE])
    follow(weights, *[(2.0, 0.1)] * 600)
    assert (weights.weights * torch.tensor([2.0, 0.1])).numpy() == pytest.approx([0.5, 0.5], rel=0.05)
    follow(weights, *[(0.0, 0.0)] * 3000)
    assert weights.log_variances.min() == -6.0


def test_a_task_without_clips_and_a_step_that_is_left_out_change_nothing():
    weights = UncertaintyWeights([MOOD, VALENCE])
    weights.add(0, torch.tensor(2.0), torch.tensor(3.0))
    weights.add(1, torch.tensor(0.0), torch.tensor(0.0))
    weights.end_step(takes_effect=True)
    assert weights.log_variances[1] == 0
    assert weights.log_variances[0] != 0
    before = {name: value.clone() for name, value in weights.state_dict().items()}
    weights.add(0, torch.tensor(float("nan")), torch.tensor(3.0))
    weights.end_step(takes_effect=False)
    follow(weights)
    assert all(torch.equal(value, before[name]) for name, value in weights.state_dict().items())


def test_two_processes_follow_the_same_way_as_one_and_batches_of_a_step_are_one():
    torch.manual_seed(0)
    said = torch.cat([torch.rand(8, 3).softmax(1), torch.rand(8, 1)], 1)
    true = torch.cat([torch.eye(3)[torch.arange(8) % 3], torch.rand(8, 1)], 1)
    true[5:, 3] = torch.nan
    clips = torch.ones(8)
    total = torch.tensor(label_weights(LABELS, true, clips))

    def loss() -> TaskLoss:
        settings = TaskLossSettings({"mse": 1.0}, learned_weights=True)
        return TaskLoss(LABELS, true.double().numpy(), settings, memory_rows=4)

    alone, batches, ranks = loss(), loss(), (loss(), loss())
    halves = slice(0, 4), slice(4, 8)
    rows: list[list[torch.Tensor]] = [[], []]
    for _ in range(3):
        alone(said, true, clips, total)
        for half in halves:
            batches(said[half], true[half], clips[half], total)
        for kept in rows:
            kept.clear()
        for rank, half in enumerate(halves):  # what each process would hand round

            def collect(own: torch.Tensor, rank: int = rank) -> torch.Tensor:
                rows[rank].append(own)
                return torch.cat([own, torch.zeros_like(own)])

            loss()(said[half], true[half], clips[half], total, collect, rank)
        for rank, half in enumerate(halves):
            asked = iter(range(len(rows[0])))
            ranks[rank](
                said[half],
                true[half],
                clips[half],
                total,
                lambda own, asked=asked: torch.cat([r[i] for i in [next(asked)] for r in rows]),
                rank,
            )
        for one in (alone, batches, *ranks):
            one.end_step(takes_effect=True)
    assert torch.equal(ranks[0].uncertainty.log_variances, ranks[1].uncertainty.log_variances)
    for one in (batches, ranks[0]):
        assert one.learned_weights == pytest.approx(alone.learned_weights, abs=1e-6)
    again = loss()
    again.load_state_dict(alone.state_dict())
    assert torch.equal(again.uncertainty.squares, alone.uncertainty.squares)
    assert again.uncertainty.log_variances.dtype == torch.float32


def test_its_word_is_read_and_written():
    words = TaskWeights.parse("uncertainty")
    assert words
    assert (words.learned, str(words)) == (True, "uncertainty")
    assert not TaskWeights.parse("mood=1").learned
    with pytest.raises(ViperError, match=r"write valence=0\.5, or uncertainty"):
        TaskWeights.parse("uncertain")
