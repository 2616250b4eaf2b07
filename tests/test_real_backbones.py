"""Real pretrained weights in training: frozen ones stay as they were, unfrozen blocks alone change."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from support.media import make_clip, tone

from viper_e2e.commands.parsing import parse_train
from viper_e2e.encoders.lora import is_adapter
from viper_e2e.encoders.weights import tensors_sha256
from viper_e2e.model.viper import load
from viper_e2e.packing import pack
from viper_e2e.tables import write_labels
from viper_e2e.training.trainer import open_trainer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """Four clips whose brightness tells the one emotion and whose pitch the other."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "videos").mkdir()
    rows = []
    for i in range(4):
        joy, fear = i / 3, i % 2
        frames = [np.full((96, 96, 3), round(30 + 190 * joy), np.uint8) for _ in range(4)]
        make_clip(
            folder / "videos" / f"{i}.mp4",
            frames=frames,
            fps=4,
            sound=tone(1.0, 16_000, 1, hertz=200 + 1500 * fear),
        )
        rows.append({"File_ID": f"[{i}]", "Split": "train", "Joy": joy, "Fear": fear})
    write_labels(folder / "labels.csv", rows)
    assert pack(folder / "videos", folder / "labels.csv", folder / "shards").exit_code == 0
    return folder / "shards"


def settings(reference: Path, shards: Path, run: Path, *words: str):
    weights = reference / "weights"
    return parse_train(
        [
            "--preset=base",
            "--mixed-precision=no",  # `auto` would store what is frozen in bfloat16 where that is faster
            "--modalities=visual,audio",
            f"--backbone=visual={weights / 'dinov2-small'}",
            f"--backbone=audio={weights / 'whisper-tiny-en-encoder'}",
            f"--train-shards={shards}/train-*.tar",
            f"--run-dir={run}",
            "--model.decoding.num_frames=2",
            "--model.fusion.dim=64",
            "--model.fusion.latent_dim=64",
            "--model.fusion.num_latents=8",
            "--num-workers=0",
            "--batch-size=4",
            *words,
        ],
        "viper train",
    )


def hashes(model: torch.nn.Module) -> dict[str, str]:
    return {
        name: tensors_sha256(dict(module.state_dict()))
        for encoder in model.encoders.values()
        for name, module in encoder.backbones().items()
    }


@pytest.mark.campaign
def test_frozen_backbones_keep_their_hashes_and_have_no_optimizer_state(reference, shards, tmp_path):
    words = ("--epochs=10", "--lr=0.003", "--reuse-memory=100MB")
    trainer = open_trainer(settings(reference, shards, tmp_path / "run", *words), Accelerator(cpu=True))
    before = hashes(trainer.run.module)
    assert trainer.train() == 0
    trainer.close()
    assert hashes(trainer.run.module) == before
    optimized = {id(parameter) for parameter in trainer.learner.optimizer.state}
    assert optimized
    assert not optimized & {id(p) for p in trainer.run.module.encoders.parameters()}
    losses = [
        json.loads(line)["train_loss"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    ]
    assert losses[-1] < 0.7 * losses[0]
    saved = json.loads((tmp_path / "run/checkpoints/last/config.json").read_text())["backbones"]
    for name, folder in (("visual", "dinov2-small"), ("audio", "whisper-tiny-en-encoder")):
        on_disk = load_file(reference / "weights" / folder / "model.safetensors")
        assert saved[name]["tensors_sha256"] == tensors_sha256(on_disk)
    own = load_file(tmp_path / "run/checkpoints/last/model.safetensors")
    assert own.keys() == {f"fusion.{name}" for name in trainer.run.module.fusion.state_dict()}


def test_of_partly_unfrozen_backbones_exactly_the_last_two_blocks_change(reference, shards, tmp_path):
    words = ("--unfreeze=visual=2,audio=2", "--max-steps=1", "--warmup-fraction=0")
    trainer = open_trainer(settings(reference, shards, tmp_path / "run", *words), Accelerator(cpu=True))
    before = {name: tensor.clone() for name, tensor in trainer.run.module.encoders.state_dict().items()}
    assert trainer.train() == 0
    trainer.close()
    after = trainer.run.module.encoders.state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    # Of 12 and 4 blocks; the norm that follows the last one stays.
    last = re.compile(r"visual\..*layer\.1[01]\.|audio\..*layers\.[23]\.")
    expected = {name for name in after if last.search(name)}
    trained = {name for name, p in trainer.run.module.encoders.named_parameters() if p.requires_grad}
    assert trained == expected, trained ^ expected
    assert changed == expected, changed ^ expected


@pytest.mark.campaign
def test_of_backbones_with_adapters_exactly_these_change_and_the_rest_is_recorded(reference, shards, tmp_path):
    words = ("--lora=visual=4,audio=4", "--max-steps=2", "--warmup-fraction=0")
    trainer = open_trainer(settings(reference, shards, tmp_path / "run", *words), Accelerator(cpu=True))
    before = {name: tensor.clone() for name, tensor in trainer.run.module.encoders.state_dict().items()}
    assert trainer.train() == 0
    trainer.close()
    after = trainer.run.module.encoders.state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    # Query and value of 12 and 4 blocks, two matrices each.
    assert changed == {name for name in after if is_adapter(name)}
    assert len(changed) == 2 * 2 * (12 + 4)
    folder = tmp_path / "run/checkpoints/last"
    saved = json.loads((folder / "config.json").read_text())["backbones"]
    for name, source in (("visual", "dinov2-small"), ("audio", "whisper-tiny-en-encoder")):
        on_disk = load_file(reference / "weights" / source / "model.safetensors")
        assert saved[name]["tensors_sha256"] == tensors_sha256(on_disk)
    own = load_file(folder / "model.safetensors")
    assert {name for name in own if not name.startswith("fusion.")} == {f"encoders.{name}" for name in changed}
    again = load(folder).encoders.state_dict()
    assert all(torch.equal(again[name], after[name]) for name in after)
