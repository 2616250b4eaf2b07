"""recipes.py: `--recipe`: fine-tuning in one word, as the words of the command line that it stands for."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from viper_e2e.config.depth import Blocks, Depth, Frozen, LaterDepths, LoRA, Phase
from viper_e2e.config.modalities import backbone_places, backbones_of
from viper_e2e.config.model import BackboneConfig
from viper_e2e.config.settings import Settings
from viper_e2e.errors import ViperError

FINE_TUNED_SHARE = 0.25
"""The last share of the epochs, in which backbones are fine-tuned; before, the head learns on frozen tokens."""
NUM_BLOCKS = 2
"""The last ones of each backbone: what comes before them runs once per clip, if memory holds the clips."""
LORA_RANK = 8
"""Default rank of adapters. Every block has some, so whole backbones run in each step."""


def recipe_words(settings: Settings, kept: Collection[str]) -> list[str]:
    """Options that the recipe of these settings stands for; options that people give override them.

    First the head alone learns, on tokens of frozen backbones that are held in memory; in the last epochs the
    last blocks learn with it, at small rates (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features
    and Underperform Out-of-Distribution"), or adapters beside them. ``kept``: backbones that people freeze, or
    of which they said which blocks train.
    Raises `ViperError` where this makes no sense.
    """
    _check(settings)
    train, model = settings.train, settings.model
    known = backbones_of(model)
    depth: Depth = LoRA() if train.recipe == "lora" else Blocks(NUM_BLOCKS)
    trained = _fine_tuned(settings, known, depth, kept)
    first = train.epochs - max(1, round(FINE_TUNED_SHARE * train.epochs))
    later = train.unfreeze_at or LaterDepths(tuple(Phase(first, name, depth) for name in trained))
    words = [f"--unfreeze_at={later}", "--reuse_memory=4GB"]
    if depth != LoRA():
        return [*words, "--backbone_lr=0.0003", "--layer_decay=0.75"]
    places = backbone_places(model)
    adapted = [phase.backbone for phase in later.phases if phase.depth == LoRA()]
    new = [name for name in adapted if name in known and not known[name].lora_rank]
    return [*words, "--backbone_lr=0.001", *(f"--model.{places[name]}.lora_rank={LORA_RANK}" for name in new)]


def _check(settings: Settings) -> None:
    """`ViperError` where no backbone could learn after the head."""
    train, recipe = settings.train, f"--recipe {settings.train.recipe}"
    if settings.model.fusion.kind == "ridge":
        raise ViperError(
            f"{recipe}: --head ridge is fitted in closed form, and no backbone can learn from it; leave one of "
            "them out"
        )
    if train.epochs < 2:
        raise ViperError(
            f"{recipe}: trains the head first and then backbones, which takes at least 2 epochs (--epochs "
            f"{train.epochs})"
        )


def _fine_tuned(
    settings: Settings, known: Mapping[str, BackboneConfig], depth: Depth, kept: Collection[str]
) -> list[str]:
    """The backbones that learn after the head; `ViperError` where there are none. ``known``: all, by name."""
    train, recipe = settings.train, f"--recipe {settings.train.recipe}"
    # Sentences that are chosen from a bank are no part of a clip: their backbones stay as they are.
    own = [name for name in settings.model.modalities if name in known and known[name].source != "random"]
    if not own:
        raise ViperError(
            f"{recipe}: fine-tunes pretrained backbones, but those of this model are random "
            f"(--preset {settings.preset}); choose --preset base, or name one with --backbone visual=SOURCE"
        )
    trained = [
        name
        for name in own
        if name not in kept
        and train.unfreeze.of(name) == Frozen()
        and (depth == LoRA() or not known[name].lora_rank)
    ]
    if not trained:
        raise ViperError(
            f"{recipe}: nothing is left for it to fine-tune: other settings say whether {', '.join(own)} "
            "trains (--unfreeze, --freeze, --lora, the preset)"
        )
    return trained
