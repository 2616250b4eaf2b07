"""py_feat.py: whole frames -> action units by py-feat, in a child process that may die without us."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Timer

import numpy as np
from jaxtyping import Float32, UInt8

from viper_e2e.labels import ACTION_UNITS, FACIAL_EMOTIONS, unit_name

CHILD = Path(__file__).with_name("py_feat_child.py")

START_SECONDS, CLIP_SECONDS = 1800.0, 600.0
"""After which the child is taken to hang; it downloads its weights at the first start."""

MAX_DEATHS = 3
"""In a row; a child that dies of every clip is not started for each of thousands."""


class NotMeasured(Exception):
    """Why there are no action units, in one line. ``for_good``: nor will there be for any other clip."""

    def __init__(self, reason: str, *, for_good: bool = False):
        super().__init__(" ".join(reason.split())[:300])
        self.for_good = for_good


class PyFeat:
    """Measures with py-feat's own face detector, as the published scripts did.

    A process of its own: py-feat sets threads, prints, and loads OpenMP and XGBoost libraries that do not go
    well with others in one process. It is started at the first clip and ends with this object.
    """

    def __init__(self, device: str = "cpu"):
        self.device = device
        self._child: subprocess.Popen | None = None
        self._log = None
        self._deaths = 0

    def __reduce__(self):
        # A copy of a model starts a child of its own.
        return PyFeat, (self.device,)

    def __call__(self, frames: UInt8[np.ndarray, "N H W 3"]) -> Float32[np.ndarray, "N 27"]:
        """A row per frame in the published order; NaN where py-feat found no face. Raises `NotMeasured`."""
        if self._child is None:
            self._start()
        header = json.dumps({"shape": frames.shape}).encode() + b"\n"
        with self._watched(CLIP_SECONDS):
            try:
                self._child.stdin.write(header + np.ascontiguousarray(frames).tobytes())
                self._child.stdin.flush()
            except BrokenPipeError:
                raise self._dead() from None
            answer = self._read_header()
            size = 4 * len(frames) * len(answer["columns"])
            content = self._child.stdout.read(size)
        if len(content) != size:
            raise self._dead()
        self._deaths = 0
        return _in_published_order(
            answer["columns"], np.frombuffer(content, np.float32).reshape(len(frames), -1)
        )

    def close(self) -> None:
        """End the child; the next call starts another."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
        self._log.close()

    def __del__(self):
        self.close()

    def _start(self) -> None:
        if find_spec("feat") is None:
            raise NotMeasured(
                "py-feat is not installed; pip install 'py-feat>=2,<3' measures them", for_good=True
            )
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._child = subprocess.Popen(
            [sys.executable, str(CHILD), self.device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        try:
            with self._watched(START_SECONDS):
                self._read_header()
        except NotMeasured as error:
            raise NotMeasured(f"are py-feat's weights at hand? {error}", for_good=True) from None

    def _read_header(self) -> dict:
        line = self._child.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._dead()
        return json.loads(line)

    def _dead(self) -> NotMeasured:
        """What is known of a child that is gone; the next clip gets a new one, a few times."""
        self._child.kill()
        code = self._child.wait()
        self._log.seek(0)
        last = self._log.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        self.close()
        self._deaths += 1
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return NotMeasured(f"py-feat's process ended ({how}; {last})", for_good=self._deaths >= MAX_DEATHS)

    @contextmanager
    def _watched(self, seconds: float):
        timer = Timer(seconds, self._child.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _in_published_order(columns: list[str], rows: Float32[np.ndarray, "N C"]) -> Float32[np.ndarray, "N 27"]:
    """Columns found by name: versions of py-feat list them in other orders, and with others among them."""
    names = [unit_name(column) for column in columns]
    missing = [name for name in (*ACTION_UNITS, *FACIAL_EMOTIONS) if name not in names]
    if missing:
        raise NotMeasured(
            f"this version of py-feat gives no {', '.join(missing)}; install py-feat 2", for_good=True
        )
    return rows[:, [names.index(name) for name in (*ACTION_UNITS, *FACIAL_EMOTIONS)]]
