"""indexing.py: `viper index`: writes the index of shards that have none, beside them or into a folder."""

from __future__ import annotations

from pathlib import Path

from viper_e2e.config import IndexConfig
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.runtime import AS_IT_IS, console, settle_folder, written_whole
from viper_e2e.shards import (
    ShardError,
    columns_path,
    expand,
    has_columns,
    has_index,
    index_path,
    is_remote,
    make_columns,
    make_index,
)


def run_index(options: IndexConfig) -> int:
    """One line for each shard; exit code 2 where some could not be indexed."""
    shards = expand(options.shards)
    if not options.out and any(map(is_remote, shards)):
        raise ViperError(
            "indexes cannot be written into stores; add --out FOLDER, and upload its files beside the shards"
        )
    if options.out:
        settle_folder(options.out, "--out")
    done = [_index_one(shard, options) for shard in shards]
    return ExitCode.OK if all(done) else ExitCode.SOME_FAILED


def _index_one(shard: str, options: IndexConfig) -> bool:
    """Whether this shard has an index now."""
    target = Path(index_path(shard.partition("?")[0] if is_remote(shard) else shard))
    target = Path(options.out, target.name) if options.out else target
    try:
        data = None
        if not options.overwrite and (target.exists() or has_index(shard)):
            console.print(f"{target.name}: is there already (--overwrite writes it again)", **AS_IT_IS)
        else:
            data = make_index(shard)
            _write(target, data)
        _add_columns(shard, target, data, options)
    except ShardError as error:
        console.print(str(error), style="yellow", **AS_IT_IS)
        return False
    return True


def _add_columns(shard: str, index: Path, data: bytes | None, options: IndexConfig) -> None:
    """Add columns to a large index, which then opens faster."""
    target = Path(columns_path(str(index).removesuffix(".index.json") + ".tar"))
    if data is None and not options.overwrite and (target.exists() or has_columns(shard)):
        return
    if data is None and index.exists():
        data = index.read_bytes()
    if (columns := make_columns(shard, data)) is not None:
        _write(target, columns)


def _write(target: Path, data: bytes) -> None:
    with written_whole(target) as partial:
        partial.write_bytes(data)
    console.print(f"wrote {target}", **AS_IT_IS)
