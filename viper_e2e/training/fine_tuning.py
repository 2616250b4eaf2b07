"""fine_tuning.py: changes of clips and backbones in training: augmentation, later phases, memory for both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator

from viper_e2e.clip import DecodedClip
from viper_e2e.config import Frozen, LoRA, TrainConfig
from viper_e2e.encoders import PreparedClip, TokenCache, checkpoint_activations
from viper_e2e.errors import ClipError
from viper_e2e.loading import ClipBatch, ClipStore
from viper_e2e.model import ViPER, build_augment
from viper_e2e.runtime import TellOnce, free_bytes
from viper_e2e.training import memory
from viper_e2e.training.ema import WeightEMA
from viper_e2e.training.optimizer import Factors
from viper_e2e.training.phases import Phases
from viper_e2e.training.tables import groups_table


def prepare_for_training(module: ViPER, config: TrainConfig) -> None:
    """Apply those settings of training that concern the model; none is saved with its weights."""
    module.set_training_depths(config.unfreeze)
    later_adapters = {phase.backbone for phase in config.unfreeze_at.phases if phase.depth == LoRA()}
    for name in later_adapters & module.backbones.keys():
        module.backbones[name].set_training_depth(Frozen())
    module.modality_dropout = config.modality_dropout
    if config.gradient_checkpointing:
        later = {phase.backbone for phase in config.unfreeze_at.phases}
        for name, backbone in module.backbones.items():
            if name in later or not backbone.is_frozen:
                checkpoint_activations(backbone.model)


class FineTuning:
    """Set up before anything expensive; everything that makes no sense is a `ViperError` here."""

    def __init__(self, module: ViPER, config: TrainConfig, clip_cache: ClipStore, notes: TellOnce):
        self.module, self.config, self.clip_cache, self.notes = module, config, clip_cache, notes
        module.augment = build_augment(config.augment, config.augmentation, module.modalities)
        if module.augment is not None and config.reuse_memory.num_bytes:
            frozen = [name for name, encoder in module.encoders.items() if encoder.is_frozen]
            module.augment.check_holding(frozen, module.config.faces.hold_margin)
        self.phases = Phases(config.unfreeze_at, module, config.epochs)
        self._has_measured = False

    def enter(
        self,
        epoch: int,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LambdaLR,
        factors: Factors,
    ) -> list[str]:
        """Train what this epoch trains; what is new, in words."""
        new = self.phases.enter(epoch, optimizer, schedule, self.config, factors)
        if new:
            # Cached clips lack what backbones that were frozen did not need again.
            self.clip_cache.clear()
        return [f"{phase.backbone}={phase.depth}" for phase in new]

    def measure(
        self,
        group: Sequence[ClipBatch],
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator,
        average: WeightEMA,
    ) -> None:
        """Once, on the first readable clip: tell what is trained and the memory it takes, if it fits.

        The clip stays in its batch as it was prepared and encoded here: the step does none of that again.
        Where an earlier training of the same command holds all clips without what later phases read of them, it
        has measured for this one too.
        """
        places = ((batch.clips, row) for batch in group for row in range(len(batch.clips)))
        usable = ((c, row) for c, row in places if self._can_measure(c[row]))
        clips, row = next(usable, (None, 0))
        if self._has_measured or clips is None:
            return
        with torch.no_grad():
            (clip,) = self.module.prepare([clips[row]])
        if isinstance(clip, ClipError):
            clips[row] = clip  # the next step has others
            return
        self._has_measured = True
        cache = TokenCache()
        # These lie there already (moments in a resumed run) and are counted among what a step needs.
        there = average.nbytes + memory.moments_bytes(optimizer)
        free = free_bytes(accelerator.device) + there
        with self.phases.deepest():
            copies = 2 if accelerator.num_processes > 1 else 1
            needs = memory.measure(
                self.module,
                clip,
                cache=cache,
                copies=copies,
                averaged=bool(average),
                cached=self.clip_cache.budget_bytes,
            )
            if accelerator.is_main_process:
                groups = optimizer.param_groups
                self.notes.table(groups_table(groups))
                # Measured again, its last digits differ where nothing else does.
                sizes = [(group["name"], sum(p.numel() for p in group["params"])) for group in groups]
                table = memory.needs_table(needs, self.config.batch_size, free)
                self.notes.table(table, same_as=(sizes, self.config.batch_size))
            memory.check_fits(self.module, needs, clip, free, self.config)
        clips[row] = cache.with_tokens(clip)

    def _can_measure(self, clip: object) -> bool:
        if isinstance(clip, PreparedClip):
            return not (clip.is_reduced and self.phases)
        return isinstance(clip, DecodedClip)


def rewrapped(
    accelerator: Accelerator, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> torch.nn.Module:
    """The model for several processes, wrapped again for the parameters that now train."""
    if accelerator.num_processes == 1:
        return model
    module = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    # Forgets the old wrapper, whose hooks would stay on the parameters.
    accelerator.free_memory()
    return accelerator.prepare(module, optimizer)[0]
