"""archive.py: the zip that `torch.save` writes, its tensors' bytes mapped into memory."""

from __future__ import annotations

import mmap
import zipfile
from pathlib import Path

import torch
from torch import Tensor

MAX_PICKLE_BYTES = 16 * 1024**2
"""A full-size head has 0.2 MB of pickle; the rest of its file is tensors."""

_LOCAL_HEADER = b"PK\x03\x04"


class Refused(Exception):
    """Something in a file that must not be there; `read` in `safe_pickle.py` adds the file's name."""


class Archive:
    """Members of the zip, each stored as it is. Sizes are checked here, before anything is allocated."""

    def __init__(self, path: Path):
        with path.open("rb") as file:
            if file.read(4) != _LOCAL_HEADER:
                raise Refused(
                    "no zip of torch.save (a bare pickle? saved before PyTorch 1.6? a download cut short?)"
                )
            try:
                with zipfile.ZipFile(file) as archive:
                    members = archive.infolist()
            except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
                raise Refused(f"a damaged zip ({error}); fetch it again") from None
            # Private and writable: tensors are views of it, and training may write to them.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        if any(m.compress_type != zipfile.ZIP_STORED or m.flag_bits & 1 for m in members):
            raise Refused("compressed or encrypted members, where torch.save stores them plainly")
        # Members that overlap could claim any amount of memory from a small file.
        if sum(m.file_size for m in members) > len(self._map):
            raise Refused("members that overlap")
        self._members = {m.filename: m for m in members}
        pickles = [name for name in self._members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1 or len(self._members) != len(members):
            raise Refused(f"{len(pickles)} members called data.pkl, or members that occur twice")
        self._folder = pickles[0].removesuffix("data.pkl")
        if f"{self._folder}byteorder" in self._members and self._bytes("byteorder")[0] != b"little":
            raise Refused("numbers that are not little-endian")

    def pickle(self) -> bytes:
        data, _ = self._bytes("data.pkl")
        if len(data) > MAX_PICKLE_BYTES:
            raise Refused(f"a pickle of {len(data)} bytes, more than {MAX_PICKLE_BYTES}")
        return bytes(data)

    def storage(self, key: str, dtype: torch.dtype, num_elements: int) -> Tensor:
        """One-dimensional view of a member, of exactly the size that the pickle says."""
        data, start = self._bytes(f"data/{key}")
        if num_elements < 1 or len(data) != num_elements * dtype.itemsize:
            raise Refused(f"storage {key!r:.20} of {len(data)} bytes, not {num_elements} × {dtype.itemsize}")
        # torch.save aligns to 64 bytes; what is not aligned is copied, at most the file's own size.
        return torch.frombuffer(bytearray(data) if start % dtype.itemsize else data, dtype=dtype)

    def _bytes(self, name: str) -> tuple[memoryview, int]:
        """A member and where in the file it starts."""
        member = self._members.get(self._folder + name)
        if member is None:
            raise Refused(f"no member {name!r:.40} in the zip")
        # The local header has lengths of its own: its padding is not in the directory.
        header = self._map[member.header_offset : member.header_offset + 30]
        start = member.header_offset + 30
        start += int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        if header[:4] != _LOCAL_HEADER or start + member.file_size > len(self._map):
            raise Refused(f"a member {name!r:.40} outside of the file; fetch it again")
        return memoryview(self._map)[start : start + member.file_size], start
