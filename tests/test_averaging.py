"""The average of the weights: it follows the rule, changes nothing of training, and is what is validated."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from support.training_runs import JOINT, arguments, lines, losses, same, settings, weights
from torch import nn

from viper_e2e.errors import ViperError
from viper_e2e.model.predictions import Predictions
from viper_e2e.model.viper import ViPER
from viper_e2e.scoring import scores_of, scores_record
from viper_e2e.scoring.score import score
from viper_e2e.shards import ShardSet
from viper_e2e.training.data import reading_of
from viper_e2e.training.ema import WeightEMA
from viper_e2e.training.hooks import TrainerHooks
from viper_e2e.training.trainer import open_trainer

EMA = "--ema-decay=0.5"
SHORT = (*JOINT, "--epochs=2", "--batch-size=4", "--schedule=constant")


def training_of(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last" / "training.pt", weights_only=True)


# --- the rule -------------------------------------------------------------------------------------


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def move(module: nn.Module, seed: int) -> None:
    """As a step would: what trains gets other values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape, generator=generator)


def values(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def averaged(average: WeightEMA, module: nn.Module) -> dict[str, torch.Tensor]:
    with average.swapped_in():
        return values(module)


def test_the_average_is_the_recurrence_with_a_decay_that_grows_to_its_limit():
    module = two_layers()
    average = WeightEMA(module, 0.6)
    expected = {name: p.double() for name, p in values(module).items()}
    decays = []
    for step in range(20):
        move(module, step)
        average.update()
        decays.append(min(0.6, (1 + step) / (10 + step)))
        for name, value in values(module).items():
            expected[name] = decays[-1] * expected[name] + (1 - decays[-1]) * value.double()
    assert decays[0] == 0.1
    assert decays[-1] == 0.6
    for name, value in averaged(average, module).items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_what_joins_later_is_averaged_as_if_it_had_been_from_the_start():
    def trained(*, from_the_start: bool) -> dict[str, torch.Tensor]:
        module = two_layers()
        module[1].requires_grad_(from_the_start)
        average = WeightEMA(module, 0.9)
        module[1].requires_grad_(False)
        for step in range(8):
            if step == 4:
                module[1].requires_grad_(True)
                average.join()
            move(module, step)
            average.update()
        made = averaged(average, module)
        assert not any(torch.equal(made[name], value) for name, value in values(module).items())
        return made

    assert same(trained(from_the_start=False), trained(from_the_start=True))


def test_nothing_is_kept_of_what_is_frozen():
    module = two_layers()
    module[0].requires_grad_(False)
    assert WeightEMA(module, 0.9).nbytes == sum(p.nbytes for p in module[1].parameters())
    assert WeightEMA(module, 0.0).nbytes == 0


def test_weights_are_back_bit_by_bit_also_after_an_error():
    module = two_layers()
    average = WeightEMA(module, 0.9)
    with torch.no_grad():
        module[0].bias[:3] = torch.tensor([float("nan"), float("-inf"), -0.0])
    before, addresses = values(module), [p.data_ptr() for p in module.parameters()]

    def fail() -> None:
        with average.swapped_in():
            assert not torch.equal(module[0].bias, before["0.bias"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    for name, value in values(module).items():
        assert torch.equal(value.view(torch.int32), before[name].view(torch.int32)), name
    assert [p.data_ptr() for p in module.parameters()] == addresses


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_a_decay_that_makes_no_average_is_refused(decay):
    with pytest.raises(ViperError, match=r"--ema-decay .*: give a share below 1, e\.g\. 0\.999"):
        WeightEMA(two_layers(), decay)


# --- a run ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def twins(corpus, fork_server, tmp_path_factory) -> tuple[Path, Path, str]:
    """The same run without and with an average, and what the second one said."""
    folder = tmp_path_factory.mktemp("twins")
    words = (*SHORT, f"--val-shards={corpus}/shards/val-*.tar", "--reuse-memory=1GB")
    plain = fork_server.fork("train", arguments(corpus, folder / "plain", *words))
    averaged = fork_server.fork("train", arguments(corpus, folder / "averaged", *words, EMA))
    assert [plain.wait(), averaged.wait()] == [0, 0], averaged.said
    return folder / "plain", folder / "averaged", averaged.said


@pytest.mark.slow
def test_averaging_changes_nothing_of_the_training(twins):
    plain, with_average, _ = twins
    assert losses(plain) == losses(with_average)
    final, trained = weights(plain), training_of(with_average)["parts"]["average"]["weights"]
    assert len(trained) > 50
    assert all(torch.equal(final[name], value) for name, value in trained.items())


@pytest.mark.slow
def test_every_checkpoint_holds_the_average_and_scores_as_the_log_says(corpus, twins):
    plain, folder, _ = twins
    records = lines(folder, "metrics.jsonl")
    live = lines(plain, "metrics.jsonl")[-1]["val"]["mean_mse"]
    assert abs(records[-1]["val"]["mean_mse"] - live) > 1e-3
    trained = training_of(folder)["parts"]["average"]["weights"]
    best = max(records, key=lambda record: record["val"]["mean_pearson"])
    shards, reading = ShardSet(f"{corpus}/shards/val-*.tar"), reading_of(settings(corpus, folder).train)
    for name, record in (("best", best), ("last", records[-1])):
        assert record["val"]["weights"] == "average"
        model = ViPER.from_pretrained(folder / "checkpoints" / name)
        moved = [not torch.equal(trained[n], p) for n, p in model.named_parameters() if n in trained]
        assert sum(moved) > 0.9 * len(moved)
        found = score(model, shards, reading)
        scores = scores_record(scores_of(Predictions.of(found, model.labels, model.modalities, shards)))
        for measure in ("mean_pearson", "mean_mse"):
            # Loaded, all is frozen and encoded clip by clip: other sums, by a few millionths.
            assert scores[measure] == pytest.approx(record["val"][measure], abs=1e-5)


@pytest.mark.slow
def test_the_run_says_what_is_validated_and_what_it_takes(twins):
    said = twins[2]
    assert "val of the average Pearson" in said
    assert "\naverage of the weights " in said


@pytest.mark.slow
def test_without_an_average_nothing_is_said_or_saved_of_it(twins):
    plain, _, _ = twins
    assert "average" not in training_of(plain)["parts"]
    assert "weights" not in lines(plain, "metrics.jsonl")[0]["val"]


@pytest.mark.slow
def test_a_validation_that_fails_leaves_the_weights(corpus, tmp_path, monkeypatch):
    words = (*SHORT, EMA, f"--val-shards={corpus}/shards/val-*.tar")
    stepped, seen = [], []
    hooks = TrainerHooks(after_step=lambda trainer, _: stepped.append(values(trainer.run.module)))
    trainer = open_trainer(settings(corpus, tmp_path / "run", *words), Accelerator(cpu=True), hooks=hooks)

    def failing(model, *_, **__):
        seen.append(values(model))
        raise ZeroDivisionError

    monkeypatch.setattr("viper_e2e.training.validation.score", failing)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    trainer.close()
    assert same(stepped[-1], values(trainer.run.module))
    assert not same(stepped[-1], seen[0])


# --- going on -------------------------------------------------------------------------------------


@pytest.mark.campaign
def test_a_run_whose_backbones_join_later_goes_on_bitwise(corpus, fork_server, tmp_path):
    words = (*SHORT[1:], "--epochs=3", "--unfreeze-at=1:visual=1,2:visual=all,2:audio=1", EMA)
    whole, halves = (arguments(corpus, tmp_path / name, *words) for name in ("whole", "halves"))
    assert fork_server.fork("train", whole).wait() == 0
    assert fork_server.fork("stop", halves, 3, signal.SIGTERM).wait() == 143
    assert fork_server.fork("train", [*halves, "--resume"]).wait() == 0
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "halves"))
    one, other = (training_of(tmp_path / name)["parts"]["average"] for name in ("whole", "halves"))
    assert one["num_updates"] == other["num_updates"] == 6
    assert same(one["weights"], other["weights"])
    assert any(name.startswith("encoders.audio") for name in one["weights"])


@pytest.mark.slow
def test_steps_without_a_number_do_not_count_and_all_go_back_to_one_average(corpus, fork_server, tmp_path):
    words = arguments(corpus, tmp_path / "run", *SHORT, EMA, "--batch-size=1")
    made = fork_server.fork_processes(2, "no_number", words, [5, 6, 7], [1], 1, str(tmp_path / "weights"))
    assert [child.wait() for child in made] == [0, 0], made[0].said + made[1].said
    assert "back to step 4 without" in made[0].said
    first, second = (load_file(tmp_path / f"weights.{rank}") for rank in range(2))
    assert same(first, second)
    # Step 4 was made before the others went wrong, and again after going back.
    state = training_of(tmp_path / "run")
    assert state["parts"]["average"]["num_updates"] == state["state"]["step"] == 8
    saved = weights(tmp_path / "run")
    for name in state["parts"]["average"]["weights"]:
        assert torch.equal(saved[name], first[f"average {name}"])


@pytest.mark.slow
def test_a_run_is_resumed_with_the_setting_it_began_with(corpus, twins, tmp_path):
    shutil.copytree(twins[0], tmp_path / "run")
    with pytest.raises(ViperError, match=r"--ema-decay: 0\.\d+; the run has 0\.0"):
        open_trainer(settings(corpus, tmp_path / "run", *SHORT, EMA, "--resume"), Accelerator(cpu=True))
