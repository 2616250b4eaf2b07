"""docs/architecture.md names files and functions that are there."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from types import SimpleNamespace

import pytest
from support import ROOT
from support.training_runs import settings

from viper_e2e.config import Settings
from viper_e2e.encoders import ClipView
from viper_e2e.model.slots import lay_out
from viper_e2e.model.viper import ViPER
from viper_e2e.training.data import make_loader, open_splits
from viper_e2e.training.losses import IntensityLoss

TEXT = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
STOPS = re.findall(r"^\d\. `([\w/.]+)`(?: \(and its neighbours\))?, `([\w.]+)`", TEXT, re.MULTILINE)


def test_a_clip_meets_nine_files():
    assert len(STOPS) == 9


def test_from_the_script_to_the_loop_each_file_imports_the_next():
    (line,) = re.findall(r"^From the script to the loop .*?\. Then", TEXT, re.MULTILINE | re.DOTALL)
    files = re.findall(r"`([\w/]+\.py)`", line)
    assert len(files) == 4
    for file, following in pairwise(files):
        wing, module = following.removesuffix(".py").rsplit("/", 1)
        door = (ROOT / wing / "__init__.pyi").read_text(encoding="utf-8")
        wing = wing.replace("/", ".")
        shown = set(re.findall(rf"^from \.{module} import (\w+)", door, re.MULTILINE))
        imports = [
            node
            for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom)
        ]
        asked = {name.name for node in imports if node.module == wing for name in node.names}
        assert asked & shown or f"{wing}.{module}" in {node.module for node in imports}, (file, following)


@pytest.mark.parametrize(("file", "name"), STOPS)
def test_each_stop_is_where_it_is_said_to_be(file, name):
    owner, _, method = name.partition(".")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    (found,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == owner]
    if method:
        assert method in {node.name for node in found.body if isinstance(node, ast.FunctionDef)}


def test_a_newcomer_is_sent_to_files_that_are_there():
    (table,) = re.findall(r"^## Where to change what$(.*?)^## ", TEXT, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (.*`.*) \|$", table, re.MULTILINE)
    assert len(rows) == 16
    for row in rows:
        folder = None
        for name in re.findall(r"`([\w/]+(?:\.py|/))`", row):
            path = ROOT / name if "/" in name else folder / name
            assert path.exists(), name
            folder = path.parent


SIZES = {"B": 3, "T": 4, "E": 2, "K": 1, "M": 2, "N": 4, "H": 64, "W": 96, "P": 32, "D": 16}
"""Of the clips of the corpus and the preset `micro`; all else is whatever it is."""


def test_batches_have_the_shapes_and_dtypes_of_the_table(corpus, tmp_path):
    (table,) = re.findall(r"^### Shapes on the way$(.*?)^### ", TEXT, re.MULTILINE | re.DOTALL)
    told = re.findall(r"^\|[^|]*\| `(\w+)\.(\w+)`[^|]*\| ([^|]*) \| (\w+) \|", table, re.MULTILINE)
    assert len(told) == 21
    found = parts_of_a_step(settings(corpus, tmp_path, "--batch-size=3"))
    for owner, name, shape, dtype in told:
        made = getattr(found[owner], name)
        wanted = [] if shape == "one number" else [SIZES.get(letter, letter) for letter in shape.split()]
        sizes = [own if letter == "S" else letter for own, letter in zip(made.shape, wanted, strict=True)]
        assert list(made.shape) == [int(size) for size in sizes], (owner, name)
        assert str(made.dtype).removeprefix("torch.") == dtype, (owner, name)


def parts_of_a_step(run: Settings) -> dict[str, object]:
    """What one step of training hands on from stage to stage, by its class."""
    shards, _ = open_splits(run.train)
    model = ViPER(run.model, shards.known_labels).train()
    with make_loader(shards, run) as loader:
        batch = next(iter(loader.epoch(0)))
    prepared = model.prepare(batch.clips)
    slots = lay_out(prepared, run.model.decoding.num_frames, model.device, spread=False)
    view = ClipView(prepared[0], slots.frame[0], slots.used[0], run.model.decoding.sample_rate)
    output = model(prepared, keep_streams=True)
    loss = IntensityLoss({"mse": 1.0}, len(model.labels))(output.by_network, batch.intensities, batch.weights)
    crops = SimpleNamespace(crops=view.crops(model.encoders["visual"].crop_spec))
    parts = [
        batch.clips[0],
        batch.clips[0].sound[0],
        batch,
        prepared[0].track,
        slots,
        output.streams["visual"],
        output,
        loss,
    ]
    return {type(part).__name__: part for part in parts} | {"ClipView": crops}


ELSEWHERE = {
    *("extract_audio_features.py", "confusion_matrix.py", "metricsTop.py", "model/post_process.py"),
    "cmu_mosei_std_folds.py",
}
"""Of the authors of what is cited."""


def test_files_that_the_package_names_are_there():
    folders = [ROOT / name for name in ("viper_e2e", "datasets", "benchmarks")]
    files = [*ROOT.glob("*.py"), *(file for folder in folders for file in folder.rglob("*.py"))]
    names = {file.name for file in files} | ELSEWHERE
    missing = {}
    for file in files:
        for name in re.findall(r"`([\w/]+\.py)`", file.read_text(encoding="utf-8")):
            if "/" in name and name not in ELSEWHERE:
                is_there = (ROOT / name).exists() or (ROOT / "viper_e2e" / name).exists()
            else:
                is_there = name in names
            if not is_there:
                missing[file.name] = name
    assert missing == {}
