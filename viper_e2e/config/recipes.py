"""recipes.py: `--recipe`: fine-tuning in one word, as the words of the command line that it stands for."""

from __future__ import annotations

from collections.abc import Collection

from viper_e2e.config.depth import Frozen
from viper_e2e.config.modalities import backbones_of
from viper_e2e.config.settings import Settings
from viper_e2e.errors import ViperError

FINE_TUNED_SHARE = 0.25
"""Of the epochs, the last ones: until then the head learns on frozen tokens."""
NUM_BLOCKS = 2
"""The last ones of each backbone: what stands before them runs once a clip, where memory holds the clips."""


def recipe_words(settings: Settings, kept: Collection[str]) -> list[str]:
    """What the recipe of these settings stands for, to be read before all that people gave: their words win.

    First the head alone learns, on tokens of frozen backbones that are held in memory; in the last epochs the
    last blocks learn with it, at small rates (Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features
    and Underperform Out-of-Distribution"). ``kept``: backbones of which people said how they train.
    Raises `ViperError` where this makes no sense.
    """
    train, model, recipe = settings.train, settings.model, f"--recipe {settings.train.recipe}"
    if model.fusion.kind == "ridge":
        raise ViperError(
            f"{recipe}: --head ridge is fitted in closed form, and no backbone can learn from it; leave one of "
            "them out"
        )
    if train.epochs < 2:
        raise ViperError(
            f"{recipe}: the head learns first, backbones after it, which takes 2 epochs or more (--epochs "
            f"{train.epochs})"
        )
    known = backbones_of(model)
    # Sentences that are chosen from a bank are no part of a clip: their backbones stay as they are.
    own = [name for name in model.modalities if name in known and known[name].source != "random"]
    trained = [name for name in own if name not in kept and train.unfreeze.of(name) == Frozen()]
    if not own:
        raise ViperError(
            f"{recipe}: fine-tunes pretrained backbones, and those of this model are random "
            f"(--preset {settings.preset}); choose --preset base, or name one with --backbone visual=SOURCE"
        )
    first = train.epochs - max(1, round(FINE_TUNED_SHARE * train.epochs))
    if not trained:
        raise ViperError(
            f"{recipe}: nothing is left for it to fine-tune: {', '.join(own)} trains or stays frozen by other "
            "words (--unfreeze, --freeze, --lora, the preset)"
        )
    phases = ",".join(f"{first}:{name}={NUM_BLOCKS}" for name in trained)
    return [
        f"--unfreeze_at={phases}",
        "--backbone_lr=0.0003",
        "--layer_decay=0.75",
        "--reuse_memory=4GB",
    ]
