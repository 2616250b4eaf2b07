"""environments.py: the package in fresh environments without our constraints: does it install, does it run?

    python tests/environments.py clips     # newest Python, PyAV and NumPy, no torch: every kind of clip
    python tests/environments.py newest    # every Python, newest versions that setup.cfg allows: pack to infer
    python tests/environments.py oldest    # oldest Python, every lower bound of setup.cfg: pack to infer
    python tests/environments.py changed   # exit code 0: setup.cfg asks for what has not been seen to pass

`newest 3.12` is that Python alone. What passes is written into `environments_passed.txt`, to be committed with
setup.cfg. Needs nothing but Python. One environment stands at a time (7 GB; `clips`: 0.2 GB) and is deleted
after its run.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PASSED = ROOT / "tests" / "environments_passed.txt"
PYTHONS = ("3.11", "3.12", "3.13")
# Free space that is asked for: what an environment was seen to take (193 MB, 7 GB), and room to unpack it.
CLIPS_BYTES, WHOLE_BYTES = 500 * 10**6, 9 * 10**9
INSTALL_SECONDS, RUN_SECONDS = 1800, 1800


class Failed(Exception):
    """A command in an environment did not do what it should."""


def interpreters(versions: Sequence[str]) -> dict[str, str]:
    """Of these Pythons those that are here, on PATH or under pyenv; a missing one is told."""
    found = {}
    for version in versions:
        names = [shutil.which(f"python{version}")]
        names += sorted(map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}")))
        working = [name for name in names if name and _run([name, "-c", "import venv"]).returncode == 0]
        if working:
            found[version] = working[0]
        else:
            print(f"Python {version} is not on this machine: left out")
    return found


@contextmanager
def fresh(python: str, needed_bytes: int) -> Iterator[Path]:
    """The interpreter of a new environment of about that size; the folder is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="viper-environment-"))
    try:
        free_bytes = shutil.disk_usage(folder).free
        if free_bytes < needed_bytes:
            needed, free = (f"{count / 1e9:.1f} GB" for count in (needed_bytes, free_bytes))
            raise Failed(f"{folder}: an environment needs {needed}, {free} are free")
        _must([python, "-m", "venv", str(folder)], 300)
        yield folder / "bin" / "python"
    finally:
        shutil.rmtree(folder)


def clips(name: str) -> None:
    """The newest PyAV and NumPy, the package without what else it needs: every kind of clip opens."""
    with fresh(name, CLIPS_BYTES) as python:
        _install(python, "av", "lazy_loader", "numpy")
        _install(python, "--no-deps", ".")
        _smoke(python, "clips")


def newest(name: str) -> None:
    """`pip install .`, as anybody does it."""
    with fresh(name, WHOLE_BYTES) as python:
        _install(python, ".")
        _tell_versions(python)
        _smoke(python, "clips", "commands")


def oldest(name: str) -> None:
    """Every direct dependency at its lower bound; pip chooses the rest."""
    with fresh(name, WHOLE_BYTES) as python:
        bounds = python.parent.parent / "lower_bounds.txt"
        bounds.write_text("\n".join(lower_bounds()) + "\n", encoding="utf-8")
        _install(python, "--constraint", str(bounds), ".")
        _tell_versions(python)
        _smoke(python, "clips", "commands")


def requirements() -> list[str]:
    """`install_requires` of setup.cfg."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config["options"]["install_requires"].split("\n")[1:]


def lower_bounds() -> list[str]:
    """``name==version`` for each requirement, at the lowest version that it allows."""
    bounds = []
    for line in requirements():
        name, version = re.match(r"([\w-]+)(?:\[\w+\])?(?:>=|==)([\w.]+)", line).groups()
        bounds.append(f"{name}=={version}")
    return bounds


def requirements_id() -> str:
    """What tells `[options]` of setup.cfg from every other."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return hashlib.sha256(repr(sorted(config["options"].items())).encode()).hexdigest()


def changed() -> bool:
    """Whether setup.cfg asks for something else than what oldest and newest have passed with.

    Compared with `PASSED`, not with an earlier commit, which a shallow clone would lack.
    """
    lines = PASSED.read_text(encoding="utf-8").splitlines() if PASSED.exists() else []
    return not {_line("oldest", PYTHONS[0]), _line("newest", PYTHONS[-1])} <= set(lines)


def note_passed(kind: str, version: str) -> None:
    """Write it down, in place of what this kind has passed with before."""
    lines = PASSED.read_text(encoding="utf-8").splitlines() if PASSED.exists() else []
    kept = [line for line in lines if not line.startswith(f"{kind} {version} ")]
    PASSED.write_text("\n".join(sorted([*kept, _line(kind, version)])) + "\n", encoding="utf-8")


def _line(kind: str, version: str) -> str:
    return f"{kind} {version} {requirements_id()}"


def _install(python: Path, *words: str) -> None:
    since = time.monotonic()
    with tempfile.TemporaryDirectory() as tree:
        # From a copy: building leaves files in the tree it builds from.
        shutil.copytree(ROOT / "viper_e2e", Path(tree) / "viper_e2e")
        for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copyfile(ROOT / name, Path(tree) / name)
        # What is imported is compiled then; all of it would take longer than the rest of the installation.
        command = [str(python), "-m", "pip", "install", "--quiet", "--no-compile", *words]
        _must(command, INSTALL_SECONDS, cwd=Path(tree))
    print(f"  installed in {time.monotonic() - since:.0f} s", flush=True)


def _smoke(python: Path, *parts: str) -> None:
    for part in parts:
        since = time.monotonic()
        _must([str(python), str(ROOT / "tests" / "smoke.py"), part], RUN_SECONDS, show=True)
        print(f"  {part} in {time.monotonic() - since:.0f} s", flush=True)


def _tell_versions(python: Path) -> None:
    names = [re.split(r"[\[<>=;]", line)[0] for line in requirements()]
    code = f"from importlib.metadata import version\nfor name in {names}: print(name, version(name), end='; ')"
    print("  " + _run([str(python), "-c", code]).stdout, flush=True)


def _must(command: list[str], seconds: float, *, cwd: Path = ROOT, show: bool = False) -> None:
    done = _run(command, seconds, cwd=cwd)
    if done.returncode:
        raise Failed(f"{' '.join(command)}\n{(done.stdout + done.stderr)[-6000:]}")
    if show:
        print(done.stdout, end="", flush=True)


def _run(command: list[str], seconds: float = 60, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    # What is set for the environment that runs this must not reach the one that is made.
    own = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    own |= {"PIP_CONSTRAINT": "", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=cwd, env=own, capture_output=True, text=True, timeout=seconds, check=False
    )


def main(what: list[str]) -> int:
    """Do what was asked for; 1 if something of it failed."""
    if what == ["changed"]:
        return 0 if changed() else 1
    pythons, code = interpreters([word for word in what if word[0].isdigit()] or PYTHONS), 0
    lowest, *_, highest = [*pythons, *pythons]
    for kind in (word for word in what if not word[0].isdigit()):
        job, versions = {
            "clips": (clips, [highest]),
            "newest": (newest, list(pythons)),
            "oldest": (oldest, [lowest]),
        }[kind]
        for version in versions:
            print(f"{kind}, Python {version}: {job.__doc__}", flush=True)
            try:
                job(pythons[version])
                if kind != "clips":
                    note_passed(kind, version)
            except (Failed, subprocess.TimeoutExpired) as error:
                print(f"  FAILED: {error}", flush=True)
                code = 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
