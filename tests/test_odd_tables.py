"""test_odd_tables.py: tables as people have them: each is read right, or refused with what settles it."""

from __future__ import annotations

import io
import shlex
import sys
from pathlib import Path

import pytest
from rich.console import Console
from support.optional import package

from viper_e2e.commands.cli import main
from viper_e2e.errors import ViperError
from viper_e2e.packing import PackOptions, pack
from viper_e2e.shards import ShardSet
from viper_e2e.tables import ColumnChoices, read_labels

MP4 = b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(1000)
VALENCES = (-0.5, 0.25, 0.75, -1.0, 0.0, 0.5)
AROUSALS = (0.1, -0.2, 0.3, 0.9, -0.4, 1.0)


def table(head: str, row: str, num_rows: int = 6) -> str:
    """``row`` is a template of ``{id}``, ``{v}``, ``{a}``, and ``{n}`` for the row's number."""
    lines = [row.format(id=f"c{n}", v=VALENCES[n], a=AROUSALS[n], n=n) for n in range(num_rows)]
    return "\n".join([head, *lines]) + "\n"


PLAIN = table("File_ID,Split,Valence,Arousal", "{id},train,{v},{a}")
GERMAN = PLAIN.replace(",", ";").replace(".", ",")


def with_column(title: str, *cells: object) -> str:
    """PLAIN with one more column."""
    head, *rows = PLAIN.splitlines()
    cells = [cells[n % len(cells)] for n in range(len(rows))]
    return "\n".join([f"{head},{title}", *(f"{row},{cell}" for row, cell in zip(rows, cells, strict=True))])


# --- what is read right -----------------------------------------------------------------------------

