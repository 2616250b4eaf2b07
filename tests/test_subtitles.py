"""Subtitles and texts beside clips are packed as their words, whoever wrote them; what is broken is named."""

from __future__ import annotations

import json
import tarfile
import time

import pytest
from support.media import make_clip

from viper_e2e.clip import Cue, Segment
from viper_e2e.errors import ClipError
from viper_e2e.loading import beside_clip, cues_of_file
from viper_e2e.packing import PackOptions, pack
from viper_e2e.packing.report import Findings
from viper_e2e.packing.subtitles import PackedWords
from viper_e2e.shards import ShardError, ShardSet
from viper_e2e.shards.subtitles import MAX_CUES, MAX_WORDS_BYTES, read_subtitles, words_member
from viper_e2e.tables import write_labels

SRT = """1
00:00:00,500 --> 00:00:01,500 X1:10 Y1:20
<i>Oh</i> {\\an8}no,
<font color="red">look!</font>

2
00:00:02,000 --> 00:00:03,250
R&amp;D &lt;here&gt;
"""


# --- what is read -----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_subrip_is_read_whatever_its_line_ends_and_its_mark(end, mark):
    cues, faults, _ = read_subtitles("a.SRT", mark + SRT.replace("\n", end).encode())
    assert cues == (Cue("Oh no, look!", 0.5, 1.5), Cue("R&D <here>", 2.0, 3.25))
    assert faults == ()


def test_webvtt_is_read_without_what_is_no_cue_and_word_by_word_where_it_says_so():
    text = """WEBVTT - a title

STYLE
::cue { color: red }

NOTE not
said

01:00.000 --> 01:02.000 align:start
<v Bob>What<00:01:00.500><c> a</c><00:01:01.000> surprise

2
100:00:00.000 --> 100:00:01.000
何てこと
"""
    cues, faults, _ = read_subtitles("a.vtt", text.encode())
    assert [cue.text for cue in cues] == ["What", "a", "surprise", "何てこと"]
    assert [(cue.start_seconds, cue.end_seconds) for cue in cues[:3]] == [(60, 60.5), (60.5, 61), (61, 62)]
    assert cues[3].start_seconds == 360_000
    assert faults == ()


YOUTUBE = """WEBVTT
Kind: captions
Language: en

00:00:00.160 --> 00:00:02.070 align:start position:0%
\x20
hello<00:00:00.480><c> my</c><00:00:00.719><c> friends</c>

00:00:02.070 --> 00:00:02.080 align:start position:0%
hello my friends
\x20

00:00:02.080 --> 00:00:04.070 align:start position:0%
hello my friends
how<00:00:02.320><c> are</c><00:00:02.480><c> you</c>

00:00:04.070 --> 00:00:04.080 align:start position:0%
how are you
\x20
"""


def test_captions_that_roll_up_are_said_once():
    cues, faults, _ = read_subtitles("clip.en.vtt", YOUTUBE.encode())
    assert faults == ()
    assert " ".join(cue.text for cue in cues) == "hello my friends how are you"
    assert [cue.start_seconds for cue in cues] == [0.16, 0.48, 0.719, 2.08, 2.32, 2.48]
    assert cues[2].end_seconds == 2.07
    teletext = "".join(
        f"{n}\n00:00:0{n},000 --> 00:00:0{n + 1},000\n{text}\n\n"
        for n, text in enumerate(["We go", "We go\nhome", "home\nnow"], 1)
    )
    assert [cue.text for cue in read_subtitles("clip.srt", teletext.encode()).cues] == ["We go", "home", "now"]


def test_what_is_said_again_is_kept():
    again = (
        "1\n00:00:01,000 --> 00:00:02,000\nNo\n\n2\n00:00:02,000 --> 00:00:03,000\nNo\n\n"
        "3\n00:00:05,000 --> 00:00:06,000\nNo\nnever\n"
    )
    assert [cue.text for cue in read_subtitles("clip.srt", again.encode()).cues] == ["No", "No", "No never"]


def test_a_text_is_one_cue_without_times():
    assert read_subtitles("a.txt", b"\n oh\tno \n\nlook\n").cues == (Cue("oh no look"),)
    assert read_subtitles("a.txt", b" \n\n").cues == ()


