"""packing/replacing.py: replacement of shards of an earlier run by new ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

from viper_e2e.errors import ViperError
from viper_e2e.packing.report import Findings
from viper_e2e.runtime import count_of, first_of
from viper_e2e.shards import SCHEMAS, index_path

SHARD_NAME = re.compile(r"[a-z0-9_]+-\d{6}\.(tar|index\.json)")


def shards_in_the_way(out: Path, overwrite: bool) -> list[Path]:
    """Shards and indexes of an earlier run in ``out``; ``ViperError`` unless they may be overwritten."""
    old = _shards_in(out) if out.is_dir() else []
    if old and not overwrite:
        raise ViperError(
            f"{out}: holds {count_of(len(old), 'file')} of another run "
            f"({first_of((path.name for path in old), 1)}); choose another --out, or add --overwrite"
        )
    return old


def to_replace(old: list[Path], splits: set[str], findings: Findings) -> list[Path]:
    """Existing shards of these splits that `pack` wrote; nothing else may be deleted."""
    found = []
    for path in old:
        split = path.name.rpartition("-")[0]
        if split not in splits:
            if path.suffix == ".tar":
                findings.note([f"{path} stays as it is: this table has no split {split}"])
        elif _is_packed(Path(index_path(str(path))) if path.suffix == ".tar" else path, split):
            found.append(path)
        else:
            raise ViperError(f"{path}: was not written by viper pack; move it, or choose another --out")
    return found


def _is_packed(index: Path, split: str) -> bool:
    """Whether an index is of ours and of this split, by its first fields."""
    if not index.is_file():
        return False
    with index.open(encoding="utf-8", errors="replace") as file:
        head = file.read(4096)
    is_ours = any(f'"schema": "{schema}"' in head for schema in SCHEMAS)
    return is_ours and f'"split": {json.dumps(split, ensure_ascii=False)}' in head


def _shards_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if SHARD_NAME.fullmatch(path.name))


def publish(folder: Path, out: Path, old: list[Path]) -> None:
    """Move finished shards into place; an index goes first, so that no shard is seen without its own."""
    for path in old:
        path.unlink()
    for path in sorted(_shards_in(folder), key=lambda path: (path.suffix == ".tar", path.name)):
        path.replace(out / path.name)
