"""What a decoder meets changes how a clip is read the next time, and reading again ends."""

from __future__ import annotations

import pytest

from viper_e2e.decoding.attempts import Attempt, FieldsFound, RescanNeeded, TornEnd
from viper_e2e.errors import ClipError


def test_each_reason_changes_one_thing_and_what_was_learned_before_stays():
    attempt = Attempt().after(FieldsFound(), "a.mp4")
    assert attempt == Attempt(has_fields=True)
    attempt = attempt.after(TornEnd(), "a.mp4")
    assert attempt == Attempt(has_fields=True, is_torn=True)
    assert attempt.after(RescanNeeded(), "a.mp4") == Attempt(by_decoding=True, has_fields=True, is_torn=True)


def test_a_clip_whose_frames_differ_from_what_its_decoder_said_is_given_up():
    with pytest.raises(ClipError, match=r"a\.mp4: decodes to different frames each time") as caught:
        Attempt(by_decoding=True).after(RescanNeeded(), "a.mp4")
    assert caught.value.stage == "decode"
