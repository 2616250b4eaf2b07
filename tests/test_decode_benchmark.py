"""The benchmark of decoding compares like with like: its `identical` says whether frames are exact."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from support.odd_clips import B_FRAMES, INTERLACED, MPEG2, ffmpeg

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "filters", "words"),
    [
        ("uneven.mp4", "select='not(mod(n,3))+gt(mod(n,50),30)'", f"{B_FRAMES} -fps_mode passthrough"),
        ("uneven.mkv", "select='not(mod(n,3))+gt(mod(n,50),30)'", f"{B_FRAMES} -fps_mode passthrough"),
        ("long_gop.mp4", "null", f"{B_FRAMES} -g 600 -sc_threshold 0"),
        ("fields.ts", INTERLACED.format("tff"), f"{MPEG2} -flags +ildct+ilme"),
        ("wide.avi", "setsar=4/3", "-c:v mpeg4 -q:v 2"),
    ],
)
def test_frames_of_decoding_everything_are_ours(name, filters, words, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import decoders

    monkeypatch.delitem(sys.modules, "decoders")
    source = "testsrc2=size=96x64:rate=30000/1001:duration=5.3"
    ffmpeg("-f", "lavfi", "-i", source, "-vf", filters, *words.split(), tmp_path / name)
    data = (tmp_path / name).read_bytes()
    wanted = decoders.wanted_frames(data)
    ours, _, _ = decoders.ours("pyav")(data, wanted)
    everything, _, _ = decoders.decode_all()(data, wanted)
    assert np.array_equal(ours, everything)
