"""Other backends (decord, torchcodec) give the frames that PyAV gives, or PyAV reads the clip and says so."""

from __future__ import annotations

import logging
import sys

import numpy as np
import pytest
import torch
from support.media import make_clip
from support.optional import do_without, package
from support.selection import some_of
from support.streams import STREAMS, write_clip, write_stream

from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import ClipDecoder
from viper_e2e.decoding.decord import import_decord
from viper_e2e.decoding.torchcodec import NvdecReader, import_torchcodec
from viper_e2e.errors import ClipError, ViperError

IMPORTS = {"decord": import_decord, "torchcodec": import_torchcodec}
X264 = {"preset": "veryfast", "bf": "3", "g": "12"}
TRUSTED = [name for name in STREAMS if name.split()[-1] in ("mp4", "mov", "mkv", "webm")]


@pytest.fixture(params=IMPORTS)
def backend(request) -> str:
    try:
        IMPORTS[request.param]()
    except ViperError as error:
        do_without(error)
    return request.param


def decoded(path, backend: str, **settings):
    config = DecodingConfig(**{"num_frames": 7, "max_side": None, "backend": backend, **settings})
    return ClipDecoder(config)(path)


@pytest.fixture(scope="module", params=STREAMS)
def any_stream(request, tmp_path_factory):
    return write_stream(tmp_path_factory.mktemp("streams"), request.param)


@pytest.mark.slow
@pytest.mark.parametrize("num_frames", some_of([3, 7, 75], lambda _, count: count == 7))
@pytest.mark.parametrize("any_stream", TRUSTED, indirect=True)
def test_frames_are_those_of_pyav(any_stream, num_frames, backend):
    for source in (any_stream, any_stream.read_bytes()):
        ours, theirs = (decoded(source, name, num_frames=num_frames) for name in ("pyav", backend))
        assert theirs.frames.dtype == np.uint8
        assert (theirs.frames == ours.frames).all()
        assert (theirs.frame_seconds == ours.frame_seconds).all()
        assert theirs.display_size == ours.display_size


@pytest.mark.parametrize("any_stream", ["mp4", "mov", "mkv", "vp9 webm"], indirect=True)
def test_what_can_be_trusted_is_not_left_to_pyav(any_stream, backend, caplog):
    decoder = ClipDecoder(DecodingConfig(backend=backend))
    with caplog.at_level(logging.INFO):
        decoder(any_stream)
    assert decoder.frames_decoded is None, "PyAV would have counted"
    assert not caplog.text


@pytest.mark.slow
def test_sound_is_that_of_pyav(backend, tmp_path):
    path = make_clip(tmp_path / "clip.mp4", num_frames=60, fps=15, options=X264, rate=48_000)
    ours, theirs = decoded(path, "pyav"), decoded(path, backend)
    for run, expected in zip(theirs.sound, ours.sound, strict=True):
        assert run.start_seconds == expected.start_seconds
        assert (run.samples == expected.samples).all()


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_frames_are_turned_upright_and_scaled(rotation, backend, tmp_path):
    path = write_clip(tmp_path / "turned.mp4", pts=range(10), rotation=rotation, size=(96, 64))
    ours, theirs = (decoded(path, name, sound="none", max_side=48) for name in ("pyav", backend))
    assert theirs.frames.shape == ours.frames.shape
    assert theirs.display_size == ours.display_size
    # Another scaler: like, not equal.
    assert np.abs(theirs.frames.astype(float) - ours.frames).mean() < 6


@pytest.mark.slow
def test_windows_are_those_of_pyav(backend, tmp_path):
    path = make_clip(tmp_path / "clip.mp4", num_frames=60, fps=15, options=X264)
    for (start, theirs), (expected, ours) in zip(
        *(
            ClipDecoder(DecodingConfig(num_frames=4, backend=b)).windows(path, 2.0, 1.0)
            for b in (backend, "pyav")
        ),
        strict=True,
    ):
        assert start == expected
        assert (theirs.frames == ours.frames).all()


@pytest.mark.parametrize("name", ["clip.ts", "clip.avi"])
def test_a_kind_that_is_not_trusted_is_read_by_pyav_and_it_is_said(name, backend, tmp_path, caplog):
    path = make_clip(tmp_path / name, options=X264, audio_codec="libmp3lame", rate=44_100)
    with caplog.at_level(logging.INFO):
        theirs = decoded(path, backend)
    assert (theirs.frames == decoded(path, "pyav").frames).all()
    assert f"{name} is read by PyAV, not by {backend}" in caplog.text


@pytest.mark.slow
def test_on_damaged_clips_pyav_has_the_last_word(backend, tmp_path):
    whole = make_clip(tmp_path / "clip.mp4", num_frames=40, options=X264).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(12):
        damaged = bytearray(whole)
        for place in rng.integers(200, len(whole) // 2, 30):
            damaged[place] = rng.integers(256)
        ours, theirs = (outcome(bytes(damaged), name) for name in ("pyav", backend))
        assert isinstance(ours, str) or ours == theirs


def outcome(data: bytes, backend: str) -> str | tuple[int, ...]:
    try:
        return decoded(data, backend).frames.shape
    except ClipError as error:
        return str(error)


def test_frames_that_a_gpu_decoded_stay_there_through_windows_and_clips(tmp_path, monkeypatch):
    """With the CPU in the GPU's place: all but the decoding itself."""
    try:
        import_torchcodec()
    except ViperError as error:
        do_without(error)
    monkeypatch.setattr(NvdecReader, "device", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    path = make_clip(tmp_path / "clip.mp4", num_frames=60, fps=15, options=X264)
    ours, theirs = decoded(path, "pyav"), decoded(path, "nvdec")
    assert isinstance(theirs.frames, torch.Tensor)
    assert (theirs.frames.numpy() == ours.frames).all()
    windows = ClipDecoder(DecodingConfig(num_frames=4, backend="nvdec")).windows(path, 2.0, 1.0)
    assert all(isinstance(clip.frames, torch.Tensor) for _, clip in windows)


@pytest.mark.parametrize("library", ["decord", "torchcodec"])
def test_a_library_that_is_not_installed_is_named(library, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    path = make_clip(tmp_path / "clip.mp4", options=X264)
    with pytest.raises(ViperError, match=f"{library} is not installed.*pip install {library}, or leave"):
        decoded(path, library)


def test_missing_libraries_of_ffmpeg_are_named(tmp_path, monkeypatch):
    torchcodec = package("torchcodec")
    monkeypatch.setattr(torchcodec, "ffmpeg_major_version", None)
    path = make_clip(tmp_path / "clip.mp4", options=X264)
    with pytest.raises(ViperError, match="install ffmpeg"):
        decoded(path, "torchcodec")


def test_a_gpus_decoder_is_refused_in_a_worker_and_without_a_gpu(tmp_path, monkeypatch):
    try:
        import_torchcodec()
    except ViperError as error:
        do_without(error)
    path = make_clip(tmp_path / "clip.mp4", options=X264)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ViperError, match="needs a GPU"):
        decoded(path, "nvdec")
    monkeypatch.setattr("multiprocessing.parent_process", lambda: "somebody")
    with pytest.raises(ViperError, match="--num-workers 0"):
        decoded(path, "nvdec")
