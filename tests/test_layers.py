"""Files import from earlier wings alone and through their doors; heavy packages wait until needed."""

from __future__ import annotations

import ast
import pickle
import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.selection import some_of

from viper_e2e.commands import COMMANDS

PACKAGE = Path(__file__).resolve().parent.parent / "viper_e2e"

ORDER = (
    *("errors", "tasks", "labels", "clip", "moved"),
    *("config", "runtime", "decoding", "shards", "loading", "faces"),
    *("encoders", "tables", "cutting", "packing"),
    *("fusion", "model", "published", "scoring", "report", "splits", "training", "experiments", "commands"),
)
"""Files and wings, each of which imports from those before it alone."""
MAX_ROOMS = 24
MAX_LINES = 300
GATEKEEPERS = {
    "webdataset": {"shards"},
    "av": {"decoding", "cutting", "report"},
    "urllib3": {"shards"},
    "difflib": {"errors"},
    "decord": {"decoding"},
    "torchcodec": {"decoding"},
    "facenet_pytorch": {"faces"},
    "kornia": {"faces", "model.augment"},
    "transformers": {"encoders", "fusion"},
    "open_clip": {"encoders"},
    "perceiver_pytorch": {"fusion"},
    "torchaudio": {"encoders", "model.augment"},
    "accelerate": {"runtime.processes", "model.compiling", "scoring", "training", "experiments", "commands"},
    "botocore": {"shards"},
    "google": {"shards"},
    "huggingface_hub": {"shards", "runtime.hub", "model.pretrained", "encoders.parameter_budget"},
    "feat": {"encoders"},
    "peft": {"encoders"},
    "optuna": {"experiments.proposals"},
    "openpyxl": {"tables", "scoring.tabular"},
}

