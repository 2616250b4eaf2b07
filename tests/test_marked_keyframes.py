"""Frames are right where a file marks pictures as keyframes that are none, whatever backend reads it."""

from __future__ import annotations

import av
import numpy as np
import pytest
from support.containers import boxes, put
from support.media import make_clip
from support.optional import do_without

from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import ClipDecoder
from viper_e2e.decoding.decord import import_decord
from viper_e2e.decoding.torchcodec import import_torchcodec
from viper_e2e.errors import ViperError

IMPORTS = {"decord": import_decord, "torchcodec": import_torchcodec}
CODECS = {
    "mpeg4": {"g": "12"},
    "libx264": {"g": "12", "bf": "2", "preset": "veryfast"},
    "libx265": {"x265-params": "log-level=none:keyint=12:pools=1"},
    "mpeg2video": {"g": "12", "bf": "2"},
}


@pytest.fixture(params=["pyav", *IMPORTS])
def backend(request) -> str:
    if load := IMPORTS.get(request.param):
        try:
            load()
        except ViperError as error:
            do_without(error)
    return request.param


def all_marked(tmp_path, codec: str):
    """Sixty frames, of which one in twelve is a keyframe and all are marked as such."""
    path = make_clip(
        tmp_path / "clip.mp4", num_frames=60, fps=25, codec=codec, options=CODECS[codec], sound=None
    )
    data = path.read_bytes()
    # Without a table of keyframes every sample is one (ISO/IEC 14496-12, 8.6.2).
    (table,) = boxes(data, b"stss")
    path.write_bytes(put(data, table - 4, "4s", b"free"))
    return path


@pytest.mark.parametrize("codec", CODECS)
def test_pictures_wrongly_marked_as_keyframes_are_decoded_with_those_before(codec, backend, tmp_path):
    path = all_marked(tmp_path, codec)
    with av.open(str(path)) as container:
        everything = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    config = DecodingConfig(num_frames=7, max_side=None, sound="none", backend=backend)
    clip = ClipDecoder(config)(path)
    places = np.round(clip.frame_seconds * 25).astype(int).tolist()
    assert places == sorted(set(places))
    assert len(places) == 7
    assert [(ours == everything[i]).all() for ours, i in zip(clip.frames, places, strict=True)] == [True] * 7
