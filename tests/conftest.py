"""conftest.py: what every test may ask for, and the time that all of them took."""

from __future__ import annotations

import gc
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import ROOT
from support.media import make_clip

if TYPE_CHECKING:
    from support.remote_shards import ShardServer

STARTED = time.monotonic()
BUDGETS = {
    "not slow and not campaign": ("check", 1.5),
    "not campaign": ("test", 8),
    "campaign or survival": ("campaign", 30),
}
"""By what the Makefile selects: its command, and the minutes that it may take on two quiet cores."""


def pytest_configure() -> None:
    """Check annotations, of all that is imported from here on."""
    from support import typechecks

    typechecks.install()


def pytest_collection_finish() -> None:
    """What was imported for all tests stays, and need not be looked through for garbage again and again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Told and no more: a busy machine fails no test."""
    command, minutes = BUDGETS.get(config.option.markexpr, (None, 0))
    if command is not None and config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        taken, wanted = (
            f"{s // 60:.0f}:{s % 60:02.0f} min" for s in (time.monotonic() - STARTED, minutes * 60)
        )
        terminalreporter.write_line(f"make {command}: {taken} of a budget of {wanted} on two quiet cores")


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder with real clips, real weights and the published pipeline's numbers; skips where it is absent."""
    folder = Path(os.environ.get("VIPER_REFERENCE", ROOT.parent / "shared"))
    if (folder / "peer").is_dir():
        return folder
    message = f"reference material not found at {folder} (set VIPER_REFERENCE)"
    if os.environ.get("VIPER_REQUIRE_REFERENCE") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session", autouse=True)
def drafts() -> None:
    """Plots are not drawn; see `drawn_plots`."""
    from support.drafts import draw_drafts

    draw_drafts()


@pytest.fixture(scope="module")
def drawn_plots(drafts) -> Iterator[None]:
    """For tests that look at plots: these are drawn."""
    from support.drafts import drawn

    with drawn():
        yield


@pytest.fixture
def tiny_clip(tmp_path):
    """``tiny_clip(name="a.mp4", **make_clip options) -> Path``."""

    def make(name: str = "clip.mp4", **options) -> Path:
        return make_clip(tmp_path / name, **options)

    return make


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Shards of eight clips to train on and four to validate on."""
    from support.training_runs import make_corpus

    return make_corpus(tmp_path_factory.mktemp("corpus") / "made")


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> Path:
    """A folder as the hub would give it: a tiny ViT with its preprocessor."""
    import torch
    from support.visual_encoders import write_vit

    torch.manual_seed(7)
    return write_vit(tmp_path_factory.mktemp("vit") / "vit")


@pytest.fixture
def nothing_from_outside(monkeypatch) -> None:
    """Neither the hub nor backbones of this machine."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("VIPER_BACKBONES", raising=False)


@pytest.fixture
def script(monkeypatch, capsys):
    """Runs a recipe in this process, as `python datasets/NAME.py …` does; its exit code and what it printed."""
    import runpy
    import sys

    datasets = str(ROOT / "datasets")

    def run(name: str, *words: object) -> tuple[int, str]:
        monkeypatch.setenv("COLUMNS", "400")
        monkeypatch.syspath_prepend(datasets)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, words)])
        with pytest.raises(SystemExit) as done:
            runpy.run_path(f"{datasets}/{name}.py", run_name="__main__")
        return done.value.code, "".join(capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A random micro model: enough to walk every path, no more."""
    import torch

    from viper_e2e import ViPER
    from viper_e2e.config.presets import micro

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    ViPER(micro()).save_pretrained(folder)
    return folder


@pytest.fixture
def encoded() -> Iterator[Counter[str]]:
    """By the name of each clip, how often it is encoded."""
    from support.counted_work import counted_work

    with counted_work() as counts:
        yield counts["encoded"]


@pytest.fixture(scope="module")
def remote_folder(tmp_path_factory) -> Path:
    """Shards for a server."""
    from support.remote_shards import write_shards

    return write_shards(tmp_path_factory.mktemp("remote"))


@pytest.fixture
def shard_server(remote_folder) -> Iterator[ShardServer]:
    """That server; see `support.remote_shards`."""
    from support.remote_shards import serving_shards

    with serving_shards(remote_folder) as server:
        yield server


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory):
    """Real processes for milliseconds; see `support.fork_server`."""
    from support.fork_server import ForkServer

    made = ForkServer(tmp_path_factory.mktemp("logs"))
    yield made
    made.close()