def test_broken_cues_are_named_and_the_others_kept():
    blocks = [
        "00:00:02,000 --> 00:00:03,000\nsound",
        "00:00:02,000 --> 00:00:01,000\nends early",
        "00:00:02,000 --> 00:00:02,000\nno time",
        "00:99:02,000 --> 00:99:03,000\nodd minutes",
        "no times at all",
        f"00:00:04,000 --> 00:00:05,000\n{'x' * 6000}",
        "00:00:06,000 --> 00:00:07,000\nglued\n00:00:08,000 --> 00:00:09,000\nto this",
    ]
    cues, faults, _ = read_subtitles("a.srt", "\n\n".join(blocks).encode())
    assert [cue.text for cue in cues] == ["sound", "glued", "to this"]
    assert [fault.split(":")[0] for fault in faults] == ["line 4", "line 7", "line 10", "line 13", "line 15"]
    assert "ends before it begins" in faults[0]
    assert "6,000 letters" in faults[4]


def test_markup_alone_and_what_cannot_be_seen_say_nothing():
    text = "00:00:00,000 --> 00:00:01,000\n<b></b>\x00\u202e\n\n00:00:01,000 --> 00:00:02,000\na\u202eb\x07\n"
    assert [cue.text for cue in read_subtitles("a.srt", text.encode()).cues] == ["ab"]


def of_stream(clocks: str) -> bytes:
    """Words as they are cut beside the segments of a live stream."""
    return f"WEBVTT\nX-TIMESTAMP-MAP={clocks}\n\n00:01.000 --> 00:02.000\nso\n".encode()


