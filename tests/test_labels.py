"""Label sets keep the corpus's spelling and give ours."""

import json

import pytest

from viper_e2e.labels import HUME_REACTION, LabelSet, collision, name_of, order_of
from viper_e2e.shards import ShardSet, ShardWriter
from viper_e2e.shards.index import labels_to_json
from viper_e2e.tasks import CombinedMeasure, Task


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


# --- as files have them -----------------------------------------------------------------------------

PLAIN = LabelSet(("Joy", "Fear"), -1.0, 1.0)
WHOLE = LabelSet(
    ("mood happy", "mood sad", "valence"),
    means=(0.1, 0.2, 0.3),
    centres=(0.0, 0.0, 0.5),
    widths=(1.0, 1.0, 0.0),
    tasks=(Task("mood", "class", 2), Task("valence", "number", 1, -1.0, 1.0, measures=("acc7",))),
    combined=(CombinedMeasure("total", (("mood.uar", 1.0), ("valence.mse", -0.25))),),
)


@pytest.mark.parametrize("labels", [PLAIN, WHOLE, HUME_REACTION])
def test_labels_come_back_from_json_as_they_were(labels):
    written = json.loads(json.dumps(labels.to_json() | labels.statistics_to_json()))
    assert LabelSet.from_json(written) == labels
    # Shards and metrics.json hold what the corpus says.
    for corpus in (labels.to_json(), labels_to_json(labels)):
        assert LabelSet.from_json(json.loads(json.dumps(corpus))).to_json() == labels.to_json()


def test_files_that_lack_what_is_empty_or_not_yet_known_are_read():
    said = {"columns": ["Joy", "Fear"], "minimum": -1, "maximum": 1}
    assert labels_to_json(PLAIN) == said
    assert LabelSet.from_json(said) == PLAIN
    assert PLAIN.to_json() == said | {"tasks": [], "combined": {}}
    assert PLAIN.statistics_to_json() == {"means": None, "centres": None, "widths": None}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"columns": "Joy"}, "columns of labels must be a list of names"),
        ({"columns": ["Joy", 3]}, "columns of labels must be a list of names"),
        ({"columns": ["Joy", "joy"]}, "same name"),
        ({"minimum": None}, "the minimum of labels is None"),
        ({"maximum": float("nan")}, "the maximum of labels is nan"),
        ({"maximum": 10**400}, "not a finite number"),
        ({"maximum": True}, "the maximum of labels is True"),
        ({"means": [0.5]}, "means of labels must be one number for each column"),
        ({"widths": [0.5, "1"]}, "one of the widths of labels is '1'"),
        ({"tasks": {}}, "tasks must be a list"),
        ({"tasks": [{"name": "a", "kind": "class", "size": 2}]}, "task 'a': its minimum is None"),
        ({"combined": []}, "combined measures must be an object"),
        ({"combined": {"a": {"b.mse": 10**400}}}, "give a weight for each"),
    ],
)
def test_labels_that_nobody_would_write_are_refused_in_words(change, told):
    with pytest.raises(ValueError, match=told):
        LabelSet.from_json(PLAIN.to_json() | change)


@pytest.mark.parametrize("found", [None, [], "labels", 3])
def test_labels_that_are_no_object_are_refused(found):
    with pytest.raises(ValueError, match="labels must be an object"):
        LabelSet.from_json(found)
