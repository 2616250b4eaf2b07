"""conftest.py: tiny real media made on the fly, and the way to the reference material."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

STARTED = time.monotonic()
BUDGETS = {
    "not slow and not campaign": ("check", 1.5),
    "not campaign": ("test", 8),
    "campaign or survival": ("campaign", 30),
}
"""By what the Makefile selects: its command, and the minutes that it may take on two quiet cores."""
ROOT = Path(__file__).resolve().parent.parent


def some_of(
    cases: Iterable, is_kept: Callable[[int, object], bool], name: Callable[[object], str] = str
) -> list:
    """Cases of a long table as parameters: all but those kept are left to `make campaign`."""
    return [
        pytest.param(case, id=name(case), marks=() if is_kept(index, case) else pytest.mark.campaign)
        for index, case in enumerate(cases)
    ]


def pytest_configure() -> None:
    """Check annotations; not above, as `smoke.py` makes media where nothing is installed that checks them."""
    import typechecks

    typechecks.install()


def pytest_collection_finish() -> None:
    """What was imported for all tests stays, and need not be looked through for garbage again and again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Told and no more: a busy machine fails no test."""
    command, minutes = BUDGETS.get(config.option.markexpr, (None, 0))
    if command is not None and config.args_source is pytest.Config.ArgsSource.TESTPATHS:
        taken, wanted = (
            f"{s // 60:.0f}:{s % 60:02.0f} min" for s in (time.monotonic() - STARTED, minutes * 60)
        )
        terminalreporter.write_line(f"make {command}: {taken} of a budget of {wanted} on two quiet cores")


@pytest.fixture(scope="session")
def reference() -> Path:
    """Folder with real clips, real weights and the published pipeline's numbers; skips where it is absent."""
    folder = Path(os.environ.get("VIPER_REFERENCE", ROOT.parent / "shared"))
    if (folder / "peer").is_dir():
        return folder
    message = f"reference material not found at {folder} (set VIPER_REFERENCE)"
    if os.environ.get("VIPER_REQUIRE_REFERENCE") == "1":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session", autouse=True)
def drafts() -> Iterator[None]:
    """Plots are not drawn; see `drawn_plots`."""
    from drafts import save_draft, saved_by

    with saved_by(save_draft):
        yield


@pytest.fixture(scope="module")
def drawn_plots(drafts) -> Iterator[None]:
    """For tests that look at plots: these are drawn."""
    from drafts import save_drawn, saved_by

    with saved_by(save_drawn):
        yield


def picture(index: int, width: int, height: int) -> np.ndarray:
    """A frame whose content tells its number: a bright bar that moves over a gradient."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)[None, :]
    frame[..., 1] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    x = (index * 7) % (width - 8)
    frame[:, x : x + 8] = 255
    return frame


def tone(seconds: float, rate: int, channels: int, hertz: float = 440.0) -> np.ndarray:
    """float32 ``channels samples``: a tone a little quieter in each further channel."""
    t = np.arange(round(seconds * rate)) / rate
    return np.stack([0.5 / (c + 1) * np.sin(2 * np.pi * hertz * t) for c in range(channels)]).astype(np.float32)


@contextlib.contextmanager
def scheduling_kept() -> Iterator[None]:
    """SVT-AV1 started by root makes its caller a real-time thread, before which all else on a core waits."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


@scheduling_kept()
def make_clip(
    path: Path,
    *,
    num_frames: int = 30,
    fps: int = 15,
    width: int = 96,
    height: int = 64,
    frames: list[np.ndarray] | None = None,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    sound: np.ndarray | str | None = "tone",
    rate: int = 16_000,
    channels: int = 1,
    audio_codec: str = "aac",
) -> Path:
    """Write a small clip; ``sound=None`` leaves the audio stream out."""
    if frames is not None:
        num_frames, (height, width) = len(frames), frames[0].shape[:2]
    if isinstance(sound, str):
        sound = tone(num_frames / fps, rate, channels)
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=fps, options=options or {})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        # Threads of libvpx spin while they wait for one another: for minutes where other tests take the cores.
        video.codec_context.thread_count = 1
        audio = None
        if sound is not None:
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(sound)]
            audio = container.add_stream(audio_codec, rate=rate, layout=layout)
        for index in range(num_frames):
            image = frames[index] if frames is not None else picture(index, width, height)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="fltp", layout=layout)
            block.sample_rate, block.pts = rate, 0
            resampler = av.AudioResampler(format=audio.codec_context.format, layout=layout, rate=rate)
            fifo = av.AudioFifo()
            for piece in resampler.resample(block):
                fifo.write(piece)
            size = audio.codec_context.frame_size or 1024
            while (piece := fifo.read(size)) is not None:
                container.mux(audio.encode(piece))
            if (rest := fifo.read(partial=True)) is not None:
                container.mux(audio.encode(rest))
            container.mux(audio.encode(None))
    return path


@pytest.fixture
def tiny_clip(tmp_path):
    """``tiny_clip(name="a.mp4", **make_clip options) -> Path``."""

    def make(name: str = "clip.mp4", **options) -> Path:
        return make_clip(tmp_path / name, **options)

    return make


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Shards of eight clips to train on and four to validate on."""
    from training_runs import make_corpus

    return make_corpus(tmp_path_factory.mktemp("corpus") / "made")


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory):
    """Real processes for milliseconds; see `forking`."""
    from forking import Nursery

    made = Nursery(tmp_path_factory.mktemp("logs"))
    yield made
    made.close()
