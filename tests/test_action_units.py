"""The action-unit branch: rows where the instants are, zeros for what was not measured."""

from __future__ import annotations

import copy
import gc

import numpy as np
import psutil
import pytest
import torch

from viper_e2e.clip import Sample
from viper_e2e.config import ActionUnitConfig, with_settings
from viper_e2e.config.presets import micro
from viper_e2e.encoders import TokenCache
from viper_e2e.encoders.action_units import ActionUnitEncoder
from viper_e2e.errors import ViperError
from viper_e2e.loading import Reading
from viper_e2e.model.viper import ViPER

ENCODER = ActionUnitEncoder(ActionUnitConfig())


def rows(count: int) -> torch.Tensor:
    return torch.arange(count, dtype=torch.float32)[:, None].expand(count, 27) + 1


def test_as_many_rows_as_instants_come_out_unchanged_and_padded(reference):
    units = torch.from_numpy(np.load(reference / "peer/expected/features.npz")["fau"]).float()
    tokens, present = ENCODER.embed([units], [32])
    assert tokens.shape == (1, 32, 32)
    assert torch.equal(tokens[0, :, :27], units)
    assert (tokens[0, :, 27:] == 0).all()
    assert present.all()


@pytest.mark.parametrize(
    ("count", "instants", "chosen"),
    [(9, 5, [1, 3, 5, 7, 9]), (2, 4, [1, 1, 2, 2]), (1, 3, [1, 1, 1]), (5, 1, [1]), (100, 2, [1, 100])],
)
def test_each_instant_takes_the_nearest_row(count, instants, chosen):
    tokens, _ = ENCODER.embed([rows(count)], [instants])
    assert tokens[0, :, 0].tolist() == chosen


def test_what_was_not_measured_is_zero_and_a_row_of_nothing_is_absent():
    units = rows(3)
    units = units.clone()
    units[0, 4] = float("nan")
    units[1] = float("nan")
    tokens, present = ENCODER.embed([units, None, torch.empty(0, 27)], [3, 2, 3])
    assert present.tolist() == [[True, False, True], [False] * 3, [False] * 3]
    assert tokens[0, 0, 4] == 0
    assert tokens[0, 0, 5] == 1
    assert (tokens[0, 1] == 0).all()
    assert (tokens[1:] == 0).all()


def test_clips_of_fewer_instants_end_in_absent_zeros():
    tokens, present = ENCODER.embed([rows(2), rows(2)], [4, 2])
    assert present.tolist() == [[True] * 4, [True, True, False, False]]
    assert (tokens[1, 2:] == 0).all()


def test_rows_of_another_width_are_an_error_that_names_it():
    with pytest.raises(ViperError, match="rows of 20 values, expected 27"):
        ENCODER.embed([torch.zeros(3, 20)], [3])
    with pytest.raises(ViperError, match="27 units do not fit into embed_dim 16"):
        ActionUnitEncoder(ActionUnitConfig(embed_dim=16))


def test_there_is_nothing_to_train():
    assert ENCODER.is_frozen
    assert ENCODER.records() == {}
    assert list(ENCODER.parameters()) == []
    ENCODER.to_compute_dtype(torch.bfloat16)
    assert ENCODER.embed([rows(1)], [1])[0].dtype == torch.float32


# --- on the fly: py-feat in a child process -------------------------------------------------------

