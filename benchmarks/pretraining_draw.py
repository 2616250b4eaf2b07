"""pretraining_draw.py: one draw of labelled clips, by which `pretraining.py` teaches each part of a head."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from pretraining_clips import BATCH, Clips, on_axes, score
from pretraining_tasks import PRETRAINING, PRETRAINING_BATCH, Learner
from torch import Tensor, nn
from torch.nn import functional

from viper_e2e.config import TrainConfig
from viper_e2e.fusion import (
    MAX_DEVIATIONS,
    NUM_INPUTS_AT_FULL_RATE,
    RIDGE_SHARE,
    TokenFusion,
    block_sizes,
    fit_banded_ridge,
    known_features,
    moments,
    pool,
    pooled_rows,
    predict,
    sample_hidden,
    standardised,
)
from viper_e2e.model import ViPER

EPOCHS, MODALITY_DROPOUT = 20, 0.1
"""Of `--preset base` with `--epochs 20`."""
FEATURE_AXES, CANONICAL_AXES = 40, 10
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Variant:
    """Where each part of the head starts from; `own`: from the labelled clips alone."""

    name: str
    ridge: str = "own"
    hidden_layer: str = "own"
    perceiver: str = "own"


VARIANTS = {
    "default": Variant("default: no other clip is seen"),
    "scales": Variant("features of the hidden layer standardised over all clips", hidden_layer="scales"),
    "axes": Variant(
        "principal axes of tokens and features of all clips", hidden_layer="axes", perceiver="axes"
    ),
    "canonical": Variant("ridge with canonical directions, face to voice", ridge="canonical"),
    "masked": Variant("masked tokens, then the labelled clips", perceiver="masked"),
    "contrast": Variant("contrast of face and voice among all clips", perceiver="contrast"),
    "within": Variant("contrast of face and voice within each subject", perceiver="within"),
    "pseudo": Variant(
        "self-training: the default's answers as labels", hidden_layer="pseudo", perceiver="pseudo"
    ),
}


class Draw:
    """One draw of labelled clips: parts of the head, each taught once and answering for every split."""

    def __init__(
        self, module: ViPER, config: TrainConfig, splits: dict[str, Clips], number: int, labelled: int
    ):
        self.module, self.config, self.splits, self.seed = module, config, splits, number
        self.labelled = torch.arange(number * labelled, (number + 1) * labelled)
        self.features: dict[str, Tensor] = {}
        self.known: dict[str, Tensor] = {}
        for split, clips in splits.items():
            pooled = pool(*clips.inputs)
            self.features[split], self.known[split] = pooled_rows(pooled), known_features(pooled)
        self.widths = {name: encoder.embed_dim for name, encoder in module.encoders.items()}
        self.axes = on_axes(splits)
        self.taught: dict[tuple[str, str], dict[str, Tensor]] = {}

    def answers(self, variant: Variant) -> dict[str, Tensor]:
        """Joined as `EnsembleFusion` does."""
        parts = (
            ("ridge", variant.ridge),
            ("hidden_layer", variant.hidden_layer),
            ("perceiver", variant.perceiver),
        )
        ridge, hidden, perceiver = (self.part(*part) for part in parts)
        return {
            split: RIDGE_SHARE * ridge[split] + (1 - RIDGE_SHARE) * (hidden[split] + perceiver[split]) / 2
            for split in SPLITS
        }

    def part(self, name: str, start: str) -> dict[str, Tensor]:
        """What it answers for each split."""
        if (name, start) not in self.taught:
            make = {"ridge": self.ridge, "hidden_layer": self.hidden_layer, "perceiver": self.perceiver}[name]
            torch.manual_seed(self.seed)
            self.taught[name, start] = make(start)
        return self.taught[name, start]

    def teach(
        self,
        answer: Callable[[str, Tensor], Tensor],
        network: nn.Module,
        rows: Tensor,
        targets: Tensor,
    ) -> dict[str, Tensor]:
        """``answer``: of clips of a split, by ``network``. Returns what the best by validation says."""
        learner = Learner(network, EPOCHS * -(-len(rows) // BATCH), self.config)
        best, said, weights = -2.0, {}, network.state_dict()
        for _ in range(EPOCHS):
            network.train()
            for places in torch.randperm(len(rows)).split(BATCH):
                learner.step((answer("train", rows[places]) - targets[places]).square().mean())
            network.eval()
            with torch.no_grad():
                now = {s: self.whole(answer, s) for s in SPLITS[1:]}
            reached = score(now["val"], self.splits["val"])
            if reached > best:
                best, said, weights = reached, now, copy.deepcopy(network.state_dict())
        network.load_state_dict(weights)
        with torch.no_grad():
            return said | {"train": self.whole(answer, "train")}

    def whole(self, answer: Callable[[str, Tensor], Tensor], split: str) -> Tensor:
        count = len(self.splits[split].targets)
        return torch.cat([answer(split, rows) for rows in torch.arange(count).split(PRETRAINING_BATCH)])

    def material(self, start: str) -> tuple[Tensor, Tensor]:
        """Clips to learn and their labels; of self-training, all of them."""
        targets = self.splits["train"].targets
        if start != "pseudo":
            return self.labelled, targets[self.labelled]
        pseudo = self.answers(VARIANTS["default"])["train"].clone()
        pseudo[self.labelled] = targets[self.labelled]
        return torch.arange(len(pseudo)), pseudo

    def ridge(self, start: str) -> dict[str, Tensor]:
        sizes, features, known = block_sizes(self.widths), self.features, self.known
        if start == "canonical":
            extra = self.canonical()
            sizes = [*sizes, *(rows.shape[1] for rows in extra["train"])]
            features = {s: torch.cat([features[s], *extra[s]], 1) for s in SPLITS}
            known = {
                s: torch.cat([known[s], *(torch.ones_like(r).bool() for r in extra[s])], 1) for s in SPLITS
            }
        rows = self.labelled
        fit = fit_banded_ridge(
            features["train"][rows], self.splits["train"].targets[rows], sizes, known["train"][rows]
        )
        return {s: predict(fit, features[s], known[s]).float().clamp(0, 1) for s in SPLITS}

    def hidden_layer(self, start: str) -> dict[str, Tensor]:
        rows = slice(None) if start in ("scales", "axes") else self.labelled
        features = self.standardised(rows)
        if start == "axes":
            features = self.principal(features)
        network = HiddenLayer(features["train"].shape[1], len(self.module.labels))
        return self.teach(lambda split, at: network(features[split][at]), network, *self.material(start))

    def perceiver(self, start: str) -> dict[str, Tensor]:
        splits = self.splits if start in ("own", "pseudo") else self.axes
        widths = {name: stream.tokens.shape[2] for name, stream in splits["train"].streams.items()}
        fusion = replace(self.module.config.fusion, kind="tokens")
        network = TokenFusion(fusion, widths, len(self.module.labels), sigmoid=True)
        if start in PRETRAINING:
            PRETRAINING[start](network, splits["train"], self.config)

        def answer(split: str, at: Tensor) -> Tensor:
            clips = splits[split].rows(at)
            if not network.training:
                return network(*clips.inputs)
            seeds = torch.randint(2**31, (len(at),)).tolist()
            return network(*clips.inputs, sample_hidden(clips.present, MODALITY_DROPOUT, seeds))

        return self.teach(answer, network, *self.material(start))

    def standardised(self, rows: slice | Tensor) -> dict[str, Tensor]:
        """By what these training clips have."""
        means, scales, _ = moments(self.features["train"][rows].double(), self.known["train"][rows])
        return {
            s: standardised(self.features[s].double(), means, scales, self.known[s])
            .clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS)
            .float()
            for s in SPLITS
        }

    def principal(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each block of features on its principal axes over all training clips."""
        blocks = {s: rows.split(block_sizes(self.widths), 1) for s, rows in features.items()}
        moved: dict[str, list[Tensor]] = {s: [] for s in SPLITS}
        for i, block in enumerate(blocks["train"]):
            axes = torch.linalg.svd(block.double() - block.double().mean(0), full_matrices=False)[2]
            axes = axes[:FEATURE_AXES].T.float()
            spread = (block @ axes).square().mean().sqrt()
            for s in SPLITS:
                moved[s].append(blocks[s][i] @ axes / spread)
        return {s: torch.cat(rows, 1) for s, rows in moved.items()}

    def canonical(self) -> dict[str, list[Tensor]]:
        """What face and voice of a clip have in common: pairs of directions that go together over all clips.

        Hotelling 1936, "Relations Between Two Sets of Variates"; here of principal axes.
        """
        axes = self.principal(self.standardised(slice(None)))
        half = axes["train"].shape[1] // 2
        sides = {s: rows.double().split(half, 1) for s, rows in axes.items()}
        whitened = []
        for side in sides["train"]:
            values, vectors = torch.linalg.eigh(side.T @ side / len(side))
            whitened.append(vectors @ torch.diag((values + values.mean()).rsqrt()) @ vectors.T)
        face, voice = (side @ white for side, white in zip(sides["train"], whitened, strict=True))
        left, _, right = torch.linalg.svd(face.T @ voice)
        turns = (whitened[0] @ left[:, :CANONICAL_AXES], whitened[1] @ right[:CANONICAL_AXES].T)
        return {s: [(x @ turn).float() for x, turn in zip(sides[s], turns, strict=True)] for s in SPLITS}


class HiddenLayer(nn.Module):
    """As `HiddenLayerFusion`, on features that were made before."""

    def __init__(self, num_features: int, num_outputs: int):
        super().__init__()
        self.gain = min(1.0, NUM_INPUTS_AT_FULL_RATE / num_features)
        self.dropout = nn.Dropout(0.5)
        self.inner, self.outer = nn.Linear(num_features, 256), nn.Linear(256, num_outputs)
        with torch.no_grad():
            self.inner.weight.div_(self.gain)

    def forward(self, rows: Tensor) -> Tensor:
        inner = functional.gelu(self.inner(self.gain * self.dropout(rows)))
        return self.outer(self.dropout(inner)).sigmoid()
