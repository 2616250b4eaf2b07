"""Every command goes through clips by one path: the same clips fail alike, and what was known stays known."""

from __future__ import annotations

import csv
import json
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from accelerate import Accelerator
from support import ROOT
from support.deadly_decoder import DeadlyDecoder
from support.loader_fakes import TWO_LABELS, FakeDecode, FakeShards
from support.media import make_clip
from support.training_runs import lines

from viper_e2e.commands import pictures
from viper_e2e.commands.cli import main
from viper_e2e.config import EvalConfig, InferConfig
from viper_e2e.config.presets import micro
from viper_e2e.decoding import ClipDecoder
from viper_e2e.errors import ViperError
from viper_e2e.loading import windows
from viper_e2e.loading.clip_source import ClipSource
from viper_e2e.loading.quarantine import Quarantine
from viper_e2e.loading.stream import Reading
from viper_e2e.model.viper import ViPER
from viper_e2e.runtime.processes import Processes
from viper_e2e.scoring import passes
from viper_e2e.scoring.journal import ResultJournal, identity_of
from viper_e2e.scoring.named_files import ClipFiles, FileWords
from viper_e2e.scoring.score import Hooks, Wanted, score
from viper_e2e.scoring.sources import Subset
from viper_e2e.shards import ShardSet, ShardWriter

KILLED = "left out: killed by SIGKILL"


class World(NamedTuple):
    """A model, and a shard of four clips and some that end whatever process decodes them."""

    folder: Path
    dead: list[str]


@pytest.fixture(scope="module", params=[3, pytest.param(10, marks=pytest.mark.campaign)])
def world(request, tmp_path_factory) -> World:
    dead = [f"dead-{i}" for i in range(request.param)]
    folder = tmp_path_factory.mktemp("world")
    data = make_clip(folder / "clip.mp4", num_frames=4, fps=4).read_bytes()
    with ShardWriter(folder, "all", TWO_LABELS, shard_size=10**9) as writer:
        for i, key in enumerate([*dead[:2], "a", "b", "c", "d", *dead[2:]]):
            writer.add(key, {"mp4": data}, file_id=f"[{key}]", intensities=(i / 20, i % 3 / 2))
    torch.manual_seed(0)
    ViPER(micro(), TWO_LABELS).save_pretrained(folder / "model")
    return World(folder, dead)


@pytest.fixture
def deadly(monkeypatch):
    for_model = ClipDecoder.for_model.__func__
    monkeypatch.setattr(
        ClipDecoder, "for_model", classmethod(lambda _, config: for_model(DeadlyDecoder, config))
    )
    monkeypatch.setattr("viper_e2e.scoring.checking.ClipDecoder", DeadlyDecoder)
    monkeypatch.setattr("viper_e2e.loading.skips.ALWAYS_ENDURED", 10)


def failures(folder: Path, out: Path, command: str) -> dict[str, str]:
    """Run a command over the shard; key → reason of each clip that it names as failed."""
    shards, model = f"--shards={folder}/all-*.tar", f"--checkpoint={folder}/model"
    workers = "--num-workers=2"
    if command == "eval":
        assert main(["eval", model, shards, f"--out={out}", workers]) == 2
        with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
            return {row["key"]: row["error"] for row in csv.DictReader(file) if row["error"]}
    if command == "ablate":
        assert main(["ablate", model, shards, f"--out={out}", workers]) == 2
        found = json.loads((out / "ablation.json").read_text())
        assert len(found["rows"]) == 3
        return found["failed"]
    if command == "check":
        assert main(["check", shards, f"--output={out}.json", workers]) == 2
        clips = json.loads(Path(f"{out}.json").read_text())["clips"]
        return {clip["key"]: clip["error"].removeprefix("worker: ") for clip in clips if clip["error"]}
    windows = ["--window-seconds=0.5"] if command == "infer in windows" else []
    assert main(["infer", model, f"{folder}/all-000000.tar", f"--output={out}.json", workers, *windows]) == 2
    records = json.loads(Path(f"{out}.json").read_text())
    assert {r["clip"] for r in records if r["valid"]} == set("abcd")
    return {record["clip"]: record["error"] for record in records if not record["valid"]}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["eval", "infer", "infer in windows", "ablate", "check"])
