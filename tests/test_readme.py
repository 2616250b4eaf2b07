"""What README and the site claim: Python lines run; commands, options, links exist; no file is missing."""

from __future__ import annotations

import ast
import doctest
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch
from support import ROOT
from support.media import make_clip

from viper_e2e.commands.cli import COMMANDS
from viper_e2e.config.presets import micro
from viper_e2e.model.viper import ViPER

PAGES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *ROOT.glob("docs/**/*.md"))}
FILES = (ROOT / "docs/files.md").read_text(encoding="utf-8")


def tracked(*patterns: str) -> list[str]:
    done = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def first_line(path: Path) -> str:
    """The sentence a file opens with, without its own name."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".sh":
        line = text.splitlines()[1].removeprefix("# ")
    else:
        line = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return re.sub(r"^[\w/]+(\.py|\.sh)?: ", "", line).strip()


@pytest.mark.slow
def test_the_python_lines_run(tmp_path, monkeypatch):
    torch.manual_seed(0)
    ViPER(micro()).save_pretrained(tmp_path / "demo/run/checkpoints/best")
    (tmp_path / "demo/corpus").mkdir()
    make_clip(tmp_path / "demo/corpus/new_clip.mp4")
    monkeypatch.chdir(tmp_path)
    shown = [lines for text in PAGES.values() for lines in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]
    shown = [lines for lines in shown if lines.startswith(">>>")]  # else it is a file, with a test of its own
    assert len(shown) == 2
    for lines in shown:
        test = doctest.DocTestParser().get_doctest(lines, {}, "README.md", "README.md", 0)
        assert len(test.examples) == 3
        assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test).failed == 0


@pytest.mark.slow
def test_the_scripts_on_the_page_of_the_api_run(tmp_path, corpus, monkeypatch):
    ViPER(micro()).save_pretrained(tmp_path / "RUN/checkpoints/best")
    (tmp_path / "shards").symlink_to(corpus / "shards")
    monkeypatch.chdir(tmp_path)
    scripts = re.findall(r"```py\n(.*?)```", PAGES[ROOT / "docs/reference/api.md"], re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        exec(script.replace("tiny", "micro").replace("Accelerator()", "Accelerator(cpu=True)"), {})
    assert (tmp_path / "runs/one/checkpoints/last/model.safetensors").is_file()


MODULES = [
    name
    for name in tracked(
        "viper_e2e/*.py", "datasets/*.py", "benchmarks/*.py", "benchmarks/*.sh", "train.py", "infer.py"
    )
    if not name.endswith("/__init__.py")  # a package's sentence stands at its folder
]


@pytest.mark.parametrize("file", MODULES)
def test_the_map_has_every_file_with_the_sentence_it_opens_with(file):
    sentence = first_line(ROOT / file)
    assert sentence, f"{file} opens with no sentence"
    entry = re.compile(rf"^ *{re.escape(Path(file).name)} +{re.escape(sentence)}$", re.MULTILINE)
    assert entry.search(FILES), f"docs/files.md lacks: {Path(file).name}  {sentence}"


@pytest.mark.slow
def test_the_commands_exist_and_know_their_options(capsys):
    from viper_e2e.commands.cli import main

    command_line = r"^(?:\$ )?((?:viper|python (?:train|infer)\.py) (?:[^\n#\\]|\\\n)*)"
    shown = [line for text in PAGES.values() for line in re.findall(command_line, text, re.MULTILINE)]
    assert shown
    for text in shown:
        words = shlex.split(text.replace("\\\n", " "))
        command = words[1] if words[0] == "viper" else Path(words[1]).stem
        assert command in {*COMMANDS, "--help"}, text
        if command == "--help":
            continue
        with pytest.raises(SystemExit):
            main([command, "--help"])
        if (
            command in ("cv", "sweep", "bench") or "--retrain" in words
        ):  # which understand all options of `train`
            with pytest.raises(SystemExit):
                main(["train", "--help"])
        told = capsys.readouterr().out
        for word in words[2:]:
            if word.startswith("--") and not word.startswith("--model."):
                assert word.partition("=")[0] in told, text


@pytest.mark.parametrize("page", tracked("*.md"))
def test_each_link_leads_to_a_file_of_the_repository_and_a_heading_in_it(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    files = {ROOT / name for name in tracked()}
    known = files | {folder for file in files for folder in file.parents}
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        there = (ROOT / page).parent.joinpath(target).resolve() if target else ROOT / page
        assert there in known, target
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there.read_text(encoding="utf-8")), f"{target}#{anchor}"


def anchors(text: str) -> set[str]:
    """What links to the headings of a page are called."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


def test_the_front_page_is_short():
    assert PAGES[ROOT / "README.md"].count("\n") <= 200
