"""test_plurals.py: numbers stand with what they count, in one and in many, wherever a message counts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from viper_e2e.runtime import all_of, count_of, first_of, values_of

ROOT = Path(__file__).parent.parent
COUNTED = re.compile(
    r"(?<!of )(?<!of its )\{(?:n|num_\w+|count|total|len\([\w.]+\))(?::,)?\} "
    "(?:clips|rows|files|films|shards|subjects) "
)
"""In an f-string: a number that may be 1, and a noun that is in many."""
NEVER_ONE = ("mixture_order.py", "loader.py", "skips.py", "ridge_learner.py")
"""Which speak of all clips of an epoch, or of more than a limit."""


@pytest.mark.parametrize(
    ("number", "words", "told"),
    [
        (0, ("clip",), "0 clips"),
        (1, ("clip",), "1 clip"),
        (2000, ("clip",), "2,000 clips"),
        (1, ("class", "classes"), "1 class"),
        (3, ("clip is", "clips are"), "3 clips are"),
    ],
)
def test_a_number_stands_with_what_it_counts(number, words, told):
    assert count_of(number, *words) == told


def test_messages_count_by_this_rule():
    files = [*ROOT.glob("viper_e2e/**/*.py"), *ROOT.glob("datasets/*.py")]
    found = [
        f"{path.name}: {m[0]}"
        for path in files
        if path.name not in NEVER_ONE
        for m in COUNTED.finditer(path.read_text())
    ]
    assert found == []


def test_dots_behind_names_say_that_there_are_more():
    assert first_of(["a", "b", "c"]) == "a, b, c"
    assert first_of(["a", "b", "c", "d"]) == "a, b, c, …"
    assert first_of((n for n in range(2)), 1) == "0, …"


@pytest.mark.parametrize(("names", "told"), [(["a"], "a"), ([1, 2], "1 or 2"), (["a", "b", "c"], "a, b or c")])
def test_a_list_ends_with_a_word_before_its_last_name(names, told):
    assert all_of(names, "or") == told


def test_many_different_values_are_counted_and_not_named():
    assert values_of({"joy": 12, "anger": 5}) == "joy 12, anger 5"
    assert values_of(dict.fromkeys(map(str, range(13)), 1)) == "13 different"


def test_no_message_puts_dots_behind_names_that_may_be_all():
    """They come from `first_of`, which looks whether there are more."""
    for path in (ROOT / "viper_e2e").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(\]\)|some|\.name|\[0\])\}, …", text), path