def test_every_command_names_the_same_clips_that_end_their_workers(world, tmp_path, deadly, command):
    assert failures(world.folder, tmp_path / "out", command) == dict.fromkeys(world.dead, KILLED)


@pytest.mark.slow
def test_training_and_validation_name_them_too_and_go_on(world, tmp_path, deadly):
    words = [
        f"--train-shards={world.folder}/all-*.tar",
        f"--val-shards={world.folder}/all-*.tar",
        "--preset=micro",
    ]
    words += [f"--run-dir={tmp_path}/run", "--epochs=1", "--batch-size=7", "--num-workers=2"]
    assert main(["train", *words]) == 0
    records = lines(tmp_path / "run", "skipped.jsonl")
    for split in (None, "val"):
        named = {r["key"]: (r["stage"], r["exception"]) for r in records if r.get("split") == split}
        assert named == {key: ("worker", f"{key}: {KILLED}") for key in world.dead}
    assert lines(tmp_path / "run", "metrics.jsonl")[0]["val"]["num_left_out"] == len(world.dead)


# --- the path itself --------------------------------------------------------------------------------


def test_what_clips_lie_in_are_all_sources_of_clips(tmp_path):
    with ShardWriter(tmp_path, "all", TWO_LABELS, shard_size=10**9) as writer:
        for key in "abc":
            writer.add(key, {"mp4": key.encode()}, file_id=key)
    shards = ShardSet(f"{tmp_path}/all-*.tar")
    files = ClipFiles([tmp_path / "clip.mp4"])
    for source in (shards, files, Subset(shards, [2, 1]), FakeShards([2])):
        assert isinstance(source, ClipSource)
    subset = Subset(shards, [2, 1])
    assert [subset.entry(i).key for i in range(2)] == ["c", "b"]
    assert subset.read(1).video == b"b"


def test_without_a_model_clips_are_decoded_alone_and_no_torch_is_loaded():
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from support.loader_fakes import FakeDecode, FakeShards\n"
        "from viper_e2e.scoring.score import score, Reading\n"
        "import viper_e2e.scoring.checking\n"
        "shards = FakeShards([4], renamed={1: 'damaged', 2: 'torn'}, unusable=(('odd', 'has no video'),))\n"
        "found = list(score(None, shards, Reading(num_workers=0), decode=FakeDecode()))\n"
        "print([(p.index, p.clip, p.duration_seconds, p.stage) for p in found], 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    said = [
        (0, "k000", 1.0, ""),
        (1, "damaged", None, "decode"),
        (2, "torn", None, "read"),
        (3, "k003", 1.0, ""),
    ]
    assert done.stdout.strip() == f"{[*said, (-1, 'odd', None, 'read')]} False"


def test_a_clip_is_not_left_out_for_another_of_its_name():
    shards = FakeShards([3], renamed={0: "killed", 2: "killed"})
    found = list(score(None, shards, Reading(num_workers=1, batch_size=1), decode=FakeDecode()))
    assert [one.stage for one in found] == ["worker", "", "worker"]


@pytest.fixture(scope="module")
def model() -> ViPER:
    torch.manual_seed(0)
    return ViPER(micro(), TWO_LABELS).eval()


class Alone:
    """One of several processes, whose others are told what they have scored."""

    def __init__(self, index: int, count: int, others: list):
        self.index, self.count, self.others = index, count, others

    def gather_list(self, items: list, *, purpose: str) -> list:
        return [*self.others, *items]


def scored(model: ViPER, count: int = 6, **how) -> list:
    shards = FakeShards([count], renamed={2: "damaged"})
    reading = Reading(batch_size=2, num_workers=0)
    return list(score(model, shards, reading, decode=FakeDecode(height=64), **how))


@pytest.mark.parametrize("hidden", [((),), ((), ("audio",), ("visual",))])
def test_every_process_has_every_prediction_in_the_end_each_once(model, hidden):
    wanted = Wanted(hidden=hidden)
    whole = {(p.index, p.hidden): p for p in scored(model, wanted=wanted)}
    assert sorted(whole) == sorted((i, names) for i in range(6) for names in hidden)
    first = scored(model, wanted=wanted, processes=Alone(0, 2, []))
    told = [p for p in first if p.error != "no process has scored it; run the same command again"]
    second = scored(model, wanted=wanted, processes=Alone(1, 2, told))
    assert len(second) == len(whole)
    for one in second:
        same = whole[one.index, one.hidden]
        assert (one.clip, one.error, one.present) == (same.clip, same.error, same.present)
        if one.error is None:
            assert list(one.intensities.values()) == pytest.approx(list(same.intensities.values()), abs=1e-6)