STUB = '''
import os, time
import numpy as np

UNITS = [f"AU{n:02}" for n in (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23, 24, 25, 26, 28, 43)]
EMOTIONS = ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"]


class Column(np.ndarray):
    def to_numpy(self, dtype=None):
        return np.asarray(self, dtype)


class Table:
    """What the child reads of a pandas table."""

    def __init__(self, columns, values):
        self.columns, self.values = columns, values

    def to_numpy(self, dtype=None):
        return np.asarray(self.values, dtype)


class Fex:
    def __init__(self, frame, aus, emotions):
        self._frame = np.asarray(frame).view(Column)
        # Not in the published order, and with a unit that was not published.
        self.aus = Table(["AU99", *UNITS[::-1]][LEFT_OUT:], np.hstack([aus[:, :1], aus[:, ::-1]])[:, LEFT_OUT:])
        self.emotions = Table(EMOTIONS[::-1], emotions[:, ::-1])

    def __getitem__(self, name):
        return {"frame": self._frame}[name]


class Detectorv1:
    def __init__(self, device, face_model, landmark_model, au_model, emotion_model, identity_model, gaze_model):
        print("py-feat prints to stdout")
        AT_START

    def detect(self, pixels, data_type, batch_size, num_workers, progress_bar):
        """Row per face: a frame of nothing but zeros has none, one above 200 has a second face."""
        assert data_type == "tensor" and pixels.ndim == 4 and pixels.shape[1] == 3, pixels.shape
        frame, values = [], []
        for i, picture in enumerate(pixels):
            mean = picture.float().mean().item()
            if mean == 7:
                os._exit(3)
            if mean == 8:
                time.sleep(60)
            frame += [i, i] if mean > 200 else [i]
            row = mean + np.arange(27) / 100 if mean else np.full(27, np.nan)
            values += [row, row * 0] if mean > 200 else [row]
        values = np.array(values)
        print("and prints again")
        return Fex(frame, values[:, :20], values[:, 20:])
'''


TORCH = '''
"""What the child and the stub ask of torch, whose import takes seconds."""
import contextlib
import numpy as np


class Tensor(np.ndarray):
    def permute(self, *axes):
        return self.transpose(axes)

    def float(self):
        return self.astype(np.float32)


def from_numpy(array):
    return array.view(Tensor)


no_grad = contextlib.nullcontext
'''


@pytest.fixture
def py_feat(tmp_path, monkeypatch):
    """``py_feat(at_start="pass", left_out=0)`` puts a package of its documented output in its place."""

    def install(at_start: str = "pass", left_out: int = 0, real_torch: bool = False) -> ActionUnitEncoder:
        (tmp_path / "feat").mkdir(exist_ok=True)
        code = STUB.replace("AT_START", at_start).replace("LEFT_OUT", str(left_out))
        (tmp_path / "feat/__init__.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        of_child = tmp_path / "of the child"
        of_child.mkdir(exist_ok=True)
        if not real_torch:
            # Workers take over where their parent looks for modules; this process has its torch already.
            (of_child / "torch.py").write_text(TORCH)
            monkeypatch.syspath_prepend(of_child)
        return ActionUnitEncoder(ActionUnitConfig(source="py-feat"))

    return install


def pictures(*levels: int) -> torch.Tensor:
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 6, 8, 3)


@pytest.mark.slow
def test_units_are_measured_on_whole_frames_and_placed_by_name(py_feat):
    encoder = py_feat(real_torch=True)
    units = encoder.measure(pictures(10, 0, 250))
    assert units.shape == (3, 27)
    torch.testing.assert_close(units[0], 10 + torch.arange(27) / 100)
    assert units[1].isnan().all()
    torch.testing.assert_close(units[2], 250 + torch.arange(27) / 100, msg="the first face counts")
    tokens, present = encoder.embed([units], [3])
    assert present.tolist() == [[True, False, True]]
    assert (tokens[0, 1] == 0).all()


def test_a_copy_of_an_encoder_measures_the_same(py_feat):
    encoder = py_feat()
    units = encoder.measure(pictures(10))
    assert torch.equal(copy.deepcopy(encoder).measure(pictures(10)), units)


