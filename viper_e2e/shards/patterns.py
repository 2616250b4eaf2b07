"""shards/patterns.py: patterns of shards -> paths and addresses: globs and braces written out."""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Sequence

# Comes with webdataset, whose patterns these are.
from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]  # its stub lacks it

from viper_e2e.runtime import literal_prefix, matches
from viper_e2e.shards.sources import LocalFile, ShardError, open_source

MAX_SHARDS = 1_000_000


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
                raise ShardError(
                    f"{one}: no such shard; give paths, globs, brace patterns or addresses of .tar files"
                )
            found += places
    if not found:
        raise ShardError("no shards given; give paths, globs, brace patterns or addresses of .tar files")
    return list(dict.fromkeys(found))


def _expand_braces(pattern: str) -> list[str]:
    spans = re.findall(r"\{(-?\d{1,18})\.\.(-?\d{1,18})", pattern)
    if math.prod(abs(int(last) - int(first)) + 1 for first, last in spans) > MAX_SHARDS:
        raise ShardError(f"{pattern}: more than {MAX_SHARDS} shards")
    try:
        return list(braceexpand(pattern))
    except UnbalancedBracesError as error:
        raise ShardError(f"{pattern}: unbalanced braces") from error