def test_what_the_journal_knows_is_not_scored_again_and_comes_out_the_same(model, tmp_path, monkeypatch):
    wanted = Wanted(boxes=True, hidden=((), ("audio",)))

    def journal() -> ResultJournal:
        return ResultJournal(tmp_path / "parts", "this model", Processes(Accelerator(cpu=True)))

    whole = scored(model, wanted=wanted, journal=journal())
    done = []
    in_batches = passes.in_batches

    def counting(one_pass):
        done.append(len(one_pass.source))
        return in_batches(one_pass)

    monkeypatch.setattr(passes, "in_batches", counting)
    assert scored(model, wanted=wanted, journal=journal()) == whole
    assert not done
    path = next((tmp_path / "parts").iterdir())
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]) + '{"torn')
    assert scored(model, wanted=wanted, journal=journal()) == whole
    assert done == [4]


@pytest.mark.parametrize("damage", [b"\0" * 40, b"\xff\xfe", b"[]", b"nonsense"], ids=repr)
def test_a_damaged_line_of_a_journal_costs_its_own_clip_alone(damage, tmp_path):
    journal = ResultJournal(tmp_path / "parts", "this model", Processes(Accelerator(cpu=True)))
    journal.add({"one": {"predicted": [0.1]}, "two": {"predicted": [0.2]}, "three": {"predicted": [0.3]}})
    (path,) = (tmp_path / "parts").iterdir()
    first, _, third = path.read_bytes().split(b"\n")[:-1]
    path.write_bytes(b"\n".join([first, damage, third, b""]))
    assert journal.known() == {"one": {"predicted": [0.1]}, "three": {"predicted": [0.3]}}


def test_a_setting_that_came_later_parts_no_model_from_its_journals(model, monkeypatch):
    counted = []
    monkeypatch.setattr("viper_e2e.scoring.journal.digest", lambda parts: counted.append(str(parts)) or "")
    identity_of(model, EvalConfig(checkpoint="model", shards="a.tar", out="out"))
    assert "extra_modalities" not in counted[0]
    monkeypatch.setattr(type(model), "config", replace(model.config, extra_modalities={"pulse": {"rate": 30}}))
    identity_of(model, EvalConfig(checkpoint="model", shards="a.tar", out="out"))
    assert "'extra_modalities': {'pulse': {'rate': 30}}" in counted[1]


@pytest.mark.parametrize("windows", [None, (2.0, 1.0)], ids=["whole", "windows"])
def test_a_model_is_in_evaluation_mode_while_it_scores_and_then_as_it_was(model, monkeypatch, windows):
    modes = []
    watching = model.fusion.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    shards, decode = FakeShards([1]), FakeDecode(height=64)
    window = (0.0, decode(shards.read(0)))
    monkeypatch.setattr(passes, "decode_windows", lambda *_: iter([(0, window), (0, window), (0, None)]))
    how = {"decode": decode} if windows is None else {"wanted": Wanted(windows=windows)}
    model.train()
    try:
        predictions = list(score(model, shards, Reading(num_workers=0), **how))
        assert model.training
    finally:
        watching.remove()
        model.eval()
    assert len(predictions) == (1 if windows is None else 2)
    assert modes
    assert not any(modes)


@pytest.mark.parametrize(
    ("has_model", "how", "told"),
    [
        (True, {"wanted": Wanted(windows=(2.0, 1.0)), "decode": FakeDecode()}, "leave out `decode`"),
        (True, {"wanted": Wanted(windows=(2.0, 1.0)), "hooks": Hooks(quarantine=Quarantine())}, "and `hooks`"),
        (False, {"wanted": Wanted(boxes=True), "decode": FakeDecode()}, "leave out `wanted`"),
        (False, {"hooks": Hooks(on_batch=print), "decode": FakeDecode()}, "and `on_batch`"),
    ],
)
def test_a_wish_that_would_not_be_heeded_is_refused(model, has_model, how, told):
    scoring = score(model if has_model else None, FakeShards([1]), Reading(num_workers=0), **how)
    with pytest.raises(ViperError, match=told):
        next(scoring)


