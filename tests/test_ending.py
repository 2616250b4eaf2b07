"""The command of a shell ends at once, with the same words and exit code as if Python took it apart."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PLAIN = "import sys; from viper_e2e.commands import main; sys.exit(main({words!r}))"
AT_ONCE = "from viper_e2e.commands import run; run({words!r})"


def ended(code: str, stdout: int = subprocess.PIPE) -> tuple[int, str | None, str]:
    done = subprocess.run([sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("words", [["--version"], [], ["infr"], ["infer", "--help"], ["check", "nowhere.tar"]])
def test_words_and_exit_code_are_those_of_the_command(words):
    assert ended(AT_ONCE.format(words=words)) == ended(PLAIN.format(words=words))


def test_whoever_wants_to_tidy_up_does_so_and_nothing_is_taken_apart():
    code = """
import atexit
from viper_e2e.commands import cli
class Kept:
    def __del__(self): print("taken apart")
kept = Kept()
def main(argv):
    atexit.register(print, "tidied up")
    return 2
cli.main = main
cli.run([])
"""
    assert ended(code) == (2, "tidied up\n", "")


def test_a_command_that_raises_is_traced():
    code = "from viper_e2e.commands import cli; cli.main = lambda argv: 1 / 0; cli.run([])"
    exit_code, _, told = ended(code)
    assert exit_code == 1
    assert told.endswith("ZeroDivisionError: division by zero\n")


def test_output_that_nobody_reads_ends_it_as_always():
    codes = []
    for code in (PLAIN, AT_ONCE):
        ours, theirs = os.pipe()
        os.close(ours)
        codes.append(ended(code.format(words=["--version"]), theirs)[0])
        os.close(theirs)
    assert codes[0] == codes[1]
