"""What no modality of a model wants is neither decoded, nor judged, nor looked at."""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch

from viper_e2e.clip import Sample
from viper_e2e.config import with_settings
from viper_e2e.config.presets import micro
from viper_e2e.decoding import pyav
from viper_e2e.model.viper import ViPER


def model_of(*modalities: str) -> ViPER:
    config = with_settings(micro(), {"modalities": modalities})
    torch.manual_seed(0)
    return ViPER(config).eval()


def damaged(path, kind: str) -> bytes:
    """The packets of one kind overwritten, from the third on."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(**{kind: 0}) if p.size]
    for at, size in places[2:]:
        data[at : at + size] = bytes((i * 37 + 11) % 256 for i in range(size))
    return bytes(data)


def test_a_model_that_only_sees_minds_no_damaged_sound(tiny_clip):
    path = tiny_clip(num_frames=30)
    data, model = damaged(path, "audio"), model_of("visual")
    assert not model_of("visual", "audio").predict(data)["valid"]
    record = model.predict(data)
    assert record["valid"], record["error"]
    assert record["intensities"] == model.predict(path)["intensities"]
    assert record["unheard_seconds"] == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "channels"), [(6_000, 1), (16_000, 16)])
def test_a_model_that_only_sees_minds_no_format_of_sound(rate, channels, tmp_path):
    path = tmp_path / "odd.mov"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        layout = {1: "mono", 16: "hexadecagonal"}[channels]
        audio = container.add_stream("pcm_s16le", rate=rate, layout=layout)
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(np.zeros((1, channels * rate // 2), np.int16), "s16", layout)
        block.sample_rate = rate
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    assert model_of("visual").predict(path)["valid"]
    assert "limits" in model_of("audio").predict(path)["error"]


@pytest.mark.slow
def test_a_model_that_only_hears_looks_at_nothing(tiny_clip, monkeypatch):
    path, model = tiny_clip(num_frames=30), model_of("audio")
    expected = model_of("audio", "visual")
    with torch.no_grad():
        tokens = [m(m.prepare([path])).present for m in (model, expected)]
        (heard,), (both,) = model.prepare([path]), expected.prepare([path])
    assert tokens[0].all()
    assert torch.equal(heard.sound[0][1], both.sound[0][1])
    monkeypatch.setattr(pyav, "whole_frames", lambda *_: pytest.fail("pictures are decoded"))
    monkeypatch.setattr(model.faces, "forward", lambda *_: pytest.fail("a face is looked for"))
    record = model.predict(path)
    assert record["valid"], record["error"]
    assert record["duration_seconds"] == pytest.approx(2.0)
    assert model.predict(damaged(path, "video"))["valid"]
    windows = list(model.decoder.windows(path, 1.0, 1.0))
    assert [len(clip.sound[0].samples) for _, clip in windows] == [16_000, pytest.approx(16_000, abs=1100)]


def test_action_units_that_come_with_a_clip_need_no_pictures(tiny_clip, monkeypatch):
    model = model_of("audio", "action_units")
    sample = Sample("a", tiny_clip(num_frames=30), action_units=np.ones((30, 27), np.float32))
    monkeypatch.setattr(pyav, "whole_frames", lambda *_: pytest.fail("pictures are decoded"))
    record = model.predict(sample)
    assert record["valid"], record["error"]
    assert record["present"] == {"audio": True, "action_units": True}
