"""generate.py: pages of the site that come from the code: settings, commands, measurements."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import os
import posixpath
import re
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from html import escape
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_origin

from viper_e2e.config.bounds import bounds_of
from viper_e2e.config.field_docs import field_docs
from viper_e2e.config.settings import WORDED

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
LINK = r"\]\((?!https?:|#)([^)#]+)"
"""The beginning of a link to a file, up to its anchor."""
SETTINGS = ("model", "training")
"""Modules of `viper_e2e/config` that declare settings."""
MADE_OF = {
    "viper_e2e/config/model.py": "reference/settings.md",
    "viper_e2e/config/training.py": "reference/settings.md",
    "viper_e2e/config/options.py": "reference/commands.md",
    "benchmarks/RESULTS.md": "measurements.md",
    "CHANGELOG.md": "changes.md",
}
"""Files of the repository -> the pages made of them. Pages in ``docs/`` link to the file, which is there for
those who read them in the repository; in the site the link leads to the page."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by mkdocs: adds the pages to those that lie in ``docs/``."""
    from mkdocs.structure.files import File

    pages = {
        "reference/settings.md": settings_page(),
        "reference/commands.md": commands_page(),
        "measurements.md": measurements_page((ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8")),
        "changes.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "]("),
    }
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Called by mkdocs for each page before it becomes HTML."""
    return links_of_site(markdown, page.file.src_uri)


def links_of_site(text: str, page: str) -> str:
    """Of a page (``how-to/stores.md``): links to a file in `MADE_OF` lead to the page that is made of it."""
    folder = posixpath.dirname(f"docs/{page}")

    def of_site(link: re.Match[str]) -> str:
        made = MADE_OF.get(posixpath.normpath(posixpath.join(folder, link[1])))
        return link[0] if made is None else f"]({posixpath.relpath(f'docs/{made}', folder)}"

    return re.sub(LINK, of_site, text)


def on_page_content(html: str, **_: object) -> str:
    """Without the roles of Sphinx, which docstrings have for editors."""
    return re.sub(r":(?:\w+):(?=<code>)", "", html)


# --- settings -------------------------------------------------------------------------------------


def settings_page() -> str:
    """A table for each dataclass: setting, type and bounds, default, and the docstring below the field."""
    lines = [
        "# Settings",
        "",
        "The tables from `RunConfig` on are settings of a run: options of `viper train` (`--batch-size 8`).",
        "The tables before are settings of the model. Their options begin with `--model.`",
        "(`--model.decoding.num-frames 16`), and a checkpoint saves them. `viper train --print-config` prints",
        "all settings of a preset as a YAML file. Defaults are those before a preset is applied: the preset",
        "`base` changes some (`lr`, `mixed_precision`, `fusion.kind`, …).",
    ]
    for name in SETTINGS:
        module = import_module(f"viper_e2e.config.{name}")
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
                lines += _table(node, getattr(module, node.name))
    return "\n".join(lines) + "\n"


def _table(node: ast.ClassDef, kind: type) -> list[str]:
    """Empty for a dataclass that has no fields of its own."""
    rows = [f"| {' | '.join(row)} |" for row in _rows(node, kind)]
    head = [f"## {node.name}", "", *_paragraphs(ast.get_docstring(node)), ""]
    columns = ["| setting | type | default | meaning |", "| :-- | :-- | :-- | :-- |"]
    return ["", *head, *columns, *rows] if rows else []


def _rows(node: ast.ClassDef, kind: type) -> Iterator[list[str]]:
    bounds = bounds_of(kind)
    for field in node.body:
        if not isinstance(field, ast.AnnAssign):
            continue
        name = ast.unparse(field.target)
        group = vars(sys.modules[kind.__module__]).get(ast.unparse(field.annotation))
        told = " ".join(_paragraphs(field_docs(kind)[name] or (group.__doc__ if is_dataclass(group) else "")))
        cells = [name, _type(field.annotation, kind), _default(field.value, getattr(kind, name, None))]
        # Markdown has no way to write a bar between backticks in a table.
        setting, typed, default = (f"<code>{_cell(escape(cell))}</code>" if cell else "" for cell in cells)
        allowed = f", {bounds[name]}" if name in bounds else ""
        yield [setting, f"{typed}{allowed}", default, _cell(told)]


def _type(annotation: ast.expr, kind: type) -> str:
    """Without what ``Annotated`` adds, and with the choices that a name stands for."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        assert isinstance(annotation.slice, ast.Tuple)
        annotation = annotation.slice.elts[0]
    written = ast.unparse(annotation)
    meant = vars(sys.modules[kind.__module__]).get(written)
    return str(meant).removeprefix("typing.") if get_origin(meant) is Literal else written


def _default(value: ast.expr | None, default: object) -> str:
    """As it is written: in the code, or, where it has a language of its own, in that."""
    if isinstance(default, WORDED):
        return str(default)
    if value is None:
        return ""
    if isinstance(value, ast.Call):
        return next((ast.unparse(k.value).removeprefix("lambda: ") for k in value.keywords), "")
    return ast.unparse(value)


def _cell(text: str) -> str:
    return text.replace("|", "&#124;")


def _paragraphs(docstring: str | None) -> list[str]:
    # Roles of Sphinx and double backticks are for editors; pages of the site are Markdown.
    text = re.sub(r":\w+:`([^`]+)`", r"`\1`", (docstring or "").replace("``", "`"))
    return [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text.strip())]


# --- commands -------------------------------------------------------------------------------------


def commands_page() -> str:
    """What ``--help`` of each command prints."""
    os.environ["COLUMNS"] = "88"
    from viper_e2e.commands.cli import COMMANDS, main

    lines = [
        "# Commands",
        "",
        "What `viper COMMAND --help` prints. `train.py` is `viper train`, and `infer.py` is `viper infer`.",
    ]
    for command in COMMANDS:
        told = io.StringIO()
        with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
            main([command, "--help"])
        lines += ["", f"## viper {command}", "", "```text", told.getvalue().strip(), "```"]
    return "\n".join(lines) + "\n"


# --- measurements ---------------------------------------------------------------------------------


def measurements_page(text: str) -> str:
    """``benchmarks/RESULTS.md``; its raw tables are files of the repository, and are named without a link."""
    text = re.sub(r"\[([^\]]+)\]\((?!https?:|#)([^)]+)\)", lambda m: f"`benchmarks/{m[2]}`", text)
    return text.replace("# What was measured", "# Measurements", 1)
