"""common.py: how commands load a model, and `viper export` and `import-published`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import torch

from viper_e2e.commands.parsing import backbone_overrides
from viper_e2e.commands.reading_options import apply_reading_options
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.model.compiling import check_compiler, compile_model
from viper_e2e.model.viper import ViPER
from viper_e2e.published import import_published, is_published, published_checkpoint
from viper_e2e.runtime.console import console, loading
from viper_e2e.runtime.devices import own_device
from viper_e2e.runtime.processes import Processes
from viper_e2e.training.precision import compute_dtype, resolve_precision


def overrides_of(options: Namespace) -> dict[str, str]:
    """Where backbones and the sentence bank are to be looked for first."""
    overrides = backbone_overrides(options.backbone)
    return overrides | ({"sentence_bank": options.sentence_bank} if options.sentence_bank else {})


def load_model(options: Namespace) -> ViPER:
    """The checkpoint's model, frozen, on the chosen device; a released one is converted first."""
    source, overrides = options.checkpoint, overrides_of(options)
    device = own_device(getattr(options, "device", None))
    if getattr(options, "compile", False):
        check_compiler(torch.device(device))
    if is_published(source):
        with loading("fetching and converting the model"):
            imported = published_checkpoint(source, overrides=overrides)
        source = imported.folder
        for note in imported.notes:
            console.print(f"[yellow]note: {note}[/yellow]")
    with loading():
        model = ViPER.from_pretrained(source, overrides=overrides)
    if hasattr(options, "max_bytes"):
        apply_reading_options(model.config.decoding, options)
    return model.to(device)


def set_computing(model: ViPER, options: Namespace, processes: Processes) -> None:
    """As ``--mixed-precision`` and ``--compile`` ask; ``options`` holds what ``auto`` came to from here on."""
    options.mixed_precision = resolve_precision(options.mixed_precision, model, processes)
    model.set_compute_dtype(compute_dtype(options.mixed_precision))
    if options.compile:
        compile_model(model)


def run_export(options: Namespace) -> int:
    """Write a folder that needs nothing outside of itself."""
    out = Path(options.out)
    if out.exists():
        raise ViperError(f"{out}: exists already; name a new folder")
    load_model(options).save_pretrained(out, self_contained=True)
    console.print(f"wrote {out}")
    return ExitCode.OK


def run_import(options: Namespace) -> int:
    """Convert one of the authors' released checkpoints into our folder format."""
    out = Path(options.out)
    if out.exists():
        raise ViperError(f"{out}: exists already; name a new folder")
    imported = import_published(options.source, out, overrides=overrides_of(options))
    for note in imported.notes:
        console.print(f"[yellow]note: {note}[/yellow]")
    console.print(f"wrote {imported.folder} ({', '.join(imported.modalities)})")
    return ExitCode.OK
