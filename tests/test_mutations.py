"""Thousands of damaged clips: the run goes on, and each is scored or reported."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from support.containers import CODECS
from support.media import make_clip

pytestmark = pytest.mark.survival

KINDS = ("mp4", "mov", "mkv", "webm", "flv", "ts")
TESTS = Path(__file__).resolve().parent

SCORE = """
    import json, sys
    from pathlib import Path
    import torch
    from viper_e2e.config.presets import micro
    from viper_e2e.loading.stream import Reading
    from viper_e2e.model.records import record_of
    from viper_e2e.scoring.score import Wanted, score
    from viper_e2e.scoring.named_files import ClipFiles
    from viper_e2e.model.viper import ViPER

    torch.manual_seed(0)
    source = ClipFiles(sorted(Path(sys.argv[1]).iterdir()))
    with open(sys.argv[2], "w") as out:
        reading = Reading(num_workers=1, clip_timeout_seconds=30.0)
        for one in score(ViPER(micro()).eval(), source, reading, wanted=Wanted(frames=True)):
            out.write(json.dumps(record_of(one)) + "\\n")
"""


def mutated(data: bytes, other: bytes, seed: int) -> bytes:
    """One of ten ways in which files are damaged, by disks, networks and people who mean it."""
    rng = np.random.default_rng(seed)
    way = seed % 10
    changed = bytearray(data)
    at, length = int(rng.integers(len(data))), int(rng.integers(1, max(2, len(data) // 8)))
    # Headers are small and hold most of what can go wrong: every other damage falls there.
    if rng.random() < 0.5:
        at = int(rng.integers(min(len(data), 1500)))
    match way:
        case 0 | 1 | 2:
            for place in (at + rng.integers(0, 200, 1 + 4 * way)) % len(data):
                changed[place] ^= 1 << int(rng.integers(8))
        case 3:
            changed = changed[: max(1, at)]
        case 4:
            changed[at : at + length] = bytes(min(length, len(data) - at))
        case 5:
            del changed[at : at + length]
        case 6:
            changed[at:at] = changed[at : at + length]
        case 7:
            changed[at:at] = rng.bytes(length)
        case 8:
            # Sizes and counts of headers: four bytes that say something enormous, negative or nothing.
            changed[at : at + 4] = [b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0" * 4][rng.integers(4)]
        case 9:
            changed[at:] = other[at:]
    return bytes(changed)


def campaign(tmp_path: Path, count: int) -> Counter[str]:
    """Score ``count`` damaged clips of each container; how many ended how."""
    originals = {}
    for kind in KINDS:
        codec = {"webm": "libopus", "flv": "aac"}.get(kind, "aac")
        path = make_clip(
            tmp_path / f"whole.{kind}",
            num_frames=8,
            fps=8,
            codec=CODECS[kind],
            options={"g": "4"},
            audio_codec=codec,
            rate=48_000 if kind == "webm" else 44_100,
        )
        originals[kind] = path.read_bytes()
    folder = tmp_path / "clips"
    folder.mkdir()
    others = dict(zip(KINDS, [*KINDS[1:], KINDS[0]], strict=True))
    for number, kind in enumerate(KINDS):
        for i in range(count):
            data = mutated(originals[kind], originals[others[kind]], 1_000_000 * number + i)
            (folder / f"{i:04}-{kind}.{kind}").write_bytes(data)
    out = tmp_path / "records.jsonl"
    command = [sys.executable, "-c", textwrap.dedent(SCORE), str(folder), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=TESTS.parent, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(records) == count * len(KINDS)
    endings: Counter[str] = Counter()
    for record in records:
        endings["scored" if record["valid"] else "reported"] += 1
        if record["valid"]:
            values = [*record["intensities"].values(), record["duration_seconds"], *record["frame_seconds"]]
            assert np.isfinite(values).all(), record
            assert record["frame_seconds"] == sorted(record["frame_seconds"])
        else:
            assert record["error"], record
            assert "\n" not in record["error"]
            endings["worker lost"] += "left out" in record["error"]
    print(dict(endings))
    return endings


@pytest.mark.campaign
def test_damaged_clips_are_scored_or_reported(tmp_path):
    endings = campaign(tmp_path, 10)  # each of the ten ways once in each container
    assert endings["scored"] > 10
    assert endings["reported"] > 10


@pytest.mark.campaign
def test_a_campaign_of_damaged_clips(tmp_path):
    endings = campaign(tmp_path, 500)
    assert endings["scored"] > 500
    assert endings["reported"] > 500


def test_every_way_of_damage_changes_the_file():
    data, other = bytes(range(256)) * 20, bytes(reversed(range(256))) * 20
    changed = {seed % 10 for seed in range(200) if mutated(data, other, seed) != data}
    assert changed == set(range(10))
    assert mutated(data, other, 7) == mutated(data, other, 7)