def test_windows_with_modalities_hidden_are_refused():
    with pytest.raises(ViperError, match="leave out `hidden`"):
        Wanted(windows=(2.0, 1.0), hidden=((), ("audio",)))


def test_a_source_of_ones_own_needs_nothing_but_the_contract():
    """What of a clip has changed is asked of its source, whatever it is; it was asked of files alone."""

    class Changing(FakeShards):
        def has_changed(self, i: int) -> bool:
            return i == 1

    source = Subset(Changing([3]), [2, 1])
    assert isinstance(source, ClipSource)
    found = list(score(None, source, Reading(num_workers=0), decode=FakeDecode()))
    assert [one.warning for one in found] == [None, "the file was changed while it was scored"]
    assert source.name_of(0) == "k002 2"


def test_nobody_asks_a_source_what_it_is():
    asked = re.compile(r"isinstance\([^\n]*\b(ShardSet|ClipFiles|Subset|ClipSource|SampleReader|ShardIndex)\b")
    files = sorted((ROOT / "viper_e2e").rglob("*.py"))
    assert files
    assert [path.name for path in files if asked.search(path.read_text(encoding="utf-8"))] == []


def test_words_handed_over_change_nothing_of_what_was_named(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"clip")
    files = ClipFiles([path])
    told = files.with_words(FileWords("Hello."))
    assert (files.read(0).words, [cue.text for cue in told.read(0).words]) == ((), ["Hello."])
    assert files.name_of(0) != told.name_of(0)
    path.write_bytes(b"another")
    assert told.has_changed(0)


def test_processes_share_clips_that_are_only_decoded():
    seen = []
    hooks = Hooks(on_clip=lambda i, clip: seen.append(i))
    how = {"decode": FakeDecode(), "hooks": hooks, "processes": Alone(1, 2, [])}
    found = list(score(None, FakeShards([5]), Reading(num_workers=0), **how))
    assert seen == [1, 3]
    assert len(found) == 5


def test_hooks_see_what_passes_and_the_model_is_left_as_it_was(model):
    batches, clips = [], []
    model.train()
    hooks = Hooks(on_batch=lambda b, output: batches.append(b.keys), on_clip=lambda i, clip: clips.append(i))
    scored(model, hooks=hooks)
    assert model.training
    model.eval()
    assert batches == [["k000", "k001"], ["damaged", "k003"], ["k004", "k005"]]
    assert clips == list(range(6))


RECORD = {"valid": True, "end_seconds": 1.0}


class Begun(Exception):
    """With the bytes that a pool of workers is sent once."""


@pytest.mark.parametrize("asked", ["windows", "videos"])
def test_workers_get_no_index_of_all_clips(tmp_path, monkeypatch, asked):
    """Those that decode windows or draw had been sent the whole source, however large it is."""

    def begin(task: object, *_: object, **how: object) -> None:
        raise Begun(len(pickle.dumps(task)))

    monkeypatch.setattr(windows, "WorkerPool", begin)
    monkeypatch.setattr(pictures, "WorkerPool", begin)
    model, sizes = ViPER(micro()), []
    decoder, options = model.decoder, InferConfig(inputs=[], render="", out=str(tmp_path))
    for count in (2, 200):
        (tmp_path / str(count)).mkdir()
        with ShardWriter(tmp_path / str(count), "all", TWO_LABELS, shard_size=10**9) as writer:
            for i in range(count):
                writer.add(f"{i:03d}", {"mp4": b"clip"}, file_id=f"{i:03d}")
        source = Subset(ShardSet(f"{tmp_path}/{count}/all-*.tar"), range(count))
        run = {
            "windows": lambda source: next(windows.decode_windows(source, decoder, 2.0, 1.0, Reading())),
            "videos": lambda source, n=count: pictures.draw_pictures([source], [[RECORD]] * n, model, options),
        }
        with pytest.raises(Begun) as begun:
            run[asked](source)
        sizes += begun.value.args
    assert sizes[0] == sizes[1]
