"""test_segments.py: clips that are a part of their file: a stretch of its time, a half of its picture."""

from __future__ import annotations

import numpy as np
import pytest
from support.media import make_clip, tone

from viper_e2e.clip import Segment
from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import ClipDecoder
from viper_e2e.model.preparing import decode
from viper_e2e.shards import ShardSet, ShardWriter
from viper_e2e.shards.index import index_path, segment_from_json

ALL = DecodingConfig(num_frames=500, max_side=None, sample_rate=16_000, span_seconds=10.0)
B_FRAMES = {"g": "20", "bf": "3", "x264-params": "scenecut=0:open-gop=1"}


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Six seconds of 25 frames a second, with B-frames and open groups, and its frames and sound as a whole."""
    path = make_clip(tmp_path_factory.mktemp("film") / "film.mp4", num_frames=150, fps=25, options=B_FRAMES)
    return path, ClipDecoder(ALL)(path)


@pytest.mark.parametrize(
    ("start", "end", "first", "last"),
    [(0.0, 6.0, 0, 150), (1.0, 2.0, 25, 50), (1.01, 1.99, 26, 50), (0.0, 0.04, 0, 1), (5.5, 99.0, 138, 150)],
)
def test_the_frames_of_a_segment_are_those_shown_first_between_its_edges(film, start, end, first, last):
    path, whole = film
    clip = ClipDecoder(ALL)(path, segment=Segment(start, end))
    np.testing.assert_array_equal(clip.frames, whole.frames[first:last])
    np.testing.assert_allclose(clip.frame_seconds, whole.frame_seconds[first:last] - start, atol=1e-9)
    assert clip.duration_seconds == pytest.approx(min(end, whole.duration_seconds) - start)


def test_the_sound_of_a_segment_is_what_is_heard_between_its_edges(film):
    path, whole = film
    (run,) = ClipDecoder(ALL)(path, segment=Segment(1.5, 3.25)).sound
    (all_of_it,) = whole.sound
    at = round((1.5 - all_of_it.start_seconds) * 16_000)
    assert run.start_seconds == pytest.approx(0.0, abs=1 / 16_000)
    np.testing.assert_allclose(run.samples, all_of_it.samples[at : at + len(run.samples)], atol=1e-6)
    assert len(run.samples) == 1.75 * 16_000


@pytest.mark.parametrize("sampling", ["time", "paper"])
@pytest.mark.parametrize("sound", ["spans", "windows"])
def test_a_segment_is_sampled_as_the_same_clip_alone_would_be(film, sampling, sound, tmp_path):
    path, whole = film
    config = DecodingConfig(num_frames=8, max_side=None, sampling=sampling, sound=sound)
    alone = make_clip(tmp_path / "a.mkv", frames=list(whole.frames[50:100]), fps=25, codec="ffv1", sound=None)
    clip = ClipDecoder(config)(path, segment=Segment(2.0, 4.0))
    np.testing.assert_allclose(clip.frame_seconds, ClipDecoder(config)(alone).frame_seconds, atol=2e-3)
    assert clip.sound_seconds == pytest.approx(2.0, abs=1e-3)
    assert clip.unheard_seconds <= 2.0


def test_a_segment_between_two_frames_shows_the_one_that_stands(film):
    path, whole = film
    clip = ClipDecoder(ALL)(path, segment=Segment(1.01, 1.03))
    np.testing.assert_array_equal(clip.frames, whole.frames[25:26])


def test_windows_of_a_segment_count_from_its_start(film):
    path, whole = film
    found = list(ClipDecoder(ALL).windows(path, 1.0, 1.0, segment=Segment(2.0, 5.0)))
    assert [start for start, _ in found] == pytest.approx([0.0, 1.0, 2.0])
    np.testing.assert_array_equal(np.concatenate([clip.frames for _, clip in found]), whole.frames[50:125])


@pytest.mark.parametrize("container", ["avi", "mkv"])
def test_files_that_tell_no_times_of_display_have_segments_too(tmp_path, container):
    path = make_clip(tmp_path / f"a.{container}", num_frames=60, fps=25, codec="mpeg4", options={"g": "12"})
    whole = ClipDecoder(ALL)(path)
    clip = ClipDecoder(ALL)(path, segment=Segment(1.0, 1.6))
    np.testing.assert_array_equal(clip.frames, whole.frames[25:40])


@pytest.mark.parametrize("width", [96, 98])
def test_a_side_is_half_of_the_picture(tmp_path, width):
    path = make_clip(tmp_path / "a.mp4", num_frames=10, width=width)
    whole = ClipDecoder(ALL)(path)
    half = width // 2
    for side, part in (("left", whole.frames[:, :, :half]), ("right", whole.frames[:, :, -half:])):
        clip = ClipDecoder(ALL)(path, segment=Segment(side=side))
        np.testing.assert_array_equal(clip.frames, part)
        assert clip.display_size == (half, 64)
        assert clip.duration_seconds == whole.duration_seconds
    both = Segment(0.2, 0.4, "right")
    np.testing.assert_array_equal(ClipDecoder(ALL)(path, segment=both).frames, whole.frames[3:6, :, -half:])


def test_the_longest_side_is_that_of_the_half(tmp_path):
    path = make_clip(tmp_path / "a.mp4", num_frames=4, width=256, height=64)
    clip = ClipDecoder(DecodingConfig(num_frames=4, max_side=64))(path, segment=Segment(side="right"))
    assert clip.frames.shape[1:] == (32, 64, 3)
    assert clip.display_size == (128, 64)


@pytest.mark.parametrize("bad", [(-1.0, 2.0, "full"), (2.0, 2.0, "full"), (3.0, 2.0, "full")])
def test_a_segment_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match="a segment"):
        Segment(*bad)

    data = dict(zip(("start", "end", "side"), bad, strict=True))
    with pytest.raises(ValueError, match="a segment"):
        segment_from_json(data)


@pytest.mark.parametrize(
    "data", [{"start": 0}, {"start": "0", "end": None}, {"start": 0, "end": 1, "side": "top"}]
)
def test_an_index_with_a_segment_that_is_none_is_refused(data):
    with pytest.raises((ValueError, KeyError, TypeError)):
        segment_from_json(data)


def test_shards_keep_segments_with_their_clips(tmp_path, film):
    data = film[0].read_bytes()
    with ShardWriter(tmp_path, "train", None, shard_size=10**9) as writer:
        writer.add("a", {"mp4": data}, file_id="a", segment=Segment(1.0, 2.0, "left"))
        writer.add("b", {"mp4": data}, file_id="b", segment=Segment(1.0))
        writer.add("c", {"mp4": data}, file_id="c")
    path = tmp_path / "train-000000.tar"

    def look() -> list:
        shards = ShardSet(str(path))
        assert len({shards.clip_id(n) for n in range(3)}) == 3
        return [shards.read(n).segment for n in range(3)]

    assert look() == [Segment(1.0, 2.0, "left"), Segment(1.0), None]
    shards = ShardSet(str(path))
    clip = decode(shards.read(0), ClipDecoder(ALL))
    np.testing.assert_array_equal(clip.frames, film[1].frames[25:50, :, :48])
    index = tmp_path / index_path(path.name)
    assert '"viper_e2e.shard/3"' in index.read_text()
    index.unlink()
    assert look() == [Segment(1.0, 2.0, "left"), Segment(1.0), None]


def test_shards_without_segments_keep_their_schema(tmp_path):
    with ShardWriter(tmp_path, "train", None, shard_size=10**9) as writer:
        writer.add("c", {"mp4": tone(0.1, 8000, 1).tobytes()}, file_id="c")
    text = (tmp_path / "train-000000.index.json").read_text()
    assert '"viper_e2e.shard/1"' in text
    assert "segment" not in text