def test_a_model_measures_what_the_shard_does_not_bring(py_feat, tiny_clip):
    py_feat()
    config = with_settings(micro(), {"modalities": ("action_units",), "action_units.source": "py-feat"})
    model = ViPER(config).eval()
    path = tiny_clip("a.mp4", sound=None)
    brought = np.full((4, 27), 0.5, np.float32)
    with torch.no_grad():
        measured = model([path])
        given = model([Sample("b", path.read_bytes(), action_units=brought)])
        cached, cache = model.prepare([path]), TokenCache()
        first = model(cached, cache=cache).intensities
        again = model([model.cacheable(cached[0], cache)]).intensities
    assert measured.present.tolist() == given.present.tolist() == [[True]]
    assert not torch.equal(measured.intensities, given.intensities)
    assert torch.equal(first, measured.intensities)
    assert torch.equal(again, first)


def test_from_the_shard_alone_nothing_is_measured(py_feat):
    py_feat()
    assert ActionUnitEncoder(ActionUnitConfig()).measure(pictures(10)) is None


def lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("viper_e2e")]


def test_without_py_feat_units_are_absent_and_said_to_be_once(monkeypatch, caplog):
    monkeypatch.setattr("viper_e2e.encoders.py_feat.find_spec", lambda name: None)
    encoder = ActionUnitEncoder(ActionUnitConfig(source="py-feat"))
    assert [encoder.measure(pictures(10)) for _ in range(3)] == [None] * 3
    (line,) = lines(caplog)
    assert "absent from all further clips: py-feat is not installed; pip install 'py-feat>=2,<3'" in line


def test_py_feat_without_its_weights_is_said_once(py_feat, caplog):
    encoder = py_feat("raise OSError('no such weights')")
    assert [encoder.measure(pictures(10)) for _ in range(3)] == [None] * 3
    (line,) = lines(caplog)
    assert "all further clips: are py-feat's weights at hand?" in line
    assert line.endswith("OSError: no such weights)")


@pytest.mark.slow
def test_a_clip_that_kills_py_feat_is_named_and_the_next_is_measured(py_feat, caplog):
    encoder = py_feat()
    assert encoder.measure(pictures(7), "clip 7") is None
    assert encoder.measure(pictures(10), "clip 10") is not None
    (line,) = lines(caplog)
    assert "absent from clip 7: py-feat's process was lost (exited with code 3)" in line
    assert [encoder.measure(pictures(7), "bad") for _ in range(5)] == [None] * 5
    assert len(lines(caplog)) == 4
    assert "all further clips" in lines(caplog)[-1]


def test_a_py_feat_that_hangs_is_ended(py_feat, caplog, monkeypatch):
    monkeypatch.setattr("viper_e2e.encoders.py_feat.START_SECONDS", 0.5)
    assert py_feat("time.sleep(600)").measure(pictures(10)) is None
    assert "ran longer than 0.5 s" in lines(caplog)[0]


@pytest.mark.slow
def test_a_clip_that_py_feat_hangs_on_is_given_up_by_the_limit_of_a_clip(py_feat, caplog):
    encoder = py_feat()
    assert encoder.measure(pictures(10)) is not None
    encoder.clip_timeout_seconds = 0.2
    assert encoder.measure(pictures(8), "slow.mp4") is None
    assert "absent from slow.mp4: py-feat's process was lost (ran longer than 0.4 s)" in lines(caplog)[0]


def test_a_model_hands_the_limit_of_a_clip_to_its_encoders(py_feat):
    py_feat()
    config = with_settings(micro(), {"modalities": ("action_units",), "action_units.source": "py-feat"})
    model = ViPER(config)
    model.set_reading(Reading(clip_timeout_seconds=7.0))
    assert model.encoders["action_units"].clip_timeout_seconds == 7.0


def test_a_py_feat_of_other_units_is_named(py_feat, caplog):
    assert py_feat(left_out=2).measure(pictures(10)) is None
    assert "gives no au43" in lines(caplog)[0]


def test_the_child_ends_with_its_encoder(py_feat, tmp_path):
    encoder = py_feat(f"import os; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))")
    encoder.measure(pictures(10))
    pid = int((tmp_path / "pid").read_text())
    assert psutil.pid_exists(pid)
    del encoder
    gc.collect()
    assert not psutil.pid_exists(pid)
