"""shards/tar.py: the members of a tar by walking its headers, never extracting, never trusting."""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass, field

from viper_e2e.runtime import fault_of
from viper_e2e.shards.sources import ShardError, ShardLimits, Source

BLOCK = 512
_ZEROS = bytes(BLOCK)
_PAX_RECORD = re.compile(rb"([0-9]{1,6}) ([^=\n]+)=")
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}


@dataclass(frozen=True, slots=True)
class TarMember:
    """A regular file in a tar: where its bytes lie."""

    name: str
    offset: int
    size: int


@dataclass
class TarWalk:
    """Result of walking the headers."""

    members: list[TarMember] = field(default_factory=list)
    """Whole members only, in order."""
    ignored: list[str] = field(default_factory=list)
    """Members that are never opened, with the reason."""
    torn: str | None = None
    """Place and kind of a break in the archive; ``None`` for a whole one, closed by two blocks of zeros."""


class _TornError(Exception):
    """The archive breaks off here."""


class _Window:
    """Reads ahead a little, so that neighbouring headers cost one read."""

    def __init__(self, source: Source, size: int):
        self.source, self.size = source, size
        self.start, self.data = 0, b""

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes, or fewer at the end of the file."""
        length = max(0, min(length, self.size - offset))
        if offset < self.start or offset + length > self.start + len(self.data):
            ahead = min(max(length, self.source.window_bytes), self.size - offset)
            self.start, self.data = offset, self.source.read(offset, ahead) if length else b""
        return self.data[offset - self.start : offset - self.start + length]


def walk_tar(source: Source, limits: ShardLimits) -> TarWalk:
    """List the members of an uncompressed tar (ustar, GNU, pax) without reading their data.

    A tar that breaks off anywhere, even between two members, is reported in ``torn``. Links, devices and
    names that lead outside are listed as ignored. Raises ``ShardError`` for compressed and sparse archives.
    """
    window = _Window(source, source.size())
    _refuse_compressed(source.name, window.read(0, 6))
    walk = TarWalk()
    position = 0
    try:
        while (header := _next_header(window, position, limits)) is not None:
            info, data_offset = header
            if data_offset + info.size > window.size:
                raise _TornError(f"breaks off inside {info.name!r} (byte {window.size})")
            position = data_offset + -(-info.size // BLOCK) * BLOCK
            if info.type in _REGULAR:
                if reason := _unsafe(info.name):
                    walk.ignored.append(f"{info.name!r}: {reason}")
                else:
                    walk.members.append(TarMember(info.name, data_offset, info.size))
            elif info.type != tarfile.DIRTYPE:
                walk.ignored.append(f"{info.name!r}: a link, device or other special member")
            if len(walk.members) + len(walk.ignored) > limits.max_members:
                raise ShardError(f"{source.name}: more than {limits.max_members} members; pack smaller shards")
        if any(window.read(position, 32 * BLOCK)):
            raise _TornError(
                f"continues after its end-of-archive marker at byte {position} (were tars concatenated?)"
            )
    except _TornError as torn:
        walk.torn = str(torn)
    return walk


def _next_header(window: _Window, position: int, limits: ShardLimits) -> tuple[tarfile.TarInfo, int] | None:
    """The next member with long name and size applied, and where its data starts; ``None`` at the end."""
    extended: dict[str, str] = {}
    while True:
        block = window.read(position, BLOCK)
        if len(block) < BLOCK:
            raise _TornError(f"ends at byte {window.size} without its end-of-archive marker")
        if block == _ZEROS:
            if extended or window.read(position + BLOCK, BLOCK) != _ZEROS:
                raise _TornError(f"has only half an end-of-archive marker at byte {position}")
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise _TornError(f"has no tar header at byte {position} ({error})") from error
        if info.size < 0:
            raise _TornError(f"has a header with a negative size at byte {position}")
        position += BLOCK
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE):
            data = _extension(window, position, info, limits)
            position += -(-info.size // BLOCK) * BLOCK
            if info.type == tarfile.GNUTYPE_LONGNAME:
                extended["path"] = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE):
                records = _pax_records(data, position)
                if any(key.startswith("GNU.sparse") for key in records):
                    raise _sparse(window.source.name, info.name)
                if info.type == tarfile.XHDTYPE:
                    extended.update(records)
                elif not records.keys().isdisjoint(("path", "size", "linkpath")):
                    raise _TornError(f"has a global header that renames or resizes members at byte {position}")
            continue
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise _sparse(window.source.name, info.name)
        info.name = extended.get("path", info.name)
        if "size" in extended:
            if not re.fullmatch(r"[0-9]{1,18}", extended["size"]):
                raise _TornError(f"has a header with size {extended['size'][:32]!r} at byte {position}")
            info.size = int(extended["size"])
        if info.type not in _REGULAR:
            info.size = info.size if info.type not in tarfile.SUPPORTED_TYPES else 0
        return info, position


def _extension(window: _Window, position: int, info: tarfile.TarInfo, limits: ShardLimits) -> bytes:
    if info.size > limits.max_header_bytes:
        raise ShardError(
            f"{window.source.name}: an extended header of {info.size} bytes at byte {position}; "
            f"at most {limits.max_header_bytes} are allowed: repack the shard"
        )
    data = window.read(position, info.size)
    if len(data) < info.size:
        raise _TornError(f"breaks off inside an extended header (byte {window.size})")
    return data


def _pax_records(data: bytes, position: int) -> dict[str, str]:
    """``"<length> <keyword>=<value>\\n"`` records of a pax header (POSIX.1-2001)."""
    records: dict[str, str] = {}
    start = 0
    while start < len(data) and data[start] != 0:
        head = _PAX_RECORD.match(data, start)
        end = start + int(head.group(1)) if head else 0
        if head is None or end > len(data) or end <= head.end() or data[end - 1 : end] != b"\n":
            raise _TornError(f"has a damaged pax header before byte {position}")
        value = data[head.end() : end - 1]
        records[head.group(2).decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        start = end
    return records


def _unsafe(name: str) -> str | None:
    """Why a member with this name is never opened. Nothing is ever extracted; this is a second lock."""
    if name.startswith("/") or "\\" in name or re.match(r"[A-Za-z]:", name):
        return "an absolute or foreign path"
    if ".." in name.split("/"):
        return "a path that leads outside"
    if fault := fault_of(name):
        return f"its name {fault}"
    return None


def _refuse_compressed(name: str, head: bytes) -> None:
    for magic, kind in _COMPRESSED.items():
        if head.startswith(magic):
            raise ShardError(
                f"{name}: compressed with {kind}; shards are read by offset: unpack it to a plain tar"
            )


def _sparse(shard: str, member: str) -> ShardError:
    return ShardError(f"{shard}: {member!r} is a sparse member; repack the shard without --sparse")
