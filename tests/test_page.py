from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.pages import page, predictions

from viper_e2e.errors import ViperError
from viper_e2e.report.page import MAX_CROPS, extremes
from viper_e2e.scoring import scores_of

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&{{ 7 * 7 }}"


def picture(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition("base64,")[2])))


def test_a_page_holds_everything_and_fetches_nothing(tmp_path):
    given = predictions()
    Image.new("RGB", (30, 20), (0, 200, 0)).save(tmp_path / "scatter.png")
    best, worst = extremes(given)
    strips = {given.keys[row]: [np.full((50, 40, 3), 10 * row, np.uint8)] * 4 for row in best + worst}
    made = page(
        tmp_path,
        given,
        figures={"Predicted against true": tmp_path / "scatter.png"},
        strips=strips,
        config={"model": {"faces": {"margin": 0.1}, "bank": None}, "seed": 7},
        versions={"torch": "2.14.1"},
        title="runs/demo on val",
    )
    assert len(made.addresses) == 1 + len(best) + len(worst) == 11
    assert all(address.startswith("data:image/") for address in made.addresses)
    assert picture(made.addresses[0]).size == (30, 20)
    for row, address in zip(best + worst, made.addresses[1:], strict=True):
        strip = picture(address)
        assert strip.size == (4 * 40 + 3 * 3, 50)
        assert strip.getpixel((5, 5)) == pytest.approx((10 * row,) * 3, abs=2)
    for text in (
        "runs/demo on val",
        "20 clips, 19 of them with a label and a prediction, 1 unreadable.",
        "model.faces.margin 0.1",
        "model.bank –",
        "seed 7",
        "torch 2.14.1",
        "key00 val-000.tar is cut short",
        "75% of frames with a face",
        "present: visual, action units",
        "95 % bootstrap intervals",
    ):
        assert text in made.text, text


def test_the_results_stand_with_their_intervals(tmp_path):
    given = predictions()
    made = page(tmp_path, given)
    x, y = given.predicted[given.scored], given.true[given.scored]
    low = scores_of(given, num_resamples=20).whole.column_intervals["adoration"]["pearson"].low
    assert f"adoration {np.corrcoef(x[:, 0], y[:, 0])[0, 1]:.3f} [{low:.3f}, " in made.text


def test_clips_are_shown_from_both_ends_with_their_numbers(tmp_path):
    given = predictions()
    made = page(tmp_path, given)
    best, worst = extremes(given)
    shown = [given.keys[row] for row in best + worst]
    places = [made.text.index(f"{key} [") for key in shown]
    assert places == sorted(places)
    row = worst[0]
    assert f"error {given.squared_error[row] ** 0.5:.3f}" in made.text
    assert f"fear {given.true[row, 5]:.2f} {given.predicted[row, 5]:.2f}" in made.text
    assert "No face crops." in made.text


def test_text_from_a_corpus_is_text_in_the_page(tmp_path):
    n = 20
    given = predictions(keys=[f"{HOSTILE}{i}" for i in range(n)], file_ids=[HOSTILE] * n, shards=[HOSTILE] * n)
    given.errors[0] = HOSTILE
    made = page(
        tmp_path,
        given,
        config={HOSTILE: {HOSTILE: HOSTILE}},
        versions={HOSTILE: HOSTILE},
        title=HOSTILE,
        strips={given.keys[i]: [np.zeros((9, 9, 3), np.uint8)] for i in range(n)},
    )
    assert "script" not in made.tags
    assert not [name for name in made.attributes if name.startswith("on")]
    assert all(address.startswith("data:image/") for address in made.addresses)
    assert made.text.count("<script>alert(1)</script>") == 30
    assert "49" not in made.text.replace("{{ 7 * 7 }}", "").split("How it was made")[1]


def test_what_is_said_in_a_clip_is_shown_shortened_and_as_text(tmp_path):
    given = predictions()
    said = ["<b>oh no</b>" if i % 2 else "x" * 1000 for i in range(len(given))]
    made = page(tmp_path, replace(given, words=said))
    assert "“<b>oh no</b>”" in made.text
    assert f"“{'x' * 399}…”" in made.text
    assert "“" not in page(tmp_path, given).text


def test_the_page_forbids_scripts_and_the_network_itself(tmp_path):
    page(tmp_path, predictions())
    html = (tmp_path / "report.html").read_text()
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in html
    assert "http://" not in html
    assert "https://" not in html


def test_a_set_without_labels_has_a_page_too(tmp_path):
    given = predictions()
    given.true[:] = np.nan
    made = page(tmp_path, given)
    assert "This set has no labels" in made.text
    assert "Closest" not in made.text


def test_a_long_strip_is_thinned_evenly(tmp_path):
    given = predictions()
    key = given.keys[extremes(given)[0][0]]
    crops = [np.full((200, 200, 3), i, np.uint8) for i in range(100)]
    made = page(tmp_path, given, strips={key: crops})
    strip = picture(made.addresses[0])
    assert strip.size == (MAX_CROPS * 96 + (MAX_CROPS - 1) * 3, 96)
    assert strip.getpixel((5, 5))[0] == pytest.approx(0, abs=2)
    assert strip.getpixel((strip.width - 5, 5))[0] == pytest.approx(99, abs=2)


def test_a_page_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(ViperError, match="cannot be written"):
        page(tmp_path / "nowhere", predictions())
