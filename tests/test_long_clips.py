"""Long clips: frames decoded and memory held depend on what is looked at, hardly on the length."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import av
import pytest
from conftest import make_clip

from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import ClipDecoder
from viper_e2e.presets import micro

ROOT = Path(__file__).resolve().parent.parent

# Not `ru_maxrss`, which a child inherits from the process that started it: here from all of pytest.
PEAK = """
import re, sys
from pathlib import Path
def print_peak():
    print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1], "torch" in sys.modules)
"""


def repeat_clip(source, target, times: int):
    """A long clip out of a short one, without encoding anything again."""
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        length = stream.duration * stream.time_base
    with av.open(str(target), "w") as out:
        streams, last = {}, {}
        for number in range(times):
            with av.open(str(source)) as container:
                for stream in container.streams:
                    if stream.index not in streams:
                        streams[stream.index] = out.add_stream_from_template(stream)
                for packet in container.demux():
                    if packet.dts is None:
                        continue
                    index = packet.stream.index
                    shift = round(number * length / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    # The sound of one round reaches into the next.
                    if packet.dts > last.get(index, -(10**9)):
                        last[index] = packet.dts
                        packet.stream = streams[index]
                        out.mux(packet)
    return target


def peak_of(code: str, *arguments) -> tuple[int, bool]:
    """Peak resident memory in kB of a process that runs the code, and whether it loaded torch."""
    command = [sys.executable, "-c", PEAK + code + "\nprint_peak()", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    peak, has_torch = done.stdout.split()[-2:]
    return int(peak), has_torch == "True"


@pytest.fixture(scope="module", params=[30, 60])
def ten_minutes(request, tmp_path_factory):
    """(GOP, ten seconds, ten minutes) of the same clip, 320 pixels wide."""
    folder = tmp_path_factory.mktemp("long")
    options = {"preset": "veryfast", "bf": "3", "g": str(request.param), "sc_threshold": "0"}
    short = make_clip(
        folder / "short.mp4", num_frames=300, fps=30, width=320, height=192, options=options, rate=16_000
    )
    return request.param, short, repeat_clip(short, folder / "long.mp4", 60)


def test_a_long_clip_decodes_half_a_gop_for_each_frame_at_most(ten_minutes):
    gop, _, path = ten_minutes
    decoder = ClipDecoder(DecodingConfig())
    clip = decoder(path)
    assert clip.duration_seconds == pytest.approx(600, abs=0.1)
    assert len(clip.frames) == 32
    assert decoder.frames_decoded <= 32 * gop / 2 * 1.1
    assert sum(len(run.samples) for run in clip.sound) / 16_000 == pytest.approx(62, abs=0.2)


DECODE = """
from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import ClipDecoder
ClipDecoder(DecodingConfig())(sys.argv[1])
"""


def test_peak_memory_of_decoding_hardly_depends_on_length_and_no_torch_is_loaded(ten_minutes):
    _, short, long = ten_minutes
    (of_short, has_torch), (of_long, _) = peak_of(DECODE, short), peak_of(DECODE, long)
    assert not has_torch
    assert of_long <= 1.3 * of_short


INFER = """
sys.argv[0] = "infer.py"
from viper_e2e.cli import main
assert main(["infer", sys.argv[1], "--checkpoint", sys.argv[2], "--num-workers", "0", "--device", "cpu"]) == 0
"""


@pytest.mark.slow
def test_peak_memory_of_scoring_hardly_depends_on_length(tmp_path):
    from viper_e2e.model import ViPER

    config = micro()
    config.decoding.num_frames = 32
    ViPER(config).save_pretrained(tmp_path / "model", self_contained=True)
    short = make_clip(tmp_path / "short.mp4", num_frames=300, fps=30, width=160, height=120)
    long = repeat_clip(short, tmp_path / "long.mp4", 60)
    (of_short, _), (of_long, _) = (peak_of(INFER, path, tmp_path / "model") for path in (short, long))
    assert of_long <= 1.3 * of_short


def test_windows_hold_no_more_than_a_few_windows(tmp_path):
    options = {"preset": "ultrafast", "g": "50"}
    short = make_clip(tmp_path / "short.mp4", num_frames=100, fps=10, options=options)
    path = repeat_clip(short, tmp_path / "long.mp4", 18)
    decoder = ClipDecoder(DecodingConfig(num_frames=8))
    num_windows, size = 0, 0
    tracemalloc.start()
    try:
        for _, clip in decoder.windows(path, 12, 6):
            num_windows += 1
            size = max(size, clip.frames.nbytes + sum(run.samples.nbytes for run in clip.sound))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert num_windows == 29
    assert peak < 4 * size + 1e6
