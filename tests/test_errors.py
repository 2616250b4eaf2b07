"""Errors of clips cross from one process to another as they are; mypy checks their stages."""

from __future__ import annotations

import pickle

from viper_e2e.errors import ClipError


def test_an_error_of_a_clip_keeps_its_stage_between_processes():
    error = pickle.loads(pickle.dumps(ClipError("is empty", stage="container", clip="a.mp4")))
    assert (str(error), error.stage, error.clip) == ("a.mp4: is empty", "container", "a.mp4")
