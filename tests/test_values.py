"""Settings written in words of their own: read once into values, which print as such words again."""

from __future__ import annotations

import pytest

from viper_e2e.config import TrainConfig
from viper_e2e.config.depth import All, Blocks, LaterDepths, Phase
from viper_e2e.config.presets import PRESETS, TRAIN_DEFAULTS
from viper_e2e.config.settings import WORDED, Settings
from viper_e2e.config.values import Changes, Loss, Size, TaskWeights
from viper_e2e.errors import ViperError


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("2GB", 2 * 10**9),
        ("512 mb", 512 * 10**6),
        ("1.5GiB", 3 * 2**29),
        ("4k", 4000),
        ("17", 17),
        (17, 17),
        ("0", 0),
    ],
)
def test_sizes_are_read_as_people_write_them(text, num_bytes):
    assert Size.parse(text) == Size(num_bytes)


def test_weights_of_a_loss_are_read_from_text():
    assert Loss.parse("mse=1,pearson=0.5").weights == {"mse": 1.0, "pearson": 0.5}
    assert Loss.parse(" ccc , mse = 2 ").weights == {"ccc": 1.0, "mse": 2.0}
    assert Loss.parse("mse,ccc=2") == Loss.parse("ccc=2,mse=1") != Loss.parse("mse,ccc")


def test_later_depths_are_read_in_the_order_of_their_epochs():
    later = LaterDepths.parse("4:visual=all, 2:visual=1,2:audio=1")
    assert later.phases == (
        Phase(2, "visual", Blocks(1)),
        Phase(2, "audio", Blocks(1)),
        Phase(4, "visual", All()),
    )
    assert LaterDepths.parse("none") == LaterDepths()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *((Size, text) for text in ("0", "17", "2GB", "256MB", "1536MiB", "1KiB", "5kB", "3TB")),
        *((Loss, text) for text in ("mse=1", "ccc=2,mse=0.1", "mse=1,pearson=0.30000000000000004")),
        *((TaskWeights, text) for text in ("", "emotion=1", "a b=0.5,valence=2")),
        *((Changes, text) for text in ("none", "all", "box", "pixels,box,sound")),
        *((LaterDepths, text) for text in ("none", "2:visual=4", "1:audio=1,4:visual=all")),
    ],
)
def test_a_value_prints_as_the_words_that_it_came_from(kind, text):
    assert str(kind.parse(text)) == text


@pytest.mark.parametrize("kind", WORDED)
def test_what_a_value_prints_is_what_it_is_read_from_by_default(kind):
    assert kind.parse(str(kind())) == kind()


@pytest.mark.parametrize("preset", PRESETS)
def test_settings_as_a_file_hold_words_and_numbers_alone(preset):
    train = TrainConfig(**TRAIN_DEFAULTS[preset])

    def leaves(data):
        if isinstance(data, dict | list):
            for value in data.values() if isinstance(data, dict) else data:
                yield from leaves(value)
        else:
            yield data

    data = Settings(train, PRESETS[preset](), preset).to_dict()
    assert {type(leaf) for leaf in leaves(data)} <= {str, int, float, bool, type(None)}
    assert (data["loss"], data["reuse_memory"], data["augment"]) == (str(train.loss), "0", "none")


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        *((Size, text, "is not a size") for text in ("", "GB", "2 bananas", "-1GB", "1e9", "2GB2")),
        (Loss, "mse=1,pearsn=1", "did you mean pearson"),
        (Loss, "mae", "no term 'mae'"),
        (TaskWeights, "mood", "'mood' is not a weight of a task"),
        (TaskWeights, "mood=1,mood=2", "'mood=2' is not a weight of a task"),
        (TaskWeights, "mood=x", "'x' is not a weight"),
        (Loss, "mse=x", "'x' is not a weight"),
        (Loss, "mse=", "'' is not a weight"),
        (Loss, "mse=-1", "'-1' is not a weight"),
        (Loss, "mse=nan", "is not a weight"),
        (Loss, "mse=inf", "is not a weight"),
        (Loss, "mse,mse", "twice"),
        (Loss, "", "no term has a weight above 0"),
        (Loss, "mse=0", "no term has a weight above 0"),
        (Changes, "pixel", "choose none, all, or some of pixels,box,sound"),
        (Changes, "", "choose none, all"),
        (LaterDepths, "visual=2", "write it as EPOCH:BACKBONE=DEPTH"),
        (LaterDepths, "2:visual", "write it as"),
        (LaterDepths, "1:audio=1,2:visual=none", "'2:visual=none': write it as"),
    ],
)
def test_what_means_nothing_is_one_line_that_says_what_would(kind, text, said):
    with pytest.raises(ViperError) as error:
        kind.parse(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
