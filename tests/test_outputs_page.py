"""docs/reference/outputs.md has every key and column that commands write, and their exit codes."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
from support import ROOT
from support.predictions import predictions

from viper_e2e.errors import ExitCode
from viper_e2e.model.predictions import IN_CSV
from viper_e2e.report.run_log import EpochRecord, ValidationRecord, YardstickRecord
from viper_e2e.scoring import scores_of, scores_record
from viper_e2e.tasks import MEASURES
from viper_e2e.training.guarding import SIGNALS

PAGE = (ROOT / "docs/reference/outputs.md").read_text(encoding="utf-8")
KEYS = set(re.findall(r"`(\w+)`", PAGE))
OF_THE_CODE = {"scores"}
"""Fields of records that are written one level higher."""


@pytest.mark.parametrize(
    "record", [EpochRecord, ValidationRecord, YardstickRecord], ids=lambda one: one.__name__
)
def test_every_key_of_a_line_of_metrics_stands_there(record):
    assert {field.name for field in fields(record)} - OF_THE_CODE <= KEYS


def test_every_key_of_scores_stands_there():
    made = scores_record(scores_of(predictions(9)))
    assert made["intervals_95"]
    assert {*made, *made["tasks"]["intensities"]} <= KEYS
    assert {name for names in MEASURES.values() for name in names} <= KEYS


def test_every_column_of_predictions_stands_there():
    for column in IN_CSV.values():
        title = f"{column.title}_{column.each.upper()}" if column.each else column.title
        assert title in KEYS


def test_every_exit_code_stands_there():
    (table,) = re.findall(r"^## Exit codes$(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    told = {
        int(code) for cell in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for code in cell.split(", ")
    }
    assert told == {*map(int, ExitCode), *SIGNALS.values()}
