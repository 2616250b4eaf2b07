"""stopping.py: stops a command on a signal, and says which results are saved."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from viper_e2e.config import setting_of


@contextmanager
def stopping() -> Iterator[None]:
    """SIGTERM and a lost terminal end a command as Ctrl-C does: it tidies up. A training listens itself."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    own = threading.current_thread() is threading.main_thread()
    heard = [number for number in numbers if own and signal.getsignal(number) is signal.SIG_DFL]
    for number in heard:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, signal.SIG_DFL)


def what_is_kept(command: str, argv: Sequence[str]) -> str:
    """Work that a stopped command has kept, and the command line that resumes it."""
    again = shlex.join(["viper", *argv])
    given = {word.partition("=")[0] for word in argv}
    if command == "infer" and not {"--output", "--out"} & given:
        return "nothing was saved; with --output FILE, scored clips would be"
    if command == "train" and not _has_begun(argv):
        return f"training had not started; start it with: {again}"
    if command in ("train", "sweep", "cv") or "--retrain" in argv:
        resume = "" if "--resume" in argv else " --resume"
        kept = "what was saved is" if command == "train" else "finished trainings are"
        return f"{kept} kept; continue with: {again}{resume}"
    if command in ("infer", "eval", "ablate", "calibrate"):
        return f"scored clips are kept; score the rest by the same command: {again}"
    return f"nothing was written; start again with: {again}"


def _has_begun(argv: Sequence[str]) -> bool:
    """Whether a training has written its settings, so that only ``--resume`` continues in its folder."""
    words = [word.partition("=") for word in argv]
    folders = [
        value if equals else following
        for (name, equals, value), following in zip(words, [*argv[1:], ""], strict=True)
        if name.startswith("--") and setting_of(name) == "run_dir"
    ]
    return bool(folders) and (Path(folders[-1]) / "config.yaml").exists()
