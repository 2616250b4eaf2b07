"""hub.py: files from the Hugging Face hub, and in one line why they cannot be had."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of httpx, whichever version of it the hub's client uses
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import logging as hub_logging

from viper_e2e.errors import ViperError


class HubError(ViperError):
    """Something cannot be had from the hub; the message is a reason, to stand in brackets in another one."""


def fetch_folder(
    hub_id: str, *, revision: str | None, patterns: Sequence[str] | None, only_cached: bool = False
) -> Path:
    """The cached folder of a repository with the files that match `patterns`. Raises `HubError`."""
    return _asking(
        hub_id,
        lambda: huggingface_hub.snapshot_download(
            hub_id,
            revision=revision,
            allow_patterns=None if patterns is None else list(patterns),
            local_files_only=only_cached,
        ),
    )


def fetch_file(hub_id: str, file: str, *, revision: str | None) -> Path:
    """The cached copy of one file of a repository. Raises `HubError`."""
    return _asking(hub_id, lambda: huggingface_hub.hf_hub_download(hub_id, file, revision=revision))


def _asking(hub_id: str, ask: Callable[[], str]) -> Path:
    # Each of the client's retries would be a line of its own; the error says it all.
    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()
    try:
        return Path(ask())
    except (HTTPError, OSError, HFValidationError) as error:
        raise HubError(_reason(hub_id, error)) from error
    finally:
        hub_logging.set_verbosity(verbosity)


def _reason(hub_id: str, error: Exception) -> str:
    """Why, and what to do about it; the order goes from the special to the general."""
    page = f"the page of {hub_id} on the hub"
    if isinstance(error, GatedRepoError):
        return f"it is gated: accept its terms on {page}, and set HF_TOKEN to a token of yours"
    if isinstance(error, RevisionNotFoundError):
        return f"{page} has no such revision"
    if isinstance(error, RemoteEntryNotFoundError):
        return f"{page} has no such file"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such repository, or it is private: check its name, or set HF_TOKEN"
    if isinstance(error, HfHubHTTPError):
        return f"the hub answers {error.response.status_code}; try again later"
    if isinstance(error, LocalEntryNotFoundError):
        return "it is not in the hub's cache, and the hub cannot be reached or HF_HUB_OFFLINE is set"
    if isinstance(error, HFValidationError):
        return "it is not the name of a repository"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk of the hub's cache is full: make room, or set HF_HOME to a folder elsewhere"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        where = error.filename or "the hub's cache"
        return f"{where} cannot be written: set HF_HOME to a folder of yours"
    return f"the hub cannot be reached: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
