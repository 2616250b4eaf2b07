"""tars.py: tar files that another program could have written."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path


def write_foreign(path: Path, members: list[tuple[str, bytes]], *, format: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def record(n: int, **values: float) -> bytes:
    return json.dumps({"file_id": f"[{n}]", "intensities": values or {"fear": n / 100}}).encode()


def three_samples(tag: str) -> list[tuple[str, bytes]]:
    members = []
    for n in range(3):
        members += [(f"{n}.json", record(n)), (f"{n}.mp4", f"{tag} video {n} ".encode() * 70)]
        members += [(f"{n}.wav", f"{tag} sound {n} ".encode() * 50)]
    return members
