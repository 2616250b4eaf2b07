"""test_av1.py: of an AV1 stream, what other pictures refer to is told from its headers, and nothing less."""

from __future__ import annotations

import os

import av
import numpy as np
import pytest
from support.media import make_clip

from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import ClipDecoder
from viper_e2e.decoding.av1 import References

ENCODERS = {
    "random access": ("libsvtav1", {"preset": "12", "g": "32", "svtav1-params": "lp=1"}),
    "low delay": ("libsvtav1", {"preset": "12", "g": "32", "svtav1-params": "lp=1:pred-struct=1:rtc=1"}),
    "screen content": ("libsvtav1", {"preset": "12", "g": "32", "svtav1-params": "lp=1:scm=1"}),
    "film grain": ("libsvtav1", {"preset": "12", "g": "32", "svtav1-params": "lp=1:film-grain=8"}),
}


@pytest.fixture(scope="module", params=ENCODERS)
def stream(request, tmp_path_factory):
    codec, options = ENCODERS[request.param]
    path = tmp_path_factory.mktemp("av1") / "clip.mp4"
    return make_clip(path, num_frames=70, fps=25, codec=codec, options=options, sound=None)


def test_the_encoder_leaves_this_process_to_be_scheduled_like_any_other(stream):
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def packets_of(path) -> tuple[bytes, list[bytes]]:
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
        return container.streams.video[0].codec_context.extradata, packets


@pytest.mark.slow
@pytest.mark.parametrize("num_frames", [2, 3, 7, 23])
def test_wanted_frames_are_those_of_decoding_everything(stream, num_frames):
    with av.open(str(stream)) as container:
        everything = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(everything) == 70
    clip = ClipDecoder(DecodingConfig(num_frames=num_frames, max_side=None, sound="none"))(stream)
    indices = np.floor(np.linspace(0, 69, num_frames) + 1e-6).astype(int)
    assert all((ours == everything[i]).all() for ours, i in zip(clip.frames, indices, strict=True))


def test_pictures_nothing_refers_to_are_not_decoded(tmp_path):
    codec, options = ENCODERS["random access"]
    path = make_clip(tmp_path / "clip.mp4", num_frames=70, codec=codec, options=options, sound=None)
    decoder = ClipDecoder(DecodingConfig(num_frames=3, max_side=None, sound="none"))
    decoder(path)
    assert decoder.frames_decoded <= 40


def test_without_a_sequence_header_everything_is_needed(stream):
    _, packets = packets_of(stream)
    references = References(None)
    assert all(references.needed_part(memoryview(packet)) == packet for packet in packets[1:32])


def test_what_is_left_out_is_whole_units_of_the_packet(stream):
    extradata, packets = packets_of(stream)
    references = References(extradata)
    for packet in packets:
        part = bytes(references.needed_part(memoryview(packet)))
        assert len(part) <= len(packet)
        # What is left is a packet of its own, of which nothing more can be left out.
        assert bytes(references.needed_part(memoryview(part))) == part


@pytest.mark.slow
def test_damaged_packets_are_handed_on_or_cut_but_never_an_error(stream):
    extradata, packets = packets_of(stream)
    rng = np.random.default_rng(0)
    for number in range(600):
        packet = bytearray(packets[number % len(packets)])
        packet[rng.integers(min(24, len(packet)))] = rng.integers(256)
        header = bytearray(extradata)
        header[rng.integers(len(header))] = rng.integers(256)
        for references in (References(extradata), References(bytes(header))):
            part = references.needed_part(memoryview(bytes(packet[: rng.integers(len(packet)) + 1])))
            assert len(part) <= len(packet)


def test_an_empty_packet_needs_nothing():
    assert len(References(b"").needed_part(memoryview(b""))) == 0
