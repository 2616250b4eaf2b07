"""shards/patterns.py: patterns of shards -> paths and addresses: globs and braces written out."""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

# Comes with webdataset, whose patterns these are.
from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]  # its stub lacks it

from viper_e2e.errors import did_you_mean
from viper_e2e.runtime import likely_path, literal_prefix, matches
from viper_e2e.shards.sources import LocalFile, ShardError, open_source

MAX_SHARDS = 1_000_000
MAX_NAMES = 6
"""Most names of existing shards in a message about a missing one."""
_FORMS = "give paths, globs, brace patterns or addresses of .tar files"


def expand(patterns: str | Sequence[str]) -> list[str]:
    """Patterns → paths and URLs, each once, globs sorted; ``ShardError`` where one matches nothing."""
    found: list[str] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        remote = not isinstance(open_source(pattern), LocalFile)
        # `os.path.exists`: to it a pattern too long for a file's name is simply no file.
        if not remote and os.path.exists(pattern):  # noqa: PTH110
            found.append(pattern)
            continue
        prefix, rest = ("", pattern) if remote else literal_prefix(pattern)
        for one in (prefix + part for part in _expand_braces(rest)):
            places = [one]
            if remote and "*" in one.partition("?")[0]:
                raise ShardError(f"{one}: servers and stores are not searched; write {{000000..000017}} for *")
            if not remote and glob.has_magic(one):
                places = [path for path in matches(one) if not path.endswith((".index.json", ".index.bin"))]
            elif not remote and not os.path.exists(one):  # noqa: PTH110
                places = []
            if not places:
                raise ShardError(f"{one}: no such shard{_what_is_there(one)}")
            found += places
    if not found:
        raise ShardError(f"no shards given; {_FORMS}")
    return list(dict.fromkeys(found))


def _what_is_there(missing: str) -> str:
    """The shards beside one that is not there, numbers as `*`; else what a shard may be given as."""
    folder = Path(missing).parent
    if not folder.is_dir():
        if glob.has_magic(str(folder)):
            return f"; {_FORMS}"
        return f", as there is no folder {folder}{did_you_mean(likely_path(str(folder)))}"
    names = sorted({re.sub(r"\d{2,}", "*", path.name) for path in folder.glob("*.tar")})
    if not names:
        return f", as {folder} holds no .tar file; {_FORMS}"
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return f"; in {folder} there are {', '.join(names[:MAX_NAMES])}{more}"


def _expand_braces(pattern: str) -> list[str]:
    spans = re.findall(r"\{(-?\d{1,18})\.\.(-?\d{1,18})", pattern)
    if math.prod(abs(int(last) - int(first)) + 1 for first, last in spans) > MAX_SHARDS:
        raise ShardError(f"{pattern}: more than {MAX_SHARDS} shards")
    try:
        return list(braceexpand(pattern))
    except UnbalancedBracesError as error:
        raise ShardError(f"{pattern}: unbalanced braces") from error
