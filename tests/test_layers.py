"""A module imports only from layers below its own, and heavy packages wait until they are needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "viper_e2e"

LAYER = {
    **dict.fromkeys(
        ["labels", "config", "config_bounds", "presets", "errors", "environment", "hub", "clip", "version"], 0
    ),
    **dict.fromkeys(["plain_json", "running_time", "clip", "content", "outfiles", "terminal"], 0),
    **dict.fromkeys(["stream", "output", "scale", "progress", "settings"], 1),
    **dict.fromkeys(["encoders.base", "encoders.building", "encoders.lora", "encoders.weights"], 1),
    **dict.fromkeys(
        ["decoding", "faces", "encoders", "fusion", "shards", "metrics", "losses", "augment", "checkpoint"], 2
    ),
    **dict.fromkeys(["predictions", "order", "reuse", "skips", "handover", "clip_reader", "transfer"], 2),
    **dict.fromkeys(["pooling", "ridge", "banded_ridge", "console"], 2),
    **dict.fromkeys(["prepared", "records", "close_ups", "pretrained", "inputs", "model", "workers"], 3),
    **dict.fromkeys(["reading_options", "clip_files"], 3),
    **dict.fromkeys(["loader", "windows", "tabular", "report", "published"], 4),
    **dict.fromkeys(["packing", "checking", "parsing"], 4),
    "engine": 5,
    "cli": 6,
    "names": 0,
}
GATEKEEPERS = {
    "webdataset": {"shards"},
    "av": {"decoding", "report"},
    "decord": {"decoding"},
    "torchcodec": {"decoding"},
    "facenet_pytorch": {"faces"},
    "kornia": {"faces", "augment"},
    "transformers": {"encoders", "fusion"},
    "open_clip": {"encoders"},
    "perceiver_pytorch": {"fusion"},
    "torchaudio": {"encoders", "augment"},
    "accelerate": {"engine"},
    "huggingface_hub": {"hub", "pretrained"},
    "feat": {"encoders"},
    "peft": {"encoders"},
    "openpyxl": {"packing", "tabular"},
}
ORDERED_WITHIN_LAYER = {
    ("fusion", "pooling"),
    ("fusion", "ridge"),
    ("banded_ridge", "ridge"),
    ("presets", "config"),
    ("config_bounds", "config"),
    ("config", "config_bounds"),
    ("prepared", "records"),
    ("model", "pretrained"),
    ("model", "inputs"),
    ("inputs", "prepared"),
    ("model", "prepared"),
    ("model", "close_ups"),
    ("close_ups", "prepared"),
    ("model", "records"),
}


def room_of(module: str) -> str:
    """The name the layers know a module by: ``encoders.visual`` lives in ``encoders``."""
    return module if module in LAYER else module.split(".")[0]


@cache
def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        if name not in ("__init__", "__main__"):
            found[name] = path
    return found


def imports(module: str, path: Path) -> set[str]:
    """Absolute names of everything a file imports, also inside functions."""
    package = ["viper_e2e", *module.split(".")]
    if path.name != "__init__.py":
        package = package[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*parts, node.module] if node.module else parts)
            found |= {prefix} | {f"{prefix}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_point_down(module):
    room = room_of(module)
    assert room in LAYER, f"{module} has no layer yet"
    for name in imports(module, modules()[module]):
        if not name.startswith("viper_e2e."):
            continue
        other = name.removeprefix("viper_e2e.")
        while other not in modules() and "." in other:
            other = other.rpartition(".")[0]
        other = room_of(other)
        if other not in LAYER or other == room or other.split(".")[0] == room.split(".")[0]:
            continue
        down = LAYER[other] < LAYER[room] or other == "errors" or (room, other) in ORDERED_WITHIN_LAYER
        assert down, f"{module} (layer {LAYER[room]}) imports {other} (layer {LAYER[other]})"


@pytest.mark.parametrize("module", sorted(modules()))
def test_each_dependency_has_one_gatekeeper(module):
    for name in imports(module, modules()[module]):
        top = name.split(".")[0]
        if top in GATEKEEPERS:
            assert room_of(module).split(".")[0] in GATEKEEPERS[top], f"{module} imports {top}"


@pytest.mark.parametrize(
    "code",
    [
        "import viper_e2e",
        "import viper_e2e.config.schema, viper_e2e.clip, viper_e2e.labels",
        "import viper_e2e.decoding",
        "import viper_e2e.shards",
        "from viper_e2e.commands.cli import main; main(['--help'])",
        "from viper_e2e.commands.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass",
        "from viper_e2e.commands.cli import main\ntry: main(['infer', '--help'])\nexcept SystemExit: pass",
        "from viper_e2e.commands.cli import main\ntry: main(['pack', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_help_and_light_imports_load_no_torch(code):
    check = "\nimport sys; sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    done = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
