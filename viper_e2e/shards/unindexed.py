"""shards/unindexed.py: a tar that another program wrote, indexed by walking its headers and its json."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from viper_e2e.labels import LabelSet, collision
from viper_e2e.runtime import AMBIGUOUS_EXTENSIONS, VIDEO_EXTENSIONS, count_of, plain_json
from viper_e2e.shards.index import (
    KNOWN_EXTENSIONS,
    RECORD_EXTENSION,
    Member,
    SampleEntry,
    ShardIndex,
    is_number,
    key_and_extension,
    range_of,
    segment_from_json,
    split_of,
    unusable,
)
from viper_e2e.shards.shard_state import ShardState
from viper_e2e.shards.sources import ShardError, ShardLimits, Source
from viper_e2e.shards.tar import TarMember, walk_tar


@dataclass
class Aside:
    """Findings about a foreign shard, besides its index."""

    faults: list[str] = field(default_factory=list)
    """Faults of the shard as a whole."""
    left_out: list[str] = field(default_factory=list)
    """Samples that cannot be used, each with the reason."""
    unusable: list[tuple[str, str]] = field(default_factory=list)
    """Key and reason of those among them that are samples by their files."""
    notes: list[str] = field(default_factory=list)
    """Members that are never opened, and what is odd about what they hold."""


def index_foreign(shard: Source, limits: ShardLimits) -> tuple[ShardIndex, Aside]:
    """Index a tar that has no index beside it, by walking its headers and reading its json members.

    Of a torn shard the sample of the last member is always dropped: nobody can tell whether all of its members
    are there. From here on the source gives nothing of another state than the first, which `version` names.
    """
    shard.state = state = ShardState()
    walk, aside = walk_tar(shard, limits), Aside()
    aside.left_out += [f"{shard.name}: ignored {text}" for text in walk.ignored]
    groups = _groups(walk.members)
    if walk.torn:
        aside.faults.append(f"{shard.name}: {walk.torn}: incomplete; copy or pack it again")
        groups = _without_last(groups, walk.members)
    entries: list[SampleEntry] = []
    unknown: Counter[str] = Counter()
    columns: list[str] | None = None
    unlabelled: list[str] = []
    for key, members in groups:
        known = _known(members)
        unknown.update(extension for extension, member in members if (extension, member) not in known)
        try:
            entry, by_name, numbers, complaint = _foreign_entry(shard, key, known, limits)
            unlabelled += numbers
            if by_name is not None:
                columns = list(by_name) if columns is None else columns
                entry = replace(entry, intensities=_in_order(by_name, columns))
        except ShardError as error:
            hint = _dotted_hint(members) if not known else ""
            aside.left_out.append(f"{shard.name}: sample {key!r} left out: {error}{hint}")
            aside.unusable += [(key, f"{error} (shard {shard.name})")] if known else []
            continue
        if complaint:
            aside.notes.append(f"{shard.name}: sample {key!r} counts as unlabelled: {complaint}")
        entries.append(entry)
    aside.notes += _oddities(shard.name, unknown, unlabelled)
    labels = None
    if columns is not None:
        values = [value for entry in entries for value in entry.intensities or ()]
        labels = LabelSet(tuple(columns), *range_of(values))
    split = split_of(shard.name)
    index = ShardIndex(shard.name, shard.size(), tuple(entries), labels, split, version=state.version)
    return index, aside


def _in_order(by_name: Mapping[str, float], columns: list[str]) -> tuple[float, ...]:
    if set(by_name) != set(columns):
        raise ShardError(f"intensities of {', '.join(by_name)}; others of this shard have {', '.join(columns)}")
    return tuple(by_name[name] for name in columns)


def _oddities(shard: str, unknown: Counter[str], unlabelled: list[str]) -> Iterator[str]:
    """``unknown``: extensions of members that are never opened. ``unlabelled``: names of numbers in json."""
    for extension, count in sorted(unknown.items()):
        yield f"{shard}: {count_of(count, f'member .{extension} is', f'members .{extension} are')} never opened"
    if unlabelled:
        named, count = ", ".join(list(dict.fromkeys(unlabelled))[:4]), unlabelled.count(unlabelled[0])
        yield (
            f"{shard}: {count_of(count, 'json member')} without 'intensities' with numbers at "
            f"the top ({named}), "
            'which are not taken for labels: write {"intensities": {"joy": 0.5, …}}'
        )


def _groups(members: list[TarMember]) -> list[tuple[str, list[tuple[str, TarMember]]]]:
    """Members with one key, wherever in the tar (`tar cf x.tar *.mp4 *.json`).

    A key that comes again, after others and with a file that it has already, is a group of its own.
    """
    groups: list[tuple[str, list[tuple[str, TarMember]]]] = []
    latest: dict[str, list[tuple[str, TarMember]]] = {}
    for member in members:
        split = key_and_extension(member.name)
        if split is None:
            continue
        key, extension = split
        is_neighbour = bool(groups) and groups[-1][0] == key
        if key not in latest or (not is_neighbour and _is_doubled(extension, latest[key])):
            latest[key] = []
            groups.append((key, latest[key]))
        latest[key].append((extension, member))
    return groups


def _is_doubled(extension: str, members: list[tuple[str, TarMember]]) -> bool:
    is_video = extension in VIDEO_EXTENSIONS
    return any(other == extension or (is_video and other in VIDEO_EXTENSIONS) for other, _ in members)


def _without_last(
    groups: list[tuple[str, list[tuple[str, TarMember]]]], members: list[TarMember]
) -> list[tuple[str, list[tuple[str, TarMember]]]]:
    last = next((member for member in reversed(members) if key_and_extension(member.name)), None)
    return [group for group in groups if all(member is not last for _, member in group[1])]


def _known(members: list[tuple[str, TarMember]]) -> list[tuple[str, TarMember]]:
    """Members that are read; one that may be no video (.ts, .gif, …) is none beside one that is."""
    known = [member for member in members if member[0] in KNOWN_EXTENSIONS]
    sure = [extension for extension, _ in known if extension in VIDEO_EXTENSIONS]
    sure = [extension for extension in sure if extension not in AMBIGUOUS_EXTENSIONS]
    return [member for member in known if not sure or member[0] not in AMBIGUOUS_EXTENSIONS]


def _dotted_hint(members: list[tuple[str, TarMember]]) -> str:
    dotted = [member.name for extension, member in members if extension.rpartition(".")[2] in VIDEO_EXTENSIONS]
    if not dotted:
        return ""
    return f"; a name ends at its first dot in WebDataset: rename {dotted[0]!r}, or pack with viper pack"


def _name_in(data: Mapping[str, object], field: str) -> str | None:
    """Name in the form that tables have: 1.0 of a program that knows only decimals is 1, NaN is nobody."""
    value = data.get(field)
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None if math.isnan(value) else value
    return None if value is None else str(value).strip() or None


def _foreign_entry(
    shard: Source, key: str, found: list[tuple[str, TarMember]], limits: ShardLimits
) -> tuple[SampleEntry, dict[str, float] | None, list[str], str | None]:
    """The sample without intensities, these by name in the order of its json, numbers that could be some, and
    why it has none although it was to."""
    doubled = [extension for extension, n in Counter(e for e, _ in found).items() if n > 1]
    if doubled:
        raise ShardError(f"has .{doubled[0]} twice")
    members = {extension: Member(member.offset, member.size) for extension, member in found}
    if reason := unusable(members):
        raise ShardError(reason)
    if RECORD_EXTENSION not in members:
        return SampleEntry(key, key, members), None, [], None
    record = members[RECORD_EXTENSION]
    if record.size > limits.max_json_bytes:
        raise ShardError(f"json of {record.size} bytes; at most {limits.max_json_bytes} are allowed")
    data = plain_json.parsed(shard.read(record.offset, record.size), "json", error=ShardError)
    if not isinstance(data, dict):
        raise ShardError("json is not an object")
    by_name, complaint = _intensities(data.get("intensities"))
    subject, file_id = _name_in(data, "subject"), _name_in(data, "file_id") or key
    try:
        segment = segment_from_json(data["segment"]) if "segment" in data else None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ShardError(f"json: 'segment' is {data['segment']!r}, not a start, an end and a side") from error
    entry = SampleEntry(key, file_id, members, None, subject, segment=segment)
    if "intensities" in data:
        return entry, by_name, [], complaint
    if isinstance(data.get("labels"), dict):
        told = "the shard's index says what its labels mean; copy the index too, or pack again"
        return entry, None, [], told
    return entry, None, [name for name, value in data.items() if isinstance(value, float)], None


def _intensities(found: object) -> tuple[dict[str, float] | None, str | None]:
    """Values by name, and why there are none: a clip can be scored whatever its labels are."""
    if found is None:
        return None, None
    if not (isinstance(found, dict) and found):
        raise ShardError("json: 'intensities' is not an object of numbers")
    if complaint := collision(list(found)):
        raise ShardError(f"json: {complaint}")
    odd = [f"{name} is {value!r}" for name, value in found.items() if not is_number(value)]
    if odd:
        return None, f"{', '.join(odd[:3])}, not a finite number"
    return {name: float(value) for name, value in found.items()}, None
