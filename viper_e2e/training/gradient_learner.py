"""gradient_learner.py: learning by optimizer steps along the gradient of a loss."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from viper_e2e.encoders import TokenCache
from viper_e2e.loading import ClipBatch
from viper_e2e.runtime import console
from viper_e2e.training.fine_tuning import rewrapped
from viper_e2e.training.optimizer import build_optimizer, build_schedule, can_step, recount, schedule_factor
from viper_e2e.training.resuming import take_rates
from viper_e2e.training.state import TrainingState, clip_seed, seed_step
from viper_e2e.training.task_losses import build_loss
from viper_e2e.training.yardstick import Yardstick

if TYPE_CHECKING:
    from viper_e2e.training.training_run import TrainingRun


class GradientLearner:
    """A `Learner` of the head, and of all that trains in the backbones, by AdamW along a loss's gradient."""

    def __init__(self, run: TrainingRun, total_steps: int):
        """``total_steps``: of the whole run."""
        self.run, self.total_steps = run, total_steps
        module, config, accelerator = run.module, run.config, run.accelerator
        loss = build_loss(module.labels, run.train_shards, config, module.fusion.num_networks)
        self.loss = loss.to(accelerator.device)
        optimizer = build_optimizer(module, config)
        self.schedule = build_schedule(optimizer, self._factors)
        with run.processes.collective("preparing the model"):
            self.model, self.optimizer = accelerator.prepare(module, optimizer)
        validates = run.val_shards is not None
        self.yardstick = Yardstick(module, run.processes, validates=validates, best_by=config.best_by)

    @property
    def lr(self) -> float:
        return float(self.schedule.get_last_lr()[0])

    def task_weights(self) -> dict[str, float]:
        return self.loss.learned_weights

    def _factors(self, first_step: int) -> Callable[[int], float]:
        run = self.run
        return schedule_factor(run.config, run.loader.num_steps(), self.total_steps, first_step)

    def enter(self, epoch: int) -> None:
        run = self.run
        new = run.tuning.enter(epoch, self.optimizer, self.schedule, self._factors)
        self.yardstick.enter(epoch)
        if new:
            with run.processes.collective("preparing the model"):
                self.model = rewrapped(run.accelerator, self.model, self.optimizer)
            run.average.join()
            if run.processes.is_main:
                console.print(f"from epoch {epoch + 1} on: {', '.join(new)}")

    # --- a step -----------------------------------------------------------------------------------

    def measure(self, group: list[ClipBatch]) -> None:
        self.run.tuning.measure(group, self.optimizer, self.run.accelerator, self.run.average)

    def step(self, group: list[ClipBatch], total_weight: Tensor, state: TrainingState) -> float:
        """One optimizer step, on which all processes agree; one on a loss or gradient that is not finite
        changes no weights."""
        run, scaler = self.run, self.run.accelerator.scaler
        seed_step(run.config.seed, state.step, run.processes.index)
        value = 0.0
        for batch in group:
            with nullcontext() if batch.ends_step else run.accelerator.no_sync(self.model):
                value += self._backward(batch, total_weight)
        norm = run.accelerator.clip_grad_norm_(self._trained(), run.config.clip_norm or math.inf)
        fits = bool(torch.isfinite(norm)) or run.guard.may_overflow(state, scaler)
        fits = fits and can_step(self.optimizer)
        # What the first process has seen, so that every process takes the same way from here.
        verdicts = run.processes.gather_scalars(
            float(math.isfinite(value) and fits), value, purpose=f"ending step {state.step}"
        )
        value = float(verdicts[0, 1])
        is_good = bool(verdicts[:, 0].all())
        if is_good:
            self._take_step(value, group, state)
        else:
            self._leave_out_step(value, float(norm), group, state)
        self.loss.end_step(takes_effect=is_good and not self.optimizer.step_was_skipped)
        self.optimizer.zero_grad()
        with nullcontext() if is_good else _counted():
            self.schedule.step()
        return value

    def _backward(self, batch: ClipBatch, total_weight: Tensor) -> float:
        run = self.run
        prepared = run.module.prepare(batch.clips)
        batch = run.guard.without_failed(batch, prepared, run.quarantine.train)
        seeds = [clip_seed(run.config.seed, batch.epoch, name) for name in batch.visits]
        cache = TokenCache() if run.clip_cache.budget_bytes else None
        output = self.model(prepared, seeds, cache=cache, keep_streams=self.yardstick.is_collecting)
        self.yardstick.add(batch, output)
        run.curves.add(batch, output.intensities)
        run.absent_modalities.add(output, batch.weights)
        device = output.intensities.device
        loss = self.loss(
            output.by_network,
            batch.intensities.to(device),
            batch.weights.to(device),
            total_weight.float().to(device),  # not every device has float64
            partial(run.processes.gather, purpose="the loss") if run.processes.count > 1 else None,
            run.processes.index,
        )
        with run.processes.collective("the gradients"):
            run.accelerator.backward(loss.loss)
        run.hold(batch.keys, prepared, cache)
        return loss.value.item()

    def _trained(self) -> list[torch.nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _take_step(self, value: float, group: list[ClipBatch], state: TrainingState) -> None:
        self.optimizer.step()
        if self.optimizer.step_was_skipped:  # by fp16's scaler, which has lowered its scale
            state.overflows += 1
        else:
            self.run.average.update()
            state.overflows, state.bad_steps, state.bad_keys = 0, 0, []
            state.last_good_step = state.step
        self.run.guard.watch_loss(state, value, group)

    def _leave_out_step(self, value: float, norm: float, group: list[ClipBatch], state: TrainingState) -> None:
        scaler = self.run.accelerator.scaler
        if scaler is not None:
            # The gradients were unscaled for their norm; without this the next step may not be.
            scaler.update()
            state.overflows += math.isfinite(value)
        self.run.guard.count_bad_step(state, value, norm, group)

    # --- the end of an epoch, saving and going on -------------------------------------------------

    def end_epoch(self) -> None:
        self.yardstick.fit_head()

    def gather(self) -> None:
        self.yardstick.gather()

    def parts(self) -> dict[str, Any]:
        scaler = self.run.accelerator.scaler
        steps = {"optimizer": self.optimizer, "schedule": self.schedule, "loss": self.loss}
        return steps | ({} if scaler is None else {"scaler": scaler})

    def resume(self, total_steps: int) -> None:
        take_rates(self.optimizer, self.schedule, self.run.module, self.run.config)
        # With another number of processes or epochs, the rest of the run has another number of steps.
        self.total_steps = total_steps
        recount(self.optimizer, self.schedule, self._factors)


@contextmanager
def _counted() -> Iterator[None]:
    """A step that was left out counts as one in the schedule, of which torch warns where it is the first."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        yield
