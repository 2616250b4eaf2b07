"""learning_variants.py: the rows of `learning.py`: what each changes of the preset's settings."""

from __future__ import annotations

from dataclasses import dataclass, field

LAST_ALONE = ("--model.visual.pooling=cls", "--model.visual.layers=1", "--model.audio.layers=1")
OLD_HEAD = (
    *(
        "--head=tokens",
        "--model.fusion.change=false",
        "--model.fusion.dim=256",
        "--model.fusion.num-latents=64",
    ),
    *("--model.fusion.latent-dim=256", "--model.fusion.depth=2", "--model.fusion.self-attends-per-block=2"),
    "--lr=0.001",
)


@dataclass(frozen=True)
class Variant:
    """One way to read the tokens."""

    name: str
    words: tuple[str, ...] = field(default=())
    """Beside the preset's settings."""
    preset: str = "base"
    modalities: tuple[str, ...] = ("visual", "audio")

    @property
    def is_old(self) -> bool:
        return LAST_ALONE[0] in self.words


VARIANTS = {
    "ridge": Variant("yardstick: ridge (--head ridge)", ("--head=ridge",)),
    "default": Variant("default: ridge + hidden layer + Perceiver"),
    "face": Variant("… of the face alone", modalities=("visual",)),
    "voice": Variant("… of the voice alone", modalities=("audio",)),
    "no-hidden": Variant("… without the hidden layer", ("--model.fusion.hidden-dim=0",)),
    "perceiver": Variant("… the Perceiver alone (--head tokens)", ("--head=tokens",)),
    "no-change": Variant("… without the stream of change", ("--model.fusion.change=false",)),
    "lr-1e-3": Variant("… at a learning rate of 1e-3", ("--lr=0.001",)),
    "no-dropout": Variant("… without modality dropout", ("--modality-dropout=0",)),
    "large": Variant(
        "… with 256 wide, 64 latents, depth 2",
        tuple(word for word in OLD_HEAD if "fusion.dim" in word or "latent" in word or "depth" in word),
    ),
    "ema": Variant("… with --ema-decay 0.98", ("--ema-decay=0.98",)),
    "last-layer": Variant("… of the last layer's class token", LAST_ALONE),
    "last-layer-ridge": Variant("ridge of the last layer's class token", (*LAST_ALONE, "--head=ridge")),
    "before": Variant("default before (6.5 M, last layer)", (*LAST_ALONE, *OLD_HEAD)),
}
FINE_TUNED = {
    "lpft": Variant("default, then last blocks (--recipe lpft)", ("--recipe=lpft",)),
    "lpft-1": Variant(
        "… one block of each", ("--recipe=lpft", "--unfreeze-at={first}:visual=1,{first}:audio=1")
    ),
    "lpft-low": Variant("… at a third of the rate", ("--recipe=lpft", "--backbone-lr=0.0001")),
    "lpft-high": Variant("… at seven times the rate", ("--recipe=lpft", "--backbone-lr=0.002")),
    "fine-tuned": Variant(
        "default, last block of each backbone fine-tuned from the start",
        ("--unfreeze=visual=1,audio=1", "--backbone-lr=0.0001"),
    ),
    "lora": Variant("default, then LoRA adapters of rank 8 (--recipe lora)", ("--recipe=lora",)),
}
JOINED = {"ensemble": Variant("default, heads of five seeds joined (--ensemble 5)")}
MEMBERS = 5
END_TO_END = {"tiny": Variant("`tiny`, trained from scratch", preset="tiny")}
ALL = VARIANTS | FINE_TUNED | JOINED | END_TO_END
