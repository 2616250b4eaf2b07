"""pretraining_tasks.py: tasks from which `pretraining.py` has a Perceiver learn clips without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from pretraining_clips import BATCH, Clips
from torch import Tensor, nn
from torch.nn import functional

from viper_e2e.config import TrainConfig
from viper_e2e.fusion import NUM_TIME_FEATURES, TokenFusion, time_features
from viper_e2e.training import schedule_factor

LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 3e-3, 0.01, 1.0
"""Of `--preset base`."""
PRETRAINING_STEPS, PRETRAINING_BATCH = 400, 64
MASKED_SHARE, TEMPERATURE = 0.5, 0.1
CHANGE_AXES = 40


class Learner:
    """AdamW and its schedule, as of `--preset base`."""

    def __init__(self, network: nn.Module, steps: int, config: TrainConfig):
        self.network = network
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        factor = schedule_factor(config, 1, steps)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)

    def step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), CLIP_NORM)
        self.optimizer.step()
        self.schedule.step()


def batches(count: int, size: int) -> Iterator[Tensor]:
    """Of places, each once an epoch, for `PRETRAINING_STEPS`."""
    left: list[Tensor] = []
    for _ in range(PRETRAINING_STEPS):
        left = left or list(torch.randperm(count).split(size))
        yield left.pop()


def reset_output(network: TokenFusion) -> None:
    """What reads the latents starts anew: nothing has taught it."""
    for layer in network.perceiver.to_logits:
        if isinstance(layer, nn.LayerNorm | nn.Linear):
            layer.reset_parameters()


class Latents:
    """What the Perceiver makes of clips before it answers."""

    def __init__(self, network: TokenFusion):
        self.network, self.last = network, torch.zeros(0)
        self.hook = network.perceiver.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, latents: Tensor) -> None:
        self.last = latents

    def of(self, clips: Clips, hidden: Tensor | None = None) -> Tensor:
        self.network(*clips.inputs, hidden)
        return self.last


class Filler(nn.Module):
    """From the latents, what a masked token was: asked by modality and time."""

    def __init__(self, names: tuple[str, ...], width: int, num_numbers: int):
        super().__init__()
        self.ask = nn.ModuleDict({name: nn.Linear(NUM_TIME_FEATURES, width) for name in names})
        self.read = nn.MultiheadAttention(width, 4, batch_first=True)
        self.say = nn.ModuleDict({name: nn.Linear(width, num_numbers) for name in names})

    def forward(self, name: str, times: Tensor, latents: Tensor) -> Tensor:
        asked = self.ask[name](times)
        return self.say[name](asked + self.read(asked, latents, latents, need_weights=False)[0])


def learn_masked(network: TokenFusion, clips: Clips, config: TrainConfig) -> None:
    """Half of all tokens, or all of one modality, are masked, and said again from the rest.

    What is to be said: how a token differs from its clip's mean on the first principal axes. He et al. 2022,
    "Masked Autoencoders Are Scalable Vision Learners"; Devlin et al. 2019.
    """
    wanted = {}
    for name, stream in clips.streams.items():
        kept = (stream.present & stream.used)[..., None]
        mean = (stream.tokens * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp_min(1)
        change = torch.where(kept, stream.tokens - mean, 0.0)[..., :CHANGE_AXES]
        wanted[name] = change / change[kept[..., 0]].std(0)
    filler = Filler(network.modalities, network.perceiver.latents.shape[1], CHANGE_AXES)
    latents = Latents(network)
    learner = Learner(nn.ModuleList([network, filler]), PRETRAINING_STEPS, config)
    for rows in batches(len(clips.targets), PRETRAINING_BATCH):
        batch = clips.rows(rows)
        shape = batch.face_found.shape
        by_modality, gone = torch.rand(len(rows), 1) < 0.5, torch.randint(2, (len(rows), 1))
        masks, streams = {}, {}
        for index, (name, stream) in enumerate(batch.streams.items()):
            mask = torch.where(by_modality, gone == index, torch.rand(shape) < MASKED_SHARE)
            masks[name] = mask & stream.present & stream.used
            streams[name] = stream._replace(present=stream.present & ~mask)
        read_from = latents.of(batch._replace(streams=streams))
        loss = torch.zeros(())
        for name, stream in batch.streams.items():
            said = filler(name, time_features(stream.seconds, batch.duration_seconds), read_from)
            errors = (said - wanted[name][rows]).square().mean(-1)
            loss = loss + errors[masks[name]].sum() / masks[name].sum().clamp_min(1)
        learner.step(loss)
    latents.hook.remove()
    reset_output(network)


def learn_contrast(network: TokenFusion, clips: Clips, config: TrainConfig, *, within: bool = False) -> None:
    """Which voice belongs to which face, told from each alone (InfoNCE; van den Oord et al. 2018).

    ``within``: among the clips of one subject only, since who it is would tell otherwise.
    """
    clips = clips.rows(torch.arange(len(clips.targets))[clips.present.all(1)])
    width = network.perceiver.latents.shape[1]
    sides = nn.ModuleList([nn.Linear(width, width) for _ in network.modalities])
    latents = Latents(network)
    learner = Learner(nn.ModuleList([network, sides]), PRETRAINING_STEPS, config)
    subjects = clips.subjects.unique()
    count, size = (len(subjects), BATCH) if within else (len(clips.targets), PRETRAINING_BATCH)
    for drawn in batches(count, size):
        rows = torch.isin(clips.subjects, subjects[drawn]).nonzero()[:, 0] if within else drawn
        batch, ends = clips.rows(rows), []
        for index, side in enumerate(sides):
            hidden = (torch.arange(len(sides)) != index).expand(len(rows), -1)
            ends.append(functional.normalize(side(latents.of(batch, hidden).mean(1)), dim=-1))
        likeness = ends[0] @ ends[1].T / TEMPERATURE
        if within:
            likeness = likeness.masked_fill(batch.subjects[:, None] != batch.subjects, -1e9)
        own = torch.arange(len(rows))
        learner.step(functional.cross_entropy(likeness, own) + functional.cross_entropy(likeness.T, own))
    latents.hook.remove()
    reset_output(network)


PRETRAINING: dict[str, Callable[[TokenFusion, Clips, TrainConfig], None]] = {
    "masked": learn_masked,
    "contrast": learn_contrast,
    "within": partial(learn_contrast, within=True),
}