def test_a_streams_clock_that_is_the_clips_own_shifts_nothing():
    (cue,) = read_subtitles("a.vtt", of_stream("LOCAL:00:00:10.000,MPEGTS:900000")).cues
    assert (cue.text, cue.start_seconds) == ("so", 1.0)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.srt", "é".encode("latin-1"), "line 1: is not UTF-8"),
        ("a.txt", b"a\nb\n\xff", "line 3: is not UTF-8"),
        ("a.srt", SRT.encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("a.vtt", SRT.encode(), "does not begin with WEBVTT"),
        ("a.srt", b"no cue\n\nnone", r"no cue can be read \(line 1: no times\)"),
        ("a.txt", b"x" * (MAX_WORDS_BYTES + 1), "at most 2,097,152 are read"),
        (
            "a.vtt",
            of_stream("MPEGTS:900000,LOCAL:00:00:00.000"),
            r"a stream's clock \(X-TIMESTAMP-MAP, \+10.00 s\)",
        ),
        ("a.vtt", of_stream("LOCAL:00:00:05.000,MPEGTS:0"), r"\(X-TIMESTAMP-MAP, -5.00 s\)"),
        ("a.vtt", of_stream("MPEGTS:much"), "'X-TIMESTAMP-MAP=MPEGTS:much' cannot be read"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(name, data, reason):
    with pytest.raises(ValueError, match=reason):
        read_subtitles(name, data)


@pytest.mark.parametrize(
    "text",
    [
        "<" * MAX_WORDS_BYTES,
        "00:00:00,000 --> 00:00:01,000\n" + "<a" * 2_000,
        "-->" * (MAX_WORDS_BYTES // 3),
        "00:" * (MAX_WORDS_BYTES // 3),
        "00:00:00,000 --> 00:00:01,000\n" + "<00:00:00.500>" * 300,
        "WEBVTT\n\n" + "&" * 5_000,
        pytest.param("0:00:00,0 --> 0:00:01,0\na\n\n" * (MAX_WORDS_BYTES // 28), marks=pytest.mark.slow),
    ],
    ids=["tags", "open tags", "arrows", "digits", "moments", "entities", "cues"],
)
def test_hostile_files_cost_a_moment(text):
    begun = time.process_time()
    try:
        cues, _ = read_subtitles("a.srt", text.encode())
    except ValueError:
        cues = ()
    assert len(cues) <= MAX_CUES
    assert time.process_time() - begun < 4


def test_a_member_says_what_it_was_made_from_and_comes_back():
    cues = (Cue("R&D <b> --> x", 0.5, 1.5), Cue("何てこと", 3600.0, 3601.25))
    extension, data = words_member(cues, "by a model --> not\nto be believed")
    assert extension == "words.vtt"
    assert b"NOTE by a model -> not to be believed\n" in data
    assert read_subtitles(extension, data).cues == cues
    extension, data = words_member([Cue("oh no")])
    assert (extension, data) == ("words.txt", b"oh no\n")
    assert read_subtitles(extension, data).cues == (Cue("oh no"),)


# --- beside clips -----------------------------------------------------------------------------------


def test_timed_words_come_before_a_text_and_other_names_are_not_taken(tmp_path):
    video = tmp_path / "a.b.mp4"
    assert beside_clip(video) is None
    (tmp_path / "a.txt").write_text("of another clip")
    assert beside_clip(video) is None
    for name in ("a.b.txt", "a.b.SRT", "a.b.vtt"):
        (tmp_path / name).write_text("")
        assert beside_clip(video) == tmp_path / name


def test_a_file_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "a.srt").write_bytes(b"\xff\xff")
    with pytest.raises(ClipError, match=r"a\.srt: line 1: is not UTF-8; save it as UTF-8"):
        cues_of_file(tmp_path / "a.srt")


def test_of_a_part_of_a_file_what_is_said_in_it_is_packed_on_its_own_clock(tmp_path):
    (tmp_path / "a.srt").write_text(SRT)
    words = PackedWords(Findings())
    made = words.members(tmp_path / "a.mp4", "of the table", Segment(1.0, 2.5))
    assert read_subtitles("words.vtt", made["words.vtt"]).cues == (
        Cue("Oh no, look!", 0.0, 0.5),
        Cue("R&D <here>", 1.0, 2.25),
    )
    assert words.members(tmp_path / "a.mp4", None, Segment(4.0, 5.0)) == {}
    assert words.findings.notes == (
        "1 clip with subtitles, but none during the clip",
        "1 clip with words from a .srt beside them",
        "1 clip with words from several places: subtitles used, the table's words not",
    )
    (tmp_path / "b.txt").write_text("of all of it")
    assert words.members(tmp_path / "b.mp4", None, Segment(4.0, 5.0)) == {}
    assert words.members(tmp_path / "b.mp4", None, None) == {"words.txt": b"of all of it\n"}
    assert any("has no times: packed without words" in line for line in words.findings.notes)


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "videos").mkdir()
    rows = []
    for name in ("srt", "txt", "table", "none", "broken", "latin"):
        make_clip(tmp_path / f"videos/{name}.mp4", num_frames=8)
        rows.append(
            {"File_ID": name, "Split": "train", "Joy": 0.5, "Text": "oh, table" if name == "table" else ""}
        )
    (tmp_path / "videos/srt.srt").write_text(SRT)
    (tmp_path / "videos/txt.txt").write_text("oh, text")
    (tmp_path / "videos/broken.vtt").write_text("WEBVTT\n\nwhat\n\n00:00.000 --> 00:01.000\noh, cue\n")
    (tmp_path / "videos/latin.srt").write_bytes(SRT.replace("no", "nö").encode("latin-1"))
    write_labels(tmp_path / "labels.csv", rows)
    return tmp_path


def packed(folder, **options):
    report = pack(
        folder / "videos", folder / "labels.csv", folder / "shards", PackOptions(overwrite=True, **options)
    )
    shards = ShardSet(f"{folder}/shards/train-*.tar")
    return report, {shards.entry(i).key: shards.read(i).words for i in range(len(shards))}, shards


def test_what_lies_beside_clips_is_packed_told_and_read(corpus):
    report, words, shards = packed(corpus)
    assert {key: " ".join(cue.text for cue in cues) for key, cues in words.items()} == {
        "srt": "Oh no, look! R&D <here>",
        "txt": "oh, text",
        "table": "oh, table",
        "none": "",
        "broken": "oh, cue",
    }
    assert words["srt"][0].start_seconds == 0.5
    assert [line for line in report.problems if "latin" in line] == [
        f"latin: {corpus}/videos/latin.srt: line 3: is not UTF-8; save it as UTF-8"
    ]
    told = "\n".join(report.notes)
    for line in (
        "1 clip whose words are those of the table",
        "1 clip with words from a .srt beside them",
        "1 clip with words from a .txt beside them",
        "broken.vtt: 1 cue left out (line 3: no times)",
    ):
        assert line in told
    with tarfile.open(shards.shards[0].path_or_url) as tar:
        assert b"Oh no, look!" in tar.extractfile("srt.words.vtt").read()
    index = json.loads((corpus / "shards/train-000000.index.json").read_text())
    assert index["schema"] == "viper_e2e.shard/4"


def test_subtitles_are_left_out_where_a_person_says_so(corpus):
    _, words, _ = packed(corpus, subtitles=False)
    assert {key for key, cues in words.items() if cues} == {"table"}
    assert "latin" in words


def test_without_words_a_shard_is_what_it_was(corpus):
    for path in (corpus / "videos").glob("*.[vst][tr]t"):
        path.unlink()
    (corpus / "videos/txt.txt").unlink(missing_ok=True)
    rows = [{"File_ID": "none", "Split": "train", "Joy": 0.5}]
    write_labels(corpus / "labels.csv", rows)
    packed(corpus)
    index = json.loads((corpus / "shards/train-000000.index.json").read_text())
    assert index["schema"] == "viper_e2e.shard/1"


def test_other_words_make_another_clip(corpus):
    ids = []
    for text in ("oh, text", "ah, text"):
        (corpus / "videos/txt.txt").write_text(text)
        _, _, shards = packed(corpus)
        at = [shards.entry(i).key for i in range(len(shards))].index("txt")
        ids.append((shards.clip_id(at), shards.content_id()))
    assert ids[0][0] != ids[1][0]
    assert ids[0][1] != ids[1][1]


@pytest.mark.parametrize(
    "text", [b"WEBVTT\n\nbroken", b"\xff", b"WEBVTT\n\n00:00.0 --> 00:01.0\na\n\nno times\n"]
)
def test_a_broken_member_of_a_foreign_shard_costs_its_clip_and_says_why(tmp_path, text):
    video = make_clip(tmp_path / "a.mp4", num_frames=8)
    with tarfile.open(tmp_path / "train-000000.tar", "w") as tar:
        tar.add(video, "a.mp4")
        (tmp_path / "w").write_bytes(text)
        tar.add(tmp_path / "w", "a.words.vtt")
    shards = ShardSet(str(tmp_path / "train-000000.tar"))
    with pytest.raises(ClipError, match=r"a: \.words\.vtt: .*line \d"):
        shards.read(0)


def test_too_large_a_member_is_refused_before_it_is_read(tmp_path, monkeypatch):
    video = make_clip(tmp_path / "a.mp4", num_frames=8)
    with tarfile.open(tmp_path / "train-000000.tar", "w") as tar:
        tar.add(video, "a.mp4")
        (tmp_path / "w").write_bytes(b"x" * (MAX_WORDS_BYTES + 1))
        tar.add(tmp_path / "w", "a.words.txt")
    with pytest.raises((ClipError, ShardError), match="at most"):
        ShardSet(str(tmp_path / "train-000000.tar")).read(0)


def test_rows_that_cut_a_file_have_what_is_said_in_their_part(tmp_path):
    (tmp_path / "videos").mkdir()
    make_clip(tmp_path / "videos/film.mp4", num_frames=60, sound=None)
    (tmp_path / "videos/film.srt").write_text(SRT)
    rows = [
        {"File_ID": name, "Path": "film.mp4", "Start": start, "End": end, "Split": "train", "Joy": 0.5}
        for name, start, end in (("first", 0, 1), ("second", 1, 3), ("last", 3.5, 4))
    ]
    write_labels(tmp_path / "labels.csv", rows)
    _, words, _ = packed(tmp_path)
    assert words["first"] == (Cue("Oh no, look!", 0.5, 1.5),)
    assert words["second"] == (Cue("Oh no, look!", 0.0, 0.5), Cue("R&D <here>", 1.0, 2.25))
    assert words["last"] == ()
