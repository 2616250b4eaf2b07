"""surroundings.py: what a process may find around it; each function changes the process that calls it.

They are called in forked children (`process_cases.viper_among`), so nothing has to be put back.
"""

from __future__ import annotations

import errno
import fcntl
import importlib
import os
import resource
from pathlib import Path

NOBODY = 65534
REFUSED = "refused by the test"


def other_user() -> None:
    """Somebody without rights in other people's folders."""
    if os.geteuid() == 0:
        # What Python itself would still read lies where this user may not look.
        for name in ("encodings.utf_8_sig", "matplotlib.backends.backend_agg", "pwd", "zoneinfo"):
            importlib.import_module(name)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def files_of_at_most(size: str) -> None:
    """A disk that fills up: what is written beyond this size of a file fails in the middle."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), int(size)))


def open_files_at_most(count: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(count), int(count)))


def locks_fail_with(name: str) -> None:
    """A file system without locks: Lustre (ENOSYS), NFS without its daemon (ENOLCK)."""

    def refuse(*_: object) -> None:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    fcntl.lockf = fcntl.flock = refuse


def variable(assignment: str) -> None:
    """`NAME=VALUE`, or `NAME` to take it away."""
    name, equals, value = assignment.partition("=")
    if equals:
        os.environ[name] = value
    else:
        os.environ.pop(name, None)


def closed(descriptor: str) -> None:
    """Standard input, output or error closed by whoever started us."""
    os.close(int(descriptor))


def folder_gone(path: str) -> None:
    """The folder one stands in was deleted by somebody else."""
    Path(path).mkdir()
    os.chdir(path)
    Path(path).rmdir()


def hub_answers(name: str) -> None:
    """The hub's client raises what it raises for a gated, missing or unreachable repository."""
    import huggingface_hub
    from huggingface_hub import errors

    failures = {
        "gated": lambda: _http(errors.GatedRepoError, 403),
        "missing": lambda: _http(errors.RepositoryNotFoundError, 404),
        "broken": lambda: _http(errors.HfHubHTTPError, 503),
        "offline": lambda: errors.LocalEntryNotFoundError("not in the cache\nand outgoing traffic is disabled"),
        "unreachable": lambda: _client_error("ConnectError", "[Errno -2] Name or service not known"),
        "slow": lambda: _client_error("ReadTimeout", "The read operation timed out"),
        "full": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    }

    def fail(*_: object, **named: object) -> None:
        if named.get("local_files_only"):
            raise errors.LocalEntryNotFoundError("not in the cache")
        raise failures[name]()

    huggingface_hub.snapshot_download = huggingface_hub.hf_hub_download = fail


def _http(kind: type[Exception], status: int) -> Exception:
    from huggingface_hub.utils import httpx

    response = httpx.Response(status, request=httpx.Request("GET", "https://hub.test/api/models/some/one"))
    return kind(f"{status} Client Error. (Request ID: Root=1)\n\nCannot access. {REFUSED}", response=response)


def _client_error(name: str, text: str) -> Exception:
    from huggingface_hub.utils import httpx

    return getattr(httpx, name)(text)