RIGHT = {
    "plain": PLAIN,
    "utf-8 with a mark": PLAIN.encode("utf-8-sig"),
    "utf-16 with a mark": PLAIN.encode("utf-16"),
    "utf-16 big-endian without a mark": PLAIN.encode("utf-16-be"),
    "utf-16 little-endian without a mark": PLAIN.encode("utf-16-le"),
    "semicolons and decimal commas": GERMAN,
    "tabs": PLAIN.replace(",", "\t"),
    "tabs and decimal commas, utf-16 (Excel's Unicode text)": PLAIN.replace(",", "\t")
    .replace(".", ",")
    .encode("utf-16"),
    "bars": PLAIN.replace(",", "|"),
    "commas around quoted decimal commas": table(
        "File_ID,Split,Valence,Arousal", '{id},train,"{v}","{a}"'
    ).replace(".", ","),
    "a sep= line": "sep=;\n" + GERMAN,
    "a quoted sep= line of commas": '"sep=,"\r\n' + PLAIN.replace("\n", "\r\n"),
    "comments above and between": "# rated by two people, 2024; see notes\n" + PLAIN + "# the end\n",
    "a header that is a comment": "# " + PLAIN,
    "a title above the header": "Study 1;;;\n;;;\n" + GERMAN,
    "lines that end as on old Macs": PLAIN.replace("\n", "\r"),
    "a comma at the end of every line": PLAIN.replace("\n", ",\n"),
    "a comma at the end of every row": "\n".join(
        [PLAIN.splitlines()[0], *(row + "," for row in PLAIN.splitlines()[1:])]
    ),
    "empty rows at the end, as Excel leaves them": PLAIN + ",,,\n,,,\n",
    "row numbers from pandas": table(",File_ID,Split,Valence,Arousal", "{n},{id},train,{v},{a}"),
    "titles in another case": PLAIN.replace("File_ID", "file id").replace("Split", "SPLIT"),
    "file names with endings": PLAIN.replace(",train", ".MP4,train"),
    "square brackets": table("File_ID,Split,Valence,Arousal", "[{id}],train,{v},{a}"),
    "quotes around everything": table('"File_ID","Split","Valence","Arousal"', '"{id}","train","{v}","{a}"'),
    "only a Path": PLAIN.replace("File_ID", "Path").replace(",train", ".mp4,train"),
    "text beside the numbers": with_column("Comment", "calm", '"said ""oh"", then left"', ""),
    "a plus sign and an exponent": PLAIN.replace(",0.25,", ",+2.5e-1,"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_table_is_read_as_its_author_meant_it(tmp_path, name):
    data = RIGHT[name]
    path = tmp_path / "labels.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    found = read_labels(path)
    assert found.problems == ()
    assert found.labels.columns == ("Valence", "Arousal")
    assert [row.key for row in found.rows] == [f"c{n}" for n in range(6)]
    assert [row.intensities for row in found.rows] == list(zip(VALENCES, AROUSALS, strict=True))
    assert {row.split for row in found.rows} == {"train"}


def test_what_was_told_from_a_table_is_said(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(("# by hand\nsep=;\n" + GERMAN).replace("sep=;\n", "").encode("utf-16"))
    notes = " ".join(read_labels(path).notes)
    assert all(word in notes for word in ("UTF-16", "semicolons", "comment", "decimal commas"))
    path.write_text(PLAIN)
    assert read_labels(path).notes == ()


def test_windows_text_keeps_its_umlauts_and_says_so(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(table("File_ID;Split;Überraschung;Ärger", "Müller{id};train;{v};{a}").encode("cp1252"))
    found = read_labels(path)
    assert found.rows[0].key == "Müllerc0"
    assert found.labels.columns == ("Überraschung", "Ärger")
    assert "Windows-1252" in found.notes[0]


@pytest.mark.parametrize(
    ("encoding", "text"), [("gb18030", "你好视频"), ("shift_jis", "日本語の動画"), ("cp1251", "видео")]
)
def test_other_scripts_are_not_taken_for_western_text(tmp_path, encoding, text):
    path = tmp_path / "labels.csv"
    path.write_bytes(PLAIN.replace("c0", text).encode(encoding))
    with pytest.raises(ViperError, match=r"not UTF-8 text .* --encoding gb18030"):
        read_labels(path)
    assert read_labels(path, ColumnChoices(encoding=encoding)).rows[0].key == text


def test_a_workbook_is_read_with_its_zeros(tmp_path):
    openpyxl = package("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["File_ID", "Split", "Valence", "Arousal"])
    for n, (valence, arousal) in enumerate(zip(VALENCES, AROUSALS, strict=True)):
        sheet.append([2520 + n, "Train", valence, arousal])
        sheet.cell(n + 2, 1).number_format = "00000"
    book.create_sheet("empty")
    book.save(tmp_path / "labels.xlsx")
    found = read_labels(tmp_path / "labels.xlsx")
    assert [row.key for row in found.rows] == [f"{2520 + n:05d}" for n in range(6)]
    assert [row.intensities for row in found.rows] == list(zip(VALENCES, AROUSALS, strict=True))
    book.create_sheet("pilot").append(["File_ID", "Split", "Valence"])
    book["pilot"].append(["a", "train", 0.5])
    book.save(tmp_path / "labels.xlsx")
    with pytest.raises(ViperError, match=r"2 sheets could be meant; add --sheet"):
        read_labels(tmp_path / "labels.xlsx")
    assert len(read_labels(tmp_path / "labels.xlsx", ColumnChoices(sheet="pilot")).rows) == 1


def test_a_workbook_without_a_reader_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "labels.xlsx").write_bytes(b"PK\x03\x04" + bytes(50))
    with pytest.raises(ViperError, match=r"labels\.xlsx: an Excel workbook; `pip install openpyxl`"):
        read_labels(tmp_path / "labels.xlsx")


# --- what a person has to settle --------------------------------------------------------------------

ASKED = {
    "another title of the files": (PLAIN.replace("File_ID", "Dateiname"), "--id-column Dateiname"),
    "a file name": (PLAIN.replace("File_ID", "filename"), "--id-column filename"),
    "another title of the splits": (PLAIN.replace("Split", "Partition"), "--split-column Partition"),
    "the subject by another title": (with_column("Proband", "VP1", "VP2"), "--subject-column Proband"),
    "the subject as a number": (with_column("VP", 1, 2, 3), "--subject-column VP"),
    "the subject beside other words": (
        with_column("Participant No.", 1, 2, 3),
        "--subject-column 'Participant No.'",
    ),
    "the subject in a word of every day": (with_column("Who", "Bernd", "Ada"), "--subject-column Who"),
    "an id that comes again": (with_column("ID", 7, 7, 7, 8, 8, 8), "--subject-column ID"),
    "an age": (with_column("Alter", 23, 41, 35), "--ignore Alter"),
    "an age in English": (with_column("Age (years)", 23, 41, 35), "--ignore 'Age (years)'"),
    "an episode": (with_column("Episode", 1, 2), "--ignore Episode"),
    "a trial in camel case": (with_column("trialNo", 1, 2), "--ignore trialNo"),
    "sex as a number": (with_column("sex", 0, 1), "--ignore sex"),
    "a session": (with_column("session_id", 3, 1), "--ignore session_id"),
    "years under a strange title": (with_column("J", 2019, 2021), "--ignore J"),
    "a count under a strange title": (with_column("X1", 0, 1, 2, 3, 4, 5), "--ignore X1"),
    "a pulse": (with_column("Puls", 66, 88, 91), "--ignore Puls"),
    "a condition under a strange title": (with_column("B", 1, 2, 3), "--ignore B"),
    "numbers among text": (with_column("Code", "A1", "B2", 3), "--ignore Code"),
    "SPSS's code for missing": (PLAIN.replace(",0.9", ",-99"), "--missing=-99"),
    "a positive code": (PLAIN.replace(",0.9", ",99"), "--missing 99"),
    "a code in a table of two rows": (
        "File_ID,Split,Joy,Fear\na,train,0.5,0.1\nb,train,-999,-999\n",
        "--missing=-999",
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_what_is_unclear_is_asked_with_the_option_that_settles_it(tmp_path, name):
    text, option = ASKED[name]
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(ViperError) as error:
        read_labels(path)
    assert f"to continue, add {option}" in str(error.value)
    assert "line " in str(error.value)
    word, _, value = option.replace("=", " ").partition(" ")
    (tmp_path / "videos").mkdir()
    for n in range(6):
        (tmp_path / f"videos/c{n}.mp4").write_bytes(MP4 + bytes([n]))
    words = ["--videos", str(tmp_path / "videos"), "--labels", str(path), "--out", str(tmp_path / "out")]
    told = shlex.split(option)
    assert word.startswith("--")
    assert value
    if name != "a code in a table of two rows":
        assert main(["pack", *words, *told]) in (0, 2)
        labels = ShardSet(str(tmp_path / "out/*.tar")).labels
        assert labels.columns == ("Valence", "Arousal")
        assert -1.0 <= labels.minimum < labels.maximum <= 1.0


def test_codes_are_given_as_a_person_writes_them(tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    for n in range(6):
        (tmp_path / f"videos/c{n}.mp4").write_bytes(MP4 + bytes([n]))
    path = tmp_path / "labels.csv"
    path.write_text(PLAIN.replace("0.25,-0.2", "-99,NA").replace("0.75", "na"))
    words = ["--videos", str(tmp_path / "videos"), "--labels", str(path), "--out", str(tmp_path / "out")]
    assert main(["pack", *words, "--missing", "-99,NA"]) == 2
    told = capsys.readouterr().out
    assert "Valence empty, others filled" in told
    assert "rows filled in part and left out: 1" in told
    shards = ShardSet(str(tmp_path / "out/*.tar"))
    assert len(shards) == 5
    assert sum(shards.entry(n).intensities is None for n in range(5)) == 1
    assert shards.labels.minimum == -1.0
    path.write_text(PLAIN.replace("0.9", "-99"))
    assert main(["pack", *words, "--overwrite", "--missing", "none"]) == 0
    assert ShardSet(str(tmp_path / "out/*.tar")).labels.minimum == -99.0


@pytest.mark.parametrize(
    "cell",
    [
        "1_0",
        "\uff11",
        "0x1f",
        "inf",
        "-inf",
        "nan",
        "NA",
        "50 %",
        "1.234,5",
        "1 000",
        "1e999",
        "#N/A",
    ],
)
def test_what_only_looks_like_a_number_is_none(tmp_path, cell):
    path = tmp_path / "labels.csv"
    path.write_text(PLAIN.replace(",0.25,", f',"{cell}",'), encoding="utf-8")
    (problem,) = read_labels(path).problems
    assert f"line 3: Valence is {cell!r}, not a number" in problem
    assert ("--missing" in problem) == (cell.casefold() in ("nan", "na", "#n/a"))


REFUSED = {
    "no splits": (PLAIN.replace(",Split", ",S").replace("train", "x"), r"no column 'Split' .* --split train"),
    "commas and points": (GERMAN.replace("0,25", "0.25"), r"decimal commas .* and points .*line 3"),
    "thousands or decimals": (
        table("File_ID,Split,Joy", '{id},train,"1,{n}50"'),
        r"may be a thousand or a decimal comma",
    ),
    "thousands or decimals, after a German fashion": (
        table("File_ID;Split;Joy", "{id};train;1.{n}50"),
        r"may be a thousand or a decimal point: write 1\d50 or 1\.\d500",
    ),
    "names that begin with #": (
        "File_ID,Split,Joy\n#1,train,0.1\n#2,train,0.2\n",
        r"no rows but 2 rows left out as commented out by # \(line 2: '#1'; if # belongs to its name",
    ),
    "two titles": (PLAIN.replace("Arousal", "Valence"), r"column 'Valence' comes 2 times"),
    "titles alike": (PLAIN.replace("Arousal", "valence "), r"same name but for case and punctuation"),
    "no title": (with_column("", "a", "b"), r"column 5 has no title"),
    "nothing but metadata": (
        table("File_ID,Split,Season,Episode", "{id},train,1,{n}"),
        r"'Season' holds numbers but its title says 'season'",
    ),
    "classes in words": (table("File_ID,Split,Emotion", "{id},train,joy"), r"no emotion columns"),
    "an old workbook": (b"\xd0\xcf\x11\xe0" + bytes(500), r"old kind \(\.xls\); save it as \.xlsx"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), r"save it"),
    "zero bytes": (PLAIN.encode() + b"\0\0\0", r"contains zero bytes"),
    "nothing under the header": ("File_ID,Split,Joy\n# nothing yet\n", r"no rows"),
    "no header": ("c1,train,0.5\nc2,train,0.4\n", r"no column 'File_ID'"),
}


def test_rows_that_are_commented_out_are_told_apart_from_comments(tmp_path):
    text = "# by hand, in May\nFile_ID,Split,Joy\na,train,0.1\n#b,train,0.2\n# the end\n"
    (tmp_path / "labels.csv").write_text(text)
    found = read_labels(tmp_path / "labels.csv")
    assert [row.key for row in found.rows] == ["a"]
    assert "2 comment lines beginning with #" in found.notes[0]
    assert "1 row left out as commented out by # (line 4: '#b'" in found.notes[0]


def test_thousandths_of_numbers_below_one_and_of_seconds_are_no_thousands(tmp_path):
    head, row = "File_ID;Path;Split;Start;End;Joy\n", "{0};film.mp4;train;1.250;2.500;{1}\n"
    (tmp_path / "labels.csv").write_text(head + row.format("a", "0.125") + row.format("b", "1.250"))
    assert [one.intensities for one in read_labels(tmp_path / "labels.csv").rows] == [(0.125,), (1.25,)]


@pytest.mark.parametrize(("written", "value"), [("1250", 1250.0), ("1.2500", 1.25)])
def test_what_a_doubtful_number_is_told_to_be_written_as_is_read(tmp_path, written, value):
    (tmp_path / "labels.csv").write_text(f"File_ID;Split;Joy\na;train;{written}\n")
    assert read_labels(tmp_path / "labels.csv").rows[0].intensities == (value,)


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_cannot_be_read_is_refused_with_the_reason(tmp_path, name):
    data, message = REFUSED[name]
    (tmp_path / "labels.csv").write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(ViperError, match=message):
        read_labels(tmp_path / "labels.csv")


def test_an_excel_table_takes_one_try_not_eight(tmp_path):
    """Everything at once: separators, titles, text, metadata, a code, wrong cells; then one line settles it."""
    text = table("Dateiname;Proband;Alter;Teil;Valence;Arousal;Notiz", "{id}.mp4;VP{n};2{n};Train;{v};{a};ok")
    text = text.replace(".", ",").replace(",mp4", ".mp4").replace(";0,9;", ";-99;").replace(";0,3;", ";abc;")
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode("utf-8-sig"))
    with pytest.raises(ViperError) as error:
        read_labels(path)
    told = str(error.value).splitlines()
    for word in (
        "'Dateiname'",
        "'Teil'",
        "'Proband'",
        "'Alter'",
        "line 5: Arousal is -99",
        "line 4: Arousal is 'abc'",
    ):
        assert any(word in line for line in told), (word, told)
    assert told[-1].startswith("to continue, add ")
    choices = ColumnChoices(
        id_column="Dateiname",
        split_column="Teil",
        subject_column="Proband",
        ignore=("Alter",),
        missing=("-99",),
    )
    found = read_labels(path, choices)
    assert [column.taken_for.split(",")[0] for column in found.columns] == [
        "file", "subject", "not used (--ignore)", "split", "label", "label", "text",
    ]  # fmt: skip
    assert [(row.key, row.subject) for row in found.rows] == [(f"c{n}", f"VP{n}") for n in (0, 1, 4, 5)]
    assert len(found.problems) == 2


def test_words_that_come_again_are_offered_as_a_class(tmp_path):
    path = tmp_path / "labels.csv"
    for cells, told in (
        (
            ("joy", "Joy", "calm"),
            "text, not used (line 2: 'joy'; learned by --tasks 'Main mood=class'; if it names people: "
            "--subject-column 'Main mood')",
        ),
        ("abcdef", "text, not used (line 2: 'a')"),
    ):
        path.write_text(with_column("Main mood", *cells))
        assert read_labels(path).columns[-1].taken_for == told


def test_hundreds_of_faults_are_counted_not_printed(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(
        "Dateiname,Split,Joy\n" + "".join(f"c{n},train,x{n}.{n}\n" for n in range(200)) + "z,train,1\n" * 400
    )
    with pytest.raises(ViperError) as error:
        read_labels(path)
    lines = str(error.value).splitlines()
    assert len(lines) < 30
    assert "and 1" in lines[-2]


def test_labels_that_are_named_are_taken_and_nothing_else(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(with_column("Alter", 23, 41))
    found = read_labels(path, ColumnChoices(labels=("alter", "Valence")))
    assert found.labels.columns == ("Alter", "Valence")
    assert found.columns[3].taken_for == "not used (not in --labels)"
    with pytest.raises(ViperError, match=r"--labels: no column 'Valenz'; did you mean Valence\?"):
        read_labels(path, ColumnChoices(labels=("Valenz",)))
    with pytest.raises(ViperError, match=r"--ignore: no column 'Altar'; did you mean Alter\?"):
        read_labels(path, ColumnChoices(ignore=("Altar",)))


def test_a_slip_of_the_keyboard_is_told(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(
        "File_ID,Split,Joy\n" + "".join(f"c{n},train,{1 + n % 7}\n" for n in range(20)) + "z,train,55\n"
    )
    assert any("line 22: Joy is 55, far outside" in note for note in read_labels(path).notes)


# --- names and files --------------------------------------------------------------------------------


def packed(folder: Path, text: str, *files: str) -> tuple[dict[str, Path], list[str]]:
    """Key → the file whose bytes were packed; and the problems."""
    written = {}
    for n, name in enumerate(files):
        path = folder / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        written[MP4 + bytes([n])] = name
        path.write_bytes(MP4 + bytes([n]))
    (folder / "labels.csv").write_text(text, encoding="utf-8")
    try:
        report = pack(folder / "videos", folder / "labels.csv", folder / "out")
    except ViperError as error:
        return {}, [str(error)]
    shards = ShardSet(str(folder / "out/*.tar"))
    samples = [shards.read(n) for n in range(len(shards))]
    return {sample.key: written[bytes(sample.video)] for sample in samples}, list(report.problems)


def rows(*ids: str, head: str = "File_ID,Split,Joy") -> str:
    return "\n".join([head, *(f"{id},train,0.{n + 1}" for n, id in enumerate(ids))]) + "\n"


def test_folders_in_names_tell_equal_stems_apart(tmp_path):
    files = ("train/dia0_utt0.mp4", "dev/dia0_utt0.mp4", "VP01/clip.mp4")
    found, problems = packed(tmp_path, rows("train/dia0_utt0.mp4", "dev\\dia0_utt0", "VP01/clip.mp4"), *files)
    assert problems == []
    assert found == dict(zip(("train__dia0_utt0", "dev__dia0_utt0", "VP01__clip"), files, strict=True))


def test_equal_stems_without_a_folder_are_refused_not_guessed(tmp_path):
    _, problems = packed(tmp_path, rows("a", "b"), "train/a.mp4", "dev/a.mp4", "b.mp4")
    assert len(problems) == 1
    assert "more than one file" in problems[0]
    assert "name its folder" in problems[0]


def test_a_path_column_locates_and_the_id_names(tmp_path):
    text = rows("u1,train/a.mp4", "u2,dev/a.mp4", head="File_ID,Path,Split,Joy")
    found, problems = packed(tmp_path, text, "train/a.mp4", "dev/a.mp4")
    assert (found, problems) == ({"u1": "train/a.mp4", "u2": "dev/a.mp4"}, [])


def test_a_path_from_the_tables_folder_is_understood(tmp_path):
    found, problems = packed(tmp_path, rows("videos/a.mp4", str(tmp_path / "videos/b.mp4")), "a.mp4", "b.mp4")
    assert problems == []
    assert set(found.values()) == {"a.mp4", "b.mp4"}


def test_a_folder_that_is_not_there_never_means_another(tmp_path):
    found, problems = packed(tmp_path, rows("train/a", "b"), "dev/a.mp4", "b.mp4")
    assert found == {"b": "b.mp4"}
    assert "is elsewhere" in problems[0]


def test_two_rows_of_one_file_pack_neither(tmp_path):
    text = rows("u1,a.mp4", "u2,a.mp4", "u3,b.mp4", head="File_ID,Path,Split,Joy")
    found, problems = packed(tmp_path, text, "a.mp4", "b.mp4")
    assert found == {"u3": "b.mp4"}
    assert "lines 2, 3: all name" in problems[0]


def test_lost_zeros_are_suspected_and_never_filled_in(tmp_path):
    found, problems = packed(tmp_path, rows("2522", "x"), "02522.mp4", "x.mp4")
    assert found == {"x": "x.mp4"}
    assert "02522.mp4: has the table lost its zeros?" in problems[0]


def test_another_case_is_suspected_and_not_taken(tmp_path):
    found, problems = packed(tmp_path, rows("vp01", "x"), "VP01.mp4", "x.mp4")
    assert found == {"x": "x.mp4"}
    assert "there is VP01.mp4" in problems[0]


def test_dots_in_names_are_kept_apart(tmp_path):
    files = ("P03_2024.05.01.mp4", "P03_2024.05.02.mp4", "v1.2.mov")
    found, problems = packed(tmp_path, rows("P03_2024.05.01", "P03_2024.05.02.mp4", "v1.2"), *files)
    assert problems == []
    assert sorted(found.values()) == sorted(files)
    found, problems = packed(tmp_path / "b", rows("a.b", "a_b"), "a.b.mp4", "a_b.mp4")
    assert found == {}
    assert "become the same name" in problems[0]


def test_names_typed_composed_find_files_named_apart(tmp_path):
    found, problems = packed(tmp_path, rows("Zoe\u0308", "Bjo\u00f6rk"), "Zo\u00eb.mp4", "Bjoo\u0308rk.mp4")
    assert problems == []
    assert len(found) == 2


def test_an_ending_chooses_between_two_files(tmp_path):
    found, problems = packed(tmp_path, rows("a.mov", "b.avi"), "a.mp4", "a.mov", "b.mp4")
    assert problems == []
    assert found == {"a": "a.mov", "b": "b.mp4"}


def test_pack_prints_what_each_column_was_taken_for(tmp_path):
    (tmp_path / "videos").mkdir()
    for n in range(6):
        (tmp_path / f"videos/c{n}.mp4").write_bytes(MP4)
    (tmp_path / "labels.csv").write_text(with_column("Alter", 23, 41))
    report = pack(
        tmp_path / "videos",
        tmp_path / "labels.csv",
        tmp_path / "out",
        PackOptions(choices=ColumnChoices(ignore=("Alter",))),
    )
    console = Console(width=100, file=io.StringIO())
    console.print(report)
    lines = {line.split()[0]: line.split() for line in console.file.getvalue().splitlines() if line.strip()}
    assert "file" in lines["File_ID"]
    assert {"label", "-1", "0.75"} <= set(lines["Valence"])
    assert "(--ignore)" in lines["Alter"]


@pytest.mark.parametrize(("separator", "name"), [(" ", "spaces"), ("   ", "spaces"), (":", "colons")])
def test_a_table_separated_by_what_names_may_hold_is_refused_in_one_line(tmp_path, separator, name):
    rows = [["File_ID", "Split", "Joy"], ["1", "train", "0,5"], ["2", "val", "0.25"]]
    (tmp_path / "labels.csv").write_text("\n".join(map(separator.join, rows)))
    with pytest.raises(ViperError, match=f"separated by {name}.*save it as CSV UTF-8") as caught:
        read_labels(tmp_path / "labels.csv")
    assert "\n" not in str(caught.value)


def test_the_line_that_continues_settles_all_that_was_asked(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(
        "Dateiname;Versuchsperson;Alter;Freude;Angst\n0.mp4;a;33;1;2\n1.mp4;b;30;k.A.;3\n2.mp4;c;31;3;4\n"
    )
    with pytest.raises(ViperError) as error:
        read_labels(path)
    told = str(error.value).splitlines()[-1].removeprefix("to continue, add ").partition(" (or ")[0]
    assert shlex.split(told) == [
        *("--id-column", "Dateiname", "--split", "train", "--subject-column", "Versuchsperson"),
        *("--ignore", "Alter", "--missing", "k.A."),
    ]
    choices = ColumnChoices(
        id_column="Dateiname",
        split="train",
        subject_column="Versuchsperson",
        ignore=("Alter",),
        missing=("k.A.",),
    )
    table = read_labels(path, choices)
    assert [row.key for row in table.rows] == ["0", "2"]