ROOT = PACKAGE.parent
WINGS = [name for name in ORDER if (PACKAGE / name).is_dir()]
SCRIPTS = sorted(
    path.relative_to(ROOT)
    for path in [*ROOT.glob("*.py"), *ROOT.glob("datasets/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]
)
SETTINGS = ("model", "training", "values", "depth")
"""Modules of `config` whose names people write in scripts of their own."""
FOR_OTHERS = {
    "faces": {"DETECTED", "INTERPOLATED", "NONE"},
    "fusion": {"FusionHead", "HiddenLayerFusion", "TokenFusion"},
    "tables": {"LabelTable", "Row", "read_labels", "write_labels"},
    "packing": {"PackReport", "SplitReport"},
    "published": {"Imported", "ReleasedHead", "read_released"},
    "scoring": {"ClipFiles"},
    "shards": {"SampleReader", "ShardError", "expand"},
}
"""Shown for other people's scripts: what functions return and raise, and what was shown before."""


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


@cache
def shown(wing: str) -> dict[str, str]:
    """What a wing shows the others, by its `__init__.pyi`: name and module, "" for a module itself."""
    tree = ast.parse((PACKAGE / wing / "__init__.pyi").read_text(encoding="utf-8"))
    assert all(isinstance(node, ast.ImportFrom) and node.level == 1 for node in tree.body), wing
    return {alias.name: node.module or "" for node in tree.body for alias in node.names}


def past_the_door(module: str, path: Path) -> set[str]:
    """What a file imports of other wings that they do not show."""
    own = module.split(".")[0]
    found = set()
    for name in imports(module, path):
        top, wing, *rest = [*name.split("."), "", ""][: max(3, name.count(".") + 1)]
        if top == "viper_e2e" and wing in set(WINGS) - {own} and rest[0]:
            found |= {name} - {f"viper_e2e.{wing}.{shown_name}" for shown_name in shown(wing)}
    return found


def names_in(path: Path) -> set[str]:
    """Defined or imported at the top of a file."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


@cache
def wanted() -> set[str]:
    """All that wings, scripts and pages ask of one another, as ``viper_e2e.wing.name``."""
    asked = {f"viper_e2e.{module}.{name}" for name, module in shown(".").items()}
    for module, path in modules().items():
        asked |= {name for name in imports(module, path) if name.split(".")[1:2] != [module.split(".")[0]]}
    for path in SCRIPTS:
        asked |= imports(path.stem, ROOT / path)
    for page in ROOT.glob("docs/**/*.md"):
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            asked |= set(re.findall(r"viper_e2e[.\w]+", block))
            for wing, names in re.findall(r"from (viper_e2e\.\w+) import (.+)", block):
                asked |= {f"{wing}.{name}" for name in names.split(", ")}
    # Encoders are named in strings, so that modalities are known without them.
    text = modules()["config.modalities"].read_text(encoding="utf-8")
    return asked | {place.replace(":", ".") for place in re.findall(r"viper_e2e\.\w+:\w+", text)}


def rooms(module: str, path: Path) -> set[str]:
    """Wings, and files at the top, that a file imports from."""
    own = [name.split(".") for name in imports(module, path) if name.startswith("viper_e2e.")]
    return {parts[1] for parts in own if parts[1] in ORDER} - {module.split(".")[0]}


TESTS = PACKAGE.parent / "tests"


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_file_imports_another(path):
    """What several share lies in `tests/support`."""
    files = {file.stem for file in TESTS.glob("test_*.py")} | {"conftest"}
    assert not {name.split(".")[0] for name in imports("", path)} & files


def test_the_house_has_these_rooms_and_no_more():
    there = {module.split(".")[0] for module in modules()}
    assert there == set(ORDER)
    assert len(there) <= MAX_ROOMS


def test_the_front_page_lists_the_wings_in_their_order():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)/` \|", readme, re.MULTILINE) == WINGS


def test_the_page_on_architecture_lists_them_in_their_order():
    text = (PACKAGE.parent / "docs/architecture.md").read_text(encoding="utf-8")
    first, rest = re.escape("`errors tasks labels clip moved`"), r"[^#]*?"
    listed = re.search(f"{first}{rest}\n\n", text)
    assert listed
    assert " ".join(re.findall(r"`([a-z ]+)`", listed[0])).split() == list(ORDER)


def test_every_file_is_read_in_one_sitting():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_point_to_earlier_rooms(module):
    own = ORDER.index(module.split(".")[0])
    for other in rooms(module, modules()[module]):
        assert ORDER.index(other) < own, f"{module} imports {other}, which stands behind it"


@pytest.mark.parametrize("module", sorted(modules()))
def test_wings_are_entered_through_their_doors(module):
    assert past_the_door(module, modules()[module]) == set()


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_scripts_enter_wings_through_their_doors(script):
    assert past_the_door(script.stem, ROOT / script) == set()


@pytest.mark.parametrize("wing", WINGS)
def test_a_door_shows_what_is_there_and_what_somebody_wants(wing):
    public = FOR_OTHERS.get(wing, set())
    if wing == "config":
        public = {name for name, module in shown(wing).items() if module in SETTINGS} | {"MODALITIES"}
    assert public <= set(shown(wing))
    for name, module in shown(wing).items():
        file = PACKAGE / wing / f"{module or name}.py"
        assert file.is_file(), name
        assert not module or name in names_in(file), name
        assert name in public or f"viper_e2e.{wing}.{name}" in wanted(), f"nobody asks for {name}"


@pytest.mark.parametrize(("wing", "name"), [("runtime", "console"), ("decoding", "probe"), ("packing", "pack")])
def test_a_module_that_is_imported_first_does_not_hide_the_function_of_its_name(wing, name):
    """The import system writes a submodule into its package, where the door's function has to stay."""
    assert shown(wing)[name] == name
    code = f"import viper_e2e.{wing}.{name}; from viper_e2e.{wing} import {name} as it; print(type(it))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "module" not in done.stdout


@pytest.mark.parametrize("module", sorted(modules()))
def test_each_dependency_has_its_gatekeepers(module):
    for name in imports(module, modules()[module]):
        top = name.split(".")[0]
        if top in GATEKEEPERS:
            allowed = GATEKEEPERS[top] & {module, module.split(".")[0]}
            assert allowed, f"{module} imports {top}"


@pytest.mark.parametrize(
    "code",
    [
        "import viper_e2e",
        "import viper_e2e.config, viper_e2e.clip, viper_e2e.labels",
        "import viper_e2e.decoding",
        "import viper_e2e.shards",
        "from viper_e2e.report import RenderClip",
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


HEAVY = (
    *("torch", "torch._dynamo", "torch._inductor", "torch.distributed.tensor", "torchvision", "torchaudio"),
    *("transformers", "open_clip", "facenet_pytorch", "kornia", "peft", "accelerate", "webdataset"),
    *("matplotlib", "tensorboard", "jsonargparse", "pyarrow", "scipy", "sympy", "boto3", "botocore"),
    *(f"transformers.models.{kind}.modeling_{kind}" for kind in ("wavlm", "clip", "siglip", "whisper")),
    "viper_e2e.report.render",
)
ACCELERATES = {"torch", "accelerate"} | ({"boto3", "botocore"} if find_spec("boto3") else set())
"""accelerate loads boto3 wherever that is installed."""
LOADED = {
    "commands.inference": ACCELERATES,
    "commands.evaluation": ACCELERATES,
    "commands.ablation": ACCELERATES,
    "commands.bench": ACCELERATES,
    "experiments.seeds": ACCELERATES | {"tensorboard"},
    "commands.checking": set(),
    "commands.packing": set(),
    "commands.env": set(),
}
"""Of these, what a command loads before it knows the model, whose settings say what else is needed."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    some_of(list(LOADED), lambda _, module: module in ("commands.inference", "experiments.seeds")),
)
def test_a_command_leaves_to_a_model_what_only_some_models_need(module):
    assert loaded_by(f"import viper_e2e.{module}") <= LOADED[module]


@pytest.mark.campaign
def test_a_model_of_faces_and_sound_loads_nothing_of_the_others(tmp_path, tiny_clip):
    from viper_e2e import ViPER
    from viper_e2e.config import PRESETS

    ViPER(PRESETS["tiny"]()).save_pretrained(tmp_path / "model")
    words = [
        "infer",
        str(tiny_clip()),
        "--checkpoint",
        str(tmp_path / "model"),
        "--output",
        f"{tmp_path}/out.json",
    ]
    loaded = loaded_by(f"from viper_e2e.commands import main\nassert main({words!r}) == 0")
    ears = "transformers.models.whisper.modeling_whisper"
    assert loaded >= {"transformers", "torchvision", ears}  # a ViT; faces
    assert not loaded & {"open_clip", "kornia", "peft", "webdataset", "matplotlib", "tensorboard", "pyarrow"}
    assert {name for name in loaded if name.startswith(("transformers.models.", "viper_e2e."))} == {ears}


def test_a_worker_that_reads_files_loads_nothing_that_only_shards_need():
    """What a worker imports is paid for by each of them."""
    from viper_e2e.config import DecodingConfig
    from viper_e2e.decoding import ClipDecoder
    from viper_e2e.loading.clip_reader import ClipReader, DecodeSample
    from viper_e2e.scoring import ClipFiles

    files = ClipFiles(["https://host/clip.mp4"])
    task = pickle.dumps(ClipReader(files.reader(), DecodeSample(ClipDecoder(DecodingConfig()))))
    code = f"import viper_e2e.loading.worker_process, pickle, sys; pickle.loads({task!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "viper_e2e.decoding.decoder" in loaded
    assert not loaded & {"viper_e2e.shards.reading", "viper_e2e.shards.tar", "jaxtyping", "torch", "rich"}


def loaded_by(code: str) -> set[str]:
    code += f"\nimport sys; print(*{set(HEAVY)!r} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()) if done.stdout.strip() else set()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_loads_nothing_that_it_does_not_need(command):
    code = f"""
import sys
from viper_e2e.commands.cli import main
try: main([{command!r}, "--help"])
except SystemExit: pass
heavy = {{"numpy", "torch", "rich", "av", "jsonargparse", "yaml", "matplotlib"}} & sys.modules.keys()
sys.exit(", ".join(heavy) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
