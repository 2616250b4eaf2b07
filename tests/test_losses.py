from __future__ import annotations

import numpy as np
import pytest
import torch
from support.loss_training import ALL, E, train_on_loss
from torch import Tensor, nn
from torchmetrics.functional import concordance_corrcoef, pearson_corrcoef

from viper_e2e.training.losses import IntensityLoss


def batch(rows: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.rand(rows, E, generator=generator)
    predictions = (targets + 0.5 * torch.rand(rows, E, generator=generator)).requires_grad_()
    return predictions, targets, torch.ones(rows)


def expected_terms(predictions: Tensor, targets: Tensor) -> dict[str, float]:
    """What torchmetrics says; its CCC divides by n - 1 and n alternately, so ours is written out."""
    x, y = predictions.detach(), targets
    cov = ((x - x.mean(0)) * (y - y.mean(0))).mean(0)
    ccc = 2 * cov / (x.var(0, False) + y.var(0, False) + (x.mean(0) - y.mean(0)) ** 2)
    torch.testing.assert_close(ccc, concordance_corrcoef(x, y), atol=2 / len(x), rtol=0)
    return {
        "mse": float(((x - y) ** 2).mean()),
        "pearson": float((1 - pearson_corrcoef(x, y)).mean()),
        "ccc": float((1 - ccc).mean()),
    }


def test_terms_agree_with_torchmetrics():
    predictions, targets, weights = batch(40)
    out = IntensityLoss(ALL, E)(predictions, targets, weights)
    expected = expected_terms(predictions, targets)
    for name, value in expected.items():
        assert float(out.terms[name]) == pytest.approx(value, abs=1e-5), name
    assert float(out.value) == pytest.approx(sum(ALL[n] * v for n, v in expected.items()), abs=1e-5)
    assert torch.equal(out.value, out.loss.detach())


def test_correlations_join_the_batch_with_the_last_rows_of_earlier_steps():
    loss = IntensityLoss(ALL, E, memory_rows=10)
    earlier = [batch(8, seed) for seed in (1, 2)]
    for rows in earlier:
        loss(*rows)
    predictions, targets, weights = batch(4, 3)
    remembered_predictions = torch.cat([rows[0] for rows in earlier])[-10:]
    remembered_targets = torch.cat([rows[1] for rows in earlier])[-10:]
    out = loss(predictions, targets, weights)
    joined = expected_terms(
        torch.cat([remembered_predictions, predictions]), torch.cat([remembered_targets, targets])
    )
    assert float(out.terms["pearson"]) == pytest.approx(joined["pearson"], abs=1e-5)
    assert float(out.terms["ccc"]) == pytest.approx(joined["ccc"], abs=1e-5)
    assert float(out.terms["mse"]) == pytest.approx(expected_terms(predictions, targets)["mse"], abs=1e-5)


def test_a_full_memory_does_not_weaken_the_gradient():
    """A batch that repeats the memory has the gradient that it has alone, not 1 / (1 + 256 / 16) of it."""
    predictions, targets, weights = batch(16)
    alone = torch.autograd.grad(
        IntensityLoss({"pearson": 1.0}, E)(predictions, targets, weights).loss, predictions
    )
    loss = IntensityLoss({"pearson": 1.0}, E)
    for _ in range(16):
        loss(predictions, targets, weights)
    full = torch.autograd.grad(loss(predictions, targets, weights).loss, predictions)
    torch.testing.assert_close(full, alone, atol=1e-6, rtol=1e-3)


def test_evaluation_neither_reads_nor_writes_the_memory():
    loss = IntensityLoss(ALL, E)
    loss(*batch(8, 1))
    before = {k: v.clone() for k, v in loss.state_dict().items()}
    rows = batch(12, 2)
    assert float(loss.eval()(*rows).loss) == float(IntensityLoss(ALL, E).eval()(*rows).loss)
    assert all(torch.equal(before[k], v) for k, v in loss.state_dict().items())


def test_a_resumed_memory_goes_on_exactly():
    loss, resumed = IntensityLoss(ALL, E), IntensityLoss(ALL, E)
    for seed in range(40):
        loss(*batch(8, seed))
    resumed.load_state_dict(loss.state_dict())
    rows = batch(8, 99)
    assert torch.equal(loss(*rows).loss, resumed(*rows).loss)
    assert loss.state_dict()["memory_predictions"].shape == (256, E)


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
def test_rows_of_weight_0_count_nowhere(garbage):
    predictions, targets, weights = batch(10)
    bad = torch.tensor([2, 7])
    good = torch.tensor([0, 1, 3, 4, 5, 6, 8, 9])
    loss, clean = IntensityLoss(ALL, E), IntensityLoss(ALL, E)
    padded = predictions.detach().clone()
    padded[bad[0]] = garbage
    padded.requires_grad_()
    labels = targets.clone()
    labels[bad] = garbage
    out = loss(padded, labels, weights.clone().index_fill(0, bad, 0.0))
    ref = clean(predictions[good], targets[good], weights[good])
    torch.testing.assert_close(out.loss, ref.loss)
    out.loss.backward()
    ref.loss.backward()
    torch.testing.assert_close(padded.grad[good], predictions.grad[good])
    assert (padded.grad[bad] == 0).all()
    rows = batch(6, 5)
    torch.testing.assert_close(loss(*rows).loss, clean(*rows).loss)


def test_a_step_without_a_readable_clip_is_0_and_still_has_a_graph():
    predictions, targets, _ = batch(4)
    out = IntensityLoss(ALL, E)(predictions, targets, torch.zeros(4), torch.tensor(0.0))
    out.loss.backward()
    assert float(out.loss) == 0
    assert (predictions.grad == 0).all()


def test_columns_without_variance_are_left_out():
    predictions, targets, weights = batch(12)
    targets[:, 0] = 0.3
    with torch.no_grad():
        predictions[:, 1] = 0.7
    out = IntensityLoss({"pearson": 1.0}, E)(predictions, targets, weights)
    expected = (1 - pearson_corrcoef(predictions[:, 2:], targets[:, 2:])).mean()
    torch.testing.assert_close(out.loss, expected)
    out.loss.backward()
    assert predictions.grad.isfinite().all()
    assert (predictions.grad[:, :2] == 0).all()


@pytest.mark.parametrize("rows", [1, 3])
def test_a_batch_that_does_not_vary_has_a_finite_gradient(rows):
    predictions = torch.full((rows, E), 0.5, requires_grad=True)
    out = IntensityLoss(ALL, E)(predictions, torch.full((rows, E), 0.25), torch.ones(rows))
    out.loss.backward()
    assert predictions.grad.isfinite().all()


def test_a_non_finite_step_does_not_spoil_the_memory():
    loss = IntensityLoss(ALL, E)
    loss(*batch(8, 1))
    predictions, targets, weights = batch(8, 2)
    with torch.no_grad():
        predictions[3, 2] = float("nan")
    assert not loss(predictions, targets, weights).loss.isfinite()
    assert loss(*batch(8, 3)).loss.isfinite()


def test_accumulation_steps_of_unequal_size_sum_to_the_mean_over_valid_rows():
    predictions, targets, weights = batch(12)
    weights[[0, 1, 2, 9]] = 0
    whole = IntensityLoss({"mse": 1.0}, E)(predictions, targets, weights).loss
    parts = [
        IntensityLoss({"mse": 1.0}, E)(predictions[s], targets[s], weights[s], weights.sum()).loss
        for s in (slice(0, 4), slice(4, 8), slice(8, 12))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_the_loss_is_float32_under_autocast():
    predictions, targets, weights = batch(16)
    exact = IntensityLoss(ALL, E)(predictions, targets, weights).loss
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(IntensityLoss(ALL, E)(predictions, targets, weights).loss, exact)
        half = IntensityLoss(ALL, E)(predictions.bfloat16(), targets, weights).loss
    assert half.dtype == torch.float32


def step(rank: int, processes: int, steps: int = 3) -> tuple[list[Tensor], list[float]]:
    """Gradients that each process would hand to DDP, and the values it would log."""
    torch.manual_seed(0)
    model, loss = nn.Linear(5, E), IntensityLoss(ALL, E, memory_rows=20)
    gradients, values = [], []
    for index in range(steps):
        generator = torch.Generator().manual_seed(index)
        inputs, targets = torch.randn(12, 5, generator=generator), torch.rand(12, E, generator=generator)
        weights = (torch.rand(12, generator=generator) < 0.8).float()
        outputs = model(inputs)
        size = 12 // processes
        mine = slice(rank * size, (rank + 1) * size)
        everyone = torch.cat([outputs.detach() * (weights > 0)[:, None], targets * (weights > 0)[:, None]], 1)
        everyone = torch.cat([everyone, weights[:, None]], 1)
        out = loss(
            outputs[mine],
            targets[mine],
            weights[mine],
            weights.sum(),
            gather=lambda rows, everyone=everyone: everyone,
            rank=rank,
        )
        gradients.append(torch.autograd.grad(out.loss, model.weight)[0])
        values.append(float(out.value))
    return gradients, values


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_see_one_loss_and_their_mean_gradient_is_that_of_one_process(processes):
    gradients, values = step(0, 1)
    by_rank = [step(rank, processes) for rank in range(processes)]
    for index in range(3):
        mean = torch.stack([g[index] for g, _ in by_rank]).mean(0)
        torch.testing.assert_close(mean, gradients[index], atol=1e-6, rtol=0)
        assert {v[index] for _, v in by_rank} == {values[index]}


@pytest.mark.campaign
def test_training_under_ddp_on_two_processes_equals_training_on_one(fork_server, tmp_path):
    train_on_loss(0, 1, str(tmp_path))
    children = fork_server.fork_processes(2, "train_on_loss", str(tmp_path))
    assert [child.wait() for child in children] == [0, 0], children[0].said + children[1].said
    np.testing.assert_allclose(np.load(tmp_path / "2.npy"), np.load(tmp_path / "1.npy"), atol=1e-6, rtol=0)


def test_the_loss_of_several_networks_is_the_mean_of_theirs():
    alone = [IntensityLoss(ALL, E, memory_rows=4) for _ in range(2)]
    joint = IntensityLoss(ALL, E, memory_rows=4, num_networks=2)
    for seed in range(3):
        torch.manual_seed(seed)
        predictions, targets, weights = torch.rand(6, 2, E, requires_grad=True), torch.rand(6, E), torch.ones(6)
        together = joint(predictions, targets, weights)
        (gradient,) = torch.autograd.grad(together.loss, predictions)
        for k, loss in enumerate(alone):
            own = predictions[:, k].detach().requires_grad_(True)
            apart = loss(own, targets, weights)
            torch.testing.assert_close(torch.autograd.grad(apart.loss, own)[0], 2 * gradient[:, k])
        values = [loss.eval()(predictions[:, k], targets, weights).value for k, loss in enumerate(alone)]
        torch.testing.assert_close(joint.eval()(predictions, targets, weights).value, sum(values) / 2)
        for loss in (joint, *alone):
            loss.train()
