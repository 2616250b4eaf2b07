"""packing/finding.py: the files that a table's names refer to, and hints if there is none."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from urllib.parse import unquote

from viper_e2e.tables import without_ending


class Files:
    """The files of a folder and those below it, found by what a table calls them."""

    def __init__(self, folder: Path, by_stem: Mapping[str, Sequence[Path]]):
        self.folder = folder
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for stem, paths in by_stem.items():
            # Cells of a table lose the spaces at their ends.
            self._by_stem[_composed(stem).strip()] += paths

    def find(self, name: str, table: Path) -> list[Path]:
        """Every file that ``name`` can mean: a stem, or with an ending, or with folders before it.

        Folders are those in ``folder``, or a path from the table's own folder or from the root that leads into
        it. Of files that differ in their ending alone, the one of the name's ending is meant.
        """
        name = _composed(name).replace("\\", "/")
        *folders, last = [part for part in name.split("/") if part not in ("", ".")]
        stem = without_ending(last).strip()
        found = list(self._by_stem.get(stem) or self._with_point(stem))
        if folders:
            found = [path for path in found if self._lies_in(path, folders, name, table)]
        same = [path for path in found if _composed(path.name).casefold() == last.casefold()]
        return same if len(found) > 1 and same else found

    def _with_point(self, stem: str) -> list[Path]:
        """``1.0.mp4`` for 1: named by a program that kept whole numbers with decimals."""
        return self._by_stem.get(f"{stem}.0", []) if re.fullmatch(r"-?[0-9]+", stem) else []

    def _lies_in(self, path: Path, folders: list[str], name: str, table: Path) -> bool:
        inside = [_composed(part) for part in path.relative_to(self.folder).parent.parts]
        if inside[-len(folders) :] == folders:
            return True
        try:
            meant = (table.parent / name).resolve().parent
            return path.parent.resolve() == meant
        except (OSError, ValueError):  # a name that no file system could hold
            return False

    def hint(self, name: str) -> str:
        """A hint at the files that a name may mean, if it matches none."""
        last = _composed(name).replace("\\", "/").rpartition("/")[2]
        stem = without_ending(last)
        plain = without_ending(_composed(unquote(last.partition("?")[0]))).strip()
        if plain != stem and plain in self._by_stem:
            return f"; there is {self._by_stem[plain][0].name}: write it so, not as an address"
        if stem in self._by_stem:
            return f"; {self._by_stem[stem][0]} has its name, but is elsewhere: is --videos the right folder?"
        if re.fullmatch(r"[0-9]+", stem):
            alike = [s for s in self._by_stem if re.fullmatch(r"[0-9]+", s) and int(s) == int(stem)]
            if alike:
                longer = len(alike[0]) > len(stem)
                what = "has the table lost its zeros? format the column as text" if longer else "which is it?"
                return f"; there is {self._by_stem[alike[0]][0].name}: {what}"
        alike = [s for s in self._by_stem if s.casefold() == stem.casefold()]
        return f"; there is {self._by_stem[alike[0]][0].name}: write it the same way" if alike else ""


def _composed(name: str | PurePath) -> str:
    """One way of writing letters with accents: macOS writes names apart (NFD), tables composed (NFC)."""
    return unicodedata.normalize("NFC", str(name))
