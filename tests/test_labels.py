"""Label sets keep the corpus's spelling and give ours."""

from viper_e2e.labels import HUME_REACTION, LabelSet, name_of


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
