"""The files that a clip meets are those that docs/architecture.md names, in that order, and no more of them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import ROOT

from viper_e2e.config.presets import PRESETS
from viper_e2e.decoding import ClipDecoder
from viper_e2e.model.viper import ViPER

PACKAGE = ROOT / "viper_e2e"
TEXT = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def told(beginning: str) -> tuple[int, list[str], set[str]]:
    """How many files the page says there are, those that carry the clip, and the names of all."""
    (item,) = re.findall(rf"^- {re.escape(beginning)}.*?(?=\n- |\n\n)", TEXT, re.MULTILINE | re.DOTALL)
    number = int(re.search(r"(\d+) files", item)[1])
    return number, re.findall(r"`(\w+/\w+\.py)`", item), set(re.findall(r"(\w+\.py)`", item))


def files_run(call: Callable[[], object]) -> list[str]:
    """Of the package, in the order in which a function of each is first called."""
    found: dict[str, None] = {}

    def note(frame, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE) and frame.f_code.co_name != "<module>":
            found.setdefault(path.relative_to(PACKAGE).as_posix())

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return list(found)


def check(files: list[str], beginning: str) -> None:
    number, carrying, named = told(beginning)
    print(f"{len(files)} files: {', '.join(files)}")
    assert len(files) <= number
    assert {Path(file).name for file in files} == named
    assert len(carrying) <= 8
    assert [file for file in files if file in carrying] == carrying


def test_from_bytes_to_a_decoded_clip(tiny_clip):
    data = tiny_clip().read_bytes()
    decoder = ClipDecoder(PRESETS["micro"]().decoding)
    decoder(data)  # what is made once is not on the way
    check(files_run(lambda: decoder(data)), "Bytes to `DecodedClip`")


@torch.no_grad()
@pytest.mark.slow
def test_from_a_prepared_batch_to_intensities(tiny_clip):
    model = ViPER(PRESETS["micro"]()).eval()
    prepared = model.prepare([tiny_clip()])
    model(prepared)
    check(files_run(lambda: model(prepared)), "A prepared batch to intensities")
