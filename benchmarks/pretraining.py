"""pretraining.py: whether clips without labels help the default head where few have labels.

    python benchmarks/pretraining.py --weights ../shared/weights --out runs/learning
        [--labelled 64] [--draws 3] [--only default,masked,…]

Corpus and frozen tokens are those of `learning.py`, in the same OUT. Of its 640 training clips 64 keep their
labels: the first 64, the second 64, … are draws. `VARIANTS` use all 640 in some other way first; then every
network learns the 64 as `--preset base` teaches it: 20 epochs, the weights that validate best. Networks are
taught one by one, the hidden layer on standardised features from its first step on, and the answer is joined as
`EnsembleFusion` joins it. A row is the mean Pearson correlation on 160 clips of people in no other split.

A draw moves the score by more than a seed does, so each has its own seed and a gain has to show on the mean of
several. Rows go into OUT/pretraining.jsonl; those that are there are not computed again.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from learning import VARIANTS as READINGS
from learning import adopted, known, make_corpus, mean_pearson, settings_of, tokens_of
from torch import Tensor, nn
from torch.nn import functional

from viper_e2e.config import TrainConfig
from viper_e2e.encoders import PreparedClip, Stream
from viper_e2e.fusion import (
    MAX_DEVIATIONS,
    NUM_INPUTS_AT_FULL_RATE,
    NUM_TIME_FEATURES,
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
    time_features,
)
from viper_e2e.model import ViPER
from viper_e2e.runtime import console, table
from viper_e2e.shards import ShardSet
from viper_e2e.training import schedule_factor

EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM, MODALITY_DROPOUT = 20, 16, 3e-3, 0.01, 1.0, 0.1
"""Of `--preset base` with `--epochs 20`."""
TOKEN_AXES, FEATURE_AXES, CANONICAL_AXES = 128, 40, 10
PRETRAINING_STEPS, PRETRAINING_BATCH = 400, 64
MASKED_SHARE, TEMPERATURE = 0.5, 0.1
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


# --- clips ----------------------------------------------------------------------------------------


class Clips(NamedTuple):
    """Of one split, in order of their names, as a head reads them."""

    streams: dict[str, Stream]
    face_found: Tensor
    duration_seconds: Tensor
    targets: Tensor
    subjects: Tensor
    """A number for each."""

    def rows(self, rows: Tensor) -> Clips:
        streams = {name: Stream(*(part[rows] for part in stream)) for name, stream in self.streams.items()}
        return Clips(streams, *(column[rows] for column in self[1:]))

    @property
    def inputs(self) -> tuple[dict[str, Stream], Tensor, Tensor]:
        return self.streams, self.face_found, self.duration_seconds

    @property
    def present(self) -> Tensor:
        return torch.stack([stream.present.any(1) for stream in self.streams.values()], 1)


@torch.no_grad()
def read(module: ViPER, shards: ShardSet, prepared: dict[str, PreparedClip]) -> Clips:
    """Through `ViPER.watch`, so that a clip is what the product would have fused."""
    entries = sorted((shards.entry(i) for i in range(len(shards))), key=lambda entry: entry.key)
    seen: list[tuple[dict[str, Stream], Tensor, Tensor]] = []
    module.watch = lambda *inputs: seen.append(inputs)
    for i in range(0, len(entries), BATCH):
        module([adopted(prepared[entry.key], module, last_alone=False) for entry in entries[i : i + BATCH]])
    module.watch = None
    streams = {
        name: Stream(*(torch.cat(parts) for parts in zip(*(one[0][name] for one in seen), strict=True)))
        for name in module.modalities
    }
    names = sorted({entry.subject for entry in entries})
    return Clips(
        streams,
        torch.cat([one[1] for one in seen]),
        torch.cat([one[2] for one in seen]),
        torch.tensor([entry.intensities for entry in entries]),
        torch.tensor([names.index(entry.subject) for entry in entries]),
    )


def on_axes(splits: dict[str, Clips]) -> dict[str, Clips]:
    """Tokens on their principal axes over all training clips, labelled or not."""
    moved = {split: dict(clips.streams) for split, clips in splits.items()}
    for name, stream in splits["train"].streams.items():
        tokens = stream.tokens[stream.present & stream.used].double()
        centre = tokens.mean(0)
        _, vectors = torch.linalg.eigh((tokens - centre).T @ (tokens - centre))
        axes = vectors[:, -TOKEN_AXES:].flip(1)
        for split, clips in splits.items():
            old = clips.streams[name]
            projected = ((old.tokens.double() - centre) @ axes).float()
            kept = (old.present & old.used)[..., None]
            moved[split][name] = old._replace(tokens=torch.where(kept, projected, 0.0))
    return {split: clips._replace(streams=moved[split]) for split, clips in splits.items()}


# --- the recipe -----------------------------------------------------------------------------------


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

    # --- parts ----------------------------------------------------------------------------------

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

    # --- features -------------------------------------------------------------------------------

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


# --- without labels -------------------------------------------------------------------------------


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
        change = torch.where(kept, stream.tokens - mean, 0.0)[..., :FEATURE_AXES]
        wanted[name] = change / change[kept[..., 0]].std(0)
    filler = Filler(network.modalities, network.perceiver.latents.shape[1], FEATURE_AXES)
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


# --- rows and table -------------------------------------------------------------------------------


def score(answers: Tensor, clips: Clips) -> float:
    return mean_pearson(answers.numpy(), clips.targets.numpy())


def measure(draw: Draw, key: str) -> dict[str, Any]:
    began, variant = time.perf_counter(), VARIANTS[key]
    whole = draw.answers(variant)
    parts = {
        part: score(draw.part(part, start)["test"], draw.splits["test"])
        for part, start in vars(variant).items()
        if part != "name"
    }
    return {
        "mean_pearson": score(whole["test"], draw.splits["test"]),
        "val": score(whole["val"], draw.splits["val"]),
        "parts": parts,
        "seconds": time.perf_counter() - began,
    }


def print_table(results: Mapping[str, Mapping[str, Any]], draws: int) -> None:
    lines = []
    for key, variant in VARIANTS.items():
        measured = [i for i in range(draws) if f"{key}/{i}" in results and f"default/{i}" in results]
        rows = [results[f"{key}/{i}"] for i in measured]
        gains = [
            results[f"{key}/{i}"]["mean_pearson"] - results[f"default/{i}"]["mean_pearson"] for i in measured
        ]
        if rows:
            each = " ".join(f"{row['mean_pearson']:.3f}" for row in rows)
            parts = " ".join(f"{fmean(row['parts'][part] for row in rows):.3f}" for part in rows[0]["parts"])
            lines.append(
                (variant.name, each, f"{fmean(row['val'] for row in rows):.3f}", f"{fmean(gains):+.3f}", parts)
            )
    titles = (
        "uses the clips without labels for",
        "each draw",
        "validation",
        "gain",
        "ridge, hidden layer, Perceiver",
    )
    console.print(table("mean Pearson on unseen subjects", titles, lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="as for learning.py")
    parser.add_argument("--out", type=Path, required=True, help="as for learning.py")
    parser.add_argument("--labelled", type=int, default=64, help="clips with labels in each draw")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--only", default=",".join(VARIANTS), help=f"some of {', '.join(VARIANTS)}")
    options = parser.parse_args()
    options.clips, options.epochs = [], EPOCHS
    options.out.mkdir(parents=True, exist_ok=True)
    make_corpus(options)
    file = options.out / "pretraining.jsonl"
    settings = settings_of(
        options, READINGS["default"], options.out / "none", f"{options.out}/shards/train-*.tar"
    )
    module, prepared = ViPER(settings.model).eval(), tokens_of(options)
    shards = {split: ShardSet(f"{options.out}/shards/{split}-*.tar") for split in SPLITS}
    splits = {split: read(module, shards[split], prepared[split]) for split in SPLITS}
    for number in range(options.draws):
        missing = [key for key in options.only.split(",") if f"{key}/{number}" not in known(file)]
        draw = Draw(module, settings.train, splits, number, options.labelled) if missing else None
        for key in missing:
            row = {"key": f"{key}/{number}", **measure(draw, key)}
            with file.open("a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")
            console.print(f"{row['key']}: {row['mean_pearson']:.4f} in {row['seconds']:.0f} s")
    print_table(known(file), options.draws)


if __name__ == "__main__":
    main()
