"""test_skips.py: how many clips may be left out, and what is said of them."""

from __future__ import annotations

import json

import pytest

from viper_e2e.errors import ViperError
from viper_e2e.loading.skips import SkipBudget, SkipRecord


def record(key: str = "clip7", stage: str = "decode") -> SkipRecord:
    return SkipRecord(key, "train-000001.tar", stage, f"{key}: no frame can be decoded", 2, 41)


def budget_after(pattern: str, **settings) -> SkipBudget:
    """`.` is a clip that was read, `x` one that was not."""
    budget = SkipBudget(**settings)
    for number, sign in enumerate(pattern):
        budget.read() if sign == "." else budget.skip(record(f"clip{number}"))
    return budget


def test_a_hundred_bad_clips_in_a_row_are_endured_and_one_more_is_not():
    budget_after("x" * 100).check()
    with pytest.raises(ViperError, match="101 clips in a row could not be used"):
        budget_after("x" * 101).check()


def test_a_good_clip_ends_the_row():
    assert budget_after("xxxx.xx").in_a_row == 2
    assert budget_after("xxx").in_a_row == 3


def test_the_share_is_judged_only_after_the_grace():
    budget_after("x" * 50 + "." * 149).check()
    with pytest.raises(ViperError, match=r"50 of 200 clips could not be used \(25.0%, at most 2.0%\)"):
        budget_after("x" * 50 + "." * 150).check()
    budget_after("." * 196 + "x" * 4).check()
    with pytest.raises(ViperError, match="5 of 200"):
        budget_after("." * 195 + "x" * 5).check()


def test_the_summary_says_what_failed_where_and_what_to_do():
    budget = SkipBudget(max_in_a_row=2)
    for key, stage in (("a", "read"), ("b", "decode"), ("c", "decode")):
        budget.skip(record(key, stage))
    with pytest.raises(ViperError) as caught:
        budget.check()
    assert str(caught.value) == (
        "3 clips in a row could not be used (at most 2); by stage: decode 2, read 1; "
        "last: c: no frame can be decoded (shard train-000001.tar); "
        "look at skipped.jsonl and run `viper check` on the shards"
    )


def test_a_clip_is_written_down_once_and_counted_each_time():
    budget = SkipBudget()
    assert [budget.skip(record("a")), budget.skip(record("b")), budget.skip(record("a"))] == [True, True, False]
    assert (budget.num_seen, budget.num_skipped) == (3, 3)


def test_clips_that_were_put_aside_before_count_towards_no_budget():
    budget = SkipBudget(max_in_a_row=2)
    for key in "abcd":
        assert budget.skip(record(key, "quarantine"))
    budget.check()
    assert (budget.num_seen, budget.num_skipped, budget.in_a_row) == (4, 0, 0)


def test_a_record_is_one_line_of_json():
    assert json.loads(json.dumps(record().to_json())) == {
        "key": "clip7",
        "shard": "train-000001.tar",
        "stage": "decode",
        "exception": "clip7: no frame can be decoded",
        "epoch": 2,
        "position": 41,
    }


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_a_resumed_budget_counts_on(stop):
    pattern = "x.xx..xx"
    whole = budget_after(pattern)
    resumed = SkipBudget()
    resumed.load_state_dict(json.loads(json.dumps(budget_after(pattern[:stop]).state_dict())))
    for number, sign in enumerate(pattern[stop:], start=stop):
        resumed.read() if sign == "." else resumed.skip(record(f"clip{number}"))
    assert resumed.state_dict() == whole.state_dict()
    assert not resumed.skip(record("clip0"))
