"""Label sets keep the corpus's spelling and give ours."""

import pytest

from viper_e2e.labels import HUME_REACTION, LabelSet, collision, name_of, order_of
from viper_e2e.shards import ShardSet, ShardWriter
from viper_e2e.tasks import Task


def test_hume_reaction_has_the_seven_in_the_challenges_order():
    assert HUME_REACTION.names == (
        "adoration",
        "amusement",
        "anxiety",
        "disgust",
        "empathic_pain",
        "fear",
        "surprise",
    )
    assert HUME_REACTION.columns[4] == "Empathic-Pain"


def test_names_are_lower_case_words_joined_by_underscores():
    assert name_of(" Empathic Pain ") == "empathic_pain"
    assert name_of("Joy/Delight") == "joy_delight"


def test_the_range_decides_whether_a_sigmoid_can_reach_all_labels():
    assert LabelSet(("a",), 0.0, 1.0).in_unit_interval
    assert not LabelSet(("a",), -1.0, 1.0).in_unit_interval
    assert not LabelSet(("a",), 0.0, 100.0).in_unit_interval


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Überraschung", "überraschung"),
        ("U\u0308berraschung", "überraschung"),  # the same, as macOS writes it
        ("Spaß", "spass"),
        ("喜び", "喜び"),
        ("क्रोध (तीव्र)", "क्रोध_तीव्र"),
        ("РАДОСТЬ", "радость"),
        ("😀", "u1f600"),
        ("+", "u2b"),
        ("AU_12", "au_12"),
    ],
)
def test_letters_of_every_script_stay(title, name):
    assert name_of(title) == name
    assert name_of(name) == name, "our spelling is our spelling"


def test_titles_that_cannot_be_told_apart_are_named():
    assert LabelSet(("喜び", "怒り")).names == ("喜び", "怒り")
    for columns in (("Joy", "Fear", "joy!"), ("É", "E\u0301")):
        with pytest.raises(ValueError, match="have the same name"):
            LabelSet(columns)
    assert "'Joy' and 'joy!'" in collision(("Joy", "Fear", "joy!"))


def test_order_is_told_by_name():
    assert order_of(("a", "b", "c"), ("c", "a", "b")) == (2, 0, 1)
    assert order_of(("a", "b"), ("a", "b", "c")) is None
    assert order_of(("a", "b"), ("a", "a")) is None


@pytest.mark.parametrize(
    ("own", "known", "is_told"),
    [
        ((1.0, 9.0), (-1.0, 1.0), True),
        ((-1.0, 1.0), (1.0, 9.0), True),
        ((0.0, 1.0), (0.0, 100.0), True),
        ((-3.0, 3.0), (-1.0, 1.0), True),
        ((0.0, 1.0), (1.0, 5.0), True),
        ((-0.8, 0.7), (-1.0, 1.0), False),
        ((0.1, 0.2), (-1.0, 1.0), False),  # a few clips
        ((1.0, 5.0), (1.0, 7.0), False),
        ((0.5, 0.5), (0.0, 1.0), False),
    ],
)
def test_labels_on_another_scale_are_told(tmp_path, caplog, own, known, is_told):
    def labels(span):
        return LabelSet(("valence",), *span, tasks=(Task("valence", "number", 1, *span),))

    with ShardWriter(tmp_path, "val", labels(own), shard_size=10**9) as writer:
        writer.add("a", {"mp4": b"x"}, file_id="a", intensities=(own[0],))
    ShardSet(str(tmp_path / "*.tar")).labelled_as(labels(known), "the model")
    assert [record.levelname for record in caplog.records] == ["WARNING"] * is_told
    span = f"valence is {own[0]:g} to {own[1]:g}, in the model {known[0]:g} to {known[1]:g}"
    assert (span in caplog.text) == is_told
