"""The pages of the site that come from the code have all of it."""

from __future__ import annotations

import importlib.util
import posixpath
import re
from dataclasses import fields

import pytest
import yaml
from support import ROOT

from viper_e2e.commands.cli import COMMANDS
from viper_e2e.config import model, training

spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)

SETTINGS = generate.settings_page()


GROUPS = [
    kind
    for module in (model, training)
    for kind in vars(module).values()
    if isinstance(kind, type) and kind.__module__ == module.__name__ and kind is not training.TrainConfig
]


@pytest.mark.parametrize("kind", GROUPS, ids=lambda kind: kind.__name__)
def test_every_setting_stands_in_a_table_with_its_default(kind):
    _, _, after = SETTINGS.partition(f"\n## {kind.__name__}\n")
    table = after.partition("\n## ")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| <code>")]
    assert [row[0] for row in rows] == [f"| <code>{field.name}</code>" for field in fields(kind)]
    assert all(len(row) == 4 for row in rows)
    assert all(row[3].strip(" |") for row in rows), "each has a meaning"


@pytest.mark.parametrize(
    "row",
    [
        "| <code>batch_size</code> | <code>int</code>, at least 1 | <code>16</code> |",
        "| <code>max_side</code> | <code>int &#124; None</code>, at least 1 | <code>640</code> |",
        "| <code>ema_decay</code> | <code>float</code>, from 0 up to but not 1 | <code>0.0</code> |",
    ],
)
def test_a_number_is_shown_with_what_it_may_be(row):
    assert row in SETTINGS


def test_every_command_stands_there_as_its_help(monkeypatch):
    monkeypatch.setenv("COLUMNS", "88")
    page = generate.commands_page()
    for command in COMMANDS:
        assert f"## viper {command}\n\n```text\nusage: viper {command}" in page


WRITTEN = {path.relative_to(ROOT / "docs").as_posix() for path in ROOT.glob("docs/**/*.md")}
GENERATED = set(generate.MADE_OF.values())


def test_every_page_is_in_the_menu():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    menu = {page for entry in yaml.safe_load(text)["nav"] for page in _pages(entry)}
    assert menu == WRITTEN | GENERATED


@pytest.mark.parametrize("page", sorted(WRITTEN))
def test_in_the_site_each_link_leads_to_a_page_or_picture_of_the_site(page):
    text = generate.links_of_site((ROOT / "docs" / page).read_text(encoding="utf-8"), page)
    for target in re.findall(generate.LINK, text):
        there = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        assert not there.startswith(".."), target
        assert there in WRITTEN | GENERATED or (ROOT / "docs" / there).is_file(), target


def test_a_link_to_what_a_page_is_made_of_keeps_its_anchor_in_the_site():
    text = "[a](../../viper_e2e/config/training.py#trainconfig) [b](../../CHANGELOG.md) [c](tasks.md#groups)"
    told = "[a](../reference/settings.md#trainconfig) [b](../changes.md) [c](tasks.md#groups)"
    assert generate.links_of_site(text, "how-to/stores.md") == told


def _pages(entry: object) -> list[str]:
    if isinstance(entry, dict):
        return [page for value in entry.values() for page in _pages(value)]
    return [page for value in entry for page in _pages(value)] if isinstance(entry, list) else [str(entry)]
