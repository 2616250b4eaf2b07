"""full_size.py: the preset `paper` at published sizes, random weights: a clip end to end, and an import.

    python benchmarks/full_size.py [CLIP] [--without-import]

Counts the parameters of every branch beside the published ones, scores a clip (default: a made one of 10 s with
a face) with action units beside it, then saves a whole pickled Perceiver of full size as the authors release
theirs and imports it. Nothing is downloaded; the numbers that come out say nothing, their cost does. Memory is
the process's highest resident set (VmHWM), of the import in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from clips import make_clip
from models import CLIP_VIT_B_32
from open_clip.tokenizer import bytes_to_unicode
from rich.console import Console
from rich.table import Table
from transformers import PerceiverConfig, PerceiverModel, RobertaConfig, RobertaModel
from transformers.models.perceiver.modeling_perceiver import PerceiverClassificationDecoder

from viper_e2e.clip import Sample
from viper_e2e.config import BackboneConfig, ModelConfig, paper, with_settings
from viper_e2e.encoders import TokenCache
from viper_e2e.model import ViPER

PUBLISHED = {
    "visual": ("ViT-B/16, in21k", 86.4e6),
    "audio": ("WavLM-base-plus with x-vectors", 101e6),
    "image_text": ("CLIP ViT-B/32", 151.3e6),
    "sentence_encoder": ("RoBERTa-base", 124.6e6),
    "fusion": ("Perceiver, defaults", 280e6),
}
"""As their hub pages and papers give them; ViT and RoBERTa with the pooling layer that is not used here."""

ROUNDING = 0.04
"""Counts may differ by this share: published ones are rounded, and poolers are left out here."""


def full_size(folder: Path) -> ModelConfig:
    """The preset with random weights; only RoBERTa passes through a folder, since it needs a tokeniser."""
    return with_settings(
        paper(),
        {
            "visual.backbone": BackboneConfig(config={"model_type": "vit"}),
            "audio.backbone": BackboneConfig(config={"model_type": "wavlm"}),
            "textual.image_text": BackboneConfig(config=CLIP_VIT_B_32),
            "textual.sentence_encoder": BackboneConfig(str(write_roberta(folder / "roberta"))),
        },
    )


def write_roberta(folder: Path) -> Path:
    sizes = RobertaConfig(vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1)
    RobertaModel(sizes, add_pooling_layer=False).save_pretrained(folder)
    words = ["<s>", "<pad>", "</s>", "<unk>", *sorted(bytes_to_unicode().values()), "<mask>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer"}))
    return folder


def count(model: ViPER) -> dict[str, int]:
    counts = {
        name: sum(parameter.numel() for parameter in backbone.parameters())
        for encoder in model.encoders.values()
        for name, backbone in encoder.backbones().items()
    }
    return counts | {"fusion": sum(parameter.numel() for parameter in model.fusion.parameters())}


def score(model: ViPER, clip: Path) -> tuple[dict[str, float], dict]:
    """CPU seconds of each stage, and the record of the clip."""
    units = np.random.default_rng(0).random((32, 27), dtype=np.float32)
    sample = Sample(clip.name, clip.read_bytes(), action_units=units)
    seconds, start = {}, time.process_time()

    def lap(stage: str) -> None:
        nonlocal start
        seconds[stage], start = time.process_time() - start, time.process_time()

    with torch.no_grad():
        prepared, cache = model.prepare([sample]), TokenCache()
        lap("decode and faces")
        for name in model.modalities:
            hidden = torch.tensor([[other != name for other in model.modalities]])
            model(prepared, hidden=hidden, cache=cache)
            # The first pass encodes every modality and keeps the tokens: later ones are the Perceiver alone.
            lap("encoders and Perceiver" if name == model.modalities[0] else "Perceiver alone")
    return seconds, model.predict(prepared[0])


def import_full_size(folder: Path) -> dict[str, float]:
    """A released file of full size, made by saving such a module, converted in a process of its own."""
    sizes = PerceiverConfig(d_model=2080, num_labels=7)
    positions = {"num_channels": sizes.d_latents, "index_dims": 1}
    decoder = PerceiverClassificationDecoder(
        sizes,
        num_channels=sizes.d_latents,
        trainable_position_encoding_kwargs=positions,
        use_query_residual=True,
    )
    path = folder / "perceiver_7.model"
    torch.save(PerceiverModel(sizes, decoder=decoder), path)
    code = (
        "import sys; from pathlib import Path; from viper_e2e.published import import_published\n"
        "import_published(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "print(Path('/proc/self/status').read_text())"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(folder / "imported")],
        check=True,
        capture_output=True,
        text=True,
    )
    return {
        "file GB": path.stat().st_size / 1e9,
        "seconds": time.perf_counter() - start,
        "peak GB": peak(done.stdout),
    }


def peak(status: str) -> float:
    """GB of a process's ``/proc/PID/status``."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path, help="a clip to score (default: a made one)")
    parser.add_argument(
        "--without-import", action="store_true", help="leave out the import of a full-size file"
    )
    options = parser.parse_args()
    console = Console(highlight=False, width=100)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        clip = options.clip or make_clip(folder / "clip.mp4", 360, 10.0, face=True)
        model = ViPER(full_size(folder)).eval()
        table = Table("branch", "published as", "published", "here", title="parameters", title_justify="left")
        for name, found in count(model).items():
            title, published = PUBLISHED[name]
            table.add_row(name, title, f"{published / 1e6:.1f} M", f"{found / 1e6:.1f} M")
            assert abs(found / published - 1) < ROUNDING, (
                f"{name}: {found:,} parameters, published {published:,}"
            )
        console.print(table)
        seconds, record = score(model, clip)
        assert all(np.isfinite(value) for value in record["intensities"].values())
        assert all(record["present"].values()), record["present"]
        for stage, took in seconds.items():
            console.print(f"{stage}: {took:.1f} s CPU")
        shares = ", ".join(f"{name} {value:.3f}" for name, value in record["intensities"].items())
        console.print(f"outputs (random weights): {shares}")
        console.print(
            f"present: {', '.join(record['present'])}; frames with a face: {record['face_found']:.0%}"
        )
        console.print(f"peak memory: {peak(Path('/proc/self/status').read_text()):.1f} GB")
        del model
        if not options.without_import:
            figures = ", ".join(f"{name} {value:.2f}" for name, value in import_full_size(folder).items())
            console.print(f"import of a released file: {figures}")


if __name__ == "__main__":
    main()
