"""data_record.py: a record of a run's data, as in its data.json, and how other data differ from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from hashlib import sha256
from pathlib import Path
from typing import Any

from viper_e2e.config import ModelConfig, Settings, needs_of
from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.runtime import count_of, plain_json, write_text
from viper_e2e.shards import ShardSet, parts_of

DATA = "data.json"


def data_record(settings: Settings, train: ShardSet, val: ShardSet | None) -> dict[str, Any]:
    """Clips trained and validated on, by content: for ``data.json``."""
    labels = train.known_labels.to_json()
    return {
        "labels": labels["columns"],
        "tasks": labels["tasks"],
        "train": _shards_record(train),
        "val": None if val is None else _shards_record(val),
        "bank": bank_id(settings.model),
    }


def recorded_labels(record: Mapping[str, Any], path: Path) -> LabelSet:
    """The inverse, with what tells labels from others, so without their range. `ViperError` names ``path``."""
    said = {"columns": record["labels"], "tasks": record.get("tasks", []), "minimum": 0.0, "maximum": 1.0}
    try:
        return LabelSet.from_json(said)
    except ValueError as error:
        raise ViperError(f"{path}: labels are not understood ({error}); was it edited?") from error


def provenance_of(train: ShardSet, val: ShardSet | None) -> dict[str, Any]:
    """Record of the clips that a model was trained on, for its model card."""
    sets = {"train": train} | ({"val": val} if val is not None else {})
    return {name: {"clips": len(s), "sha256": s.content_id()} for name, s in sets.items()}


def write_data(folder: Path, record: Mapping[str, Any]) -> None:
    write_text(folder / DATA, plain_json.dumps(record, indent=1) + "\n")


def read_data(folder: Path) -> dict[str, Any]:
    """Read the file of `write_data`, empty if there is none; `ViperError` for anything else."""
    path = folder / DATA
    if not path.exists():
        return {}
    record = plain_json.read_object(path, advice="was it edited?")
    if not all(_is_of_shards(record[name]) for name in ("train", "val") if record.get(name) is not None):
        raise ViperError(f"{path}: train and val are not records of shards; was it edited?")
    return record


def _is_of_shards(record: object) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("clips"), int) or "sha256" not in record:
        return False
    shards, corpora = record.get("shards"), record.get("corpora", [])
    return (
        isinstance(shards, list)
        and all(isinstance(row, list) and len(row) == 3 for row in shards)
        and isinstance(corpora, list)
        and all(isinstance(one, dict) and {"name", "weight"} <= one.keys() for one in corpora)
    )


def keep_data(run: Path, folder: Path) -> None:
    """Beside a model that is made of a run's: what it was trained on, for those who score it."""
    write_text(folder / DATA, (run / DATA).read_text(encoding="utf-8"))


def _shards_record(shards: ShardSet) -> dict[str, Any]:
    names = [Path(shard.path_or_url.partition("?")[0]).name for shard in shards.shards]
    record: dict[str, Any] = {"sha256": shards.content_id(), "clips": len(shards)}
    if shards.named_corpora:
        record["corpora"] = [
            {
                "name": one.name,
                "weight": one.weight,
                "clips": len(one),
                "sha256": one.content_id(),
            }
            for one in shards.named_corpora
        ]
    rows = zip(names, shards.shard_sizes, shards.shard_ids(), strict=True)
    return record | {"shards": [list(row) for row in rows]}


def other_shards(option: str, shards: ShardSet | None, saved: Mapping[str, Any] | None) -> Iterator[str]:
    if shards is None or saved is None:
        if shards is not None or saved is not None:
            given = "none" if shards is None else count_of(len(shards), "clip")
            trained = "none" if saved is None else count_of(saved["clips"], "clip")
            yield f"{option}: {given}; the run has {trained}"
        return
    now = _shards_record(shards)
    if now["sha256"] == saved["sha256"]:
        return
    before, mixed, mixed_before = saved["shards"], now.get("corpora", []), saved.get("corpora", [])
    if _names_and_parts(mixed) != _names_and_parts(mixed_before):
        yield f"{option}: {_mixture_line(mixed)}; the run has {_mixture_line(mixed_before)}"
        return
    if len(now["shards"]) != len(before) or now["clips"] != saved["clips"]:
        yield (
            f"{option}: {count_of(now['clips'], 'clip')} in {count_of(len(now['shards']), 'shard')}; "
            f"the run has {saved['clips']} in {len(before)}"
        )
        return
    if sorted(row[2] for row in now["shards"]) == sorted(row[2] for row in before):
        yield f"{option}: the same shards in another order; name them in the order they had"
        return
    other = [row[0] for row, old in zip(now["shards"], before, strict=True) if row[2] != old[2]]
    more = f" and {len(other) - 3} more" if len(other) > 3 else ""
    yield f"{option}: other clips or labels than in the run, in {', '.join(other[:3])}{more}"


def _names_and_parts(corpora: Sequence[Mapping[str, Any]]) -> list[tuple[str, Fraction | None]]:
    parts = parts_of([one["weight"] for one in corpora])
    return [(one["name"], part) for one, part in zip(corpora, parts, strict=True)]


def _mixture_line(corpora: Sequence[Mapping[str, Any]]) -> str:
    words = [one["name"] if one["weight"] is None else f"{one['name']}={one['weight']:g}" for one in corpora]
    return f"corpora {', '.join(words)}" if words else "no named corpora"


def bank_id(model: ModelConfig) -> str | None:
    if "sentences" not in needs_of(model.modalities):
        return None
    from viper_e2e.encoders import read_bank  # loads open_clip

    return sha256("\n".join(read_bank(model.textual.bank)).encode()).hexdigest()
