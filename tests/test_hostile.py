"""Every kind of hostile file in one place, counted: refused in one line, nothing opened, run or allocated."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import re
import socket
import struct
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from support.bombs import one_large_frame
from support.containers import box, boxes, put
from support.media import make_clip
from support.pages import page as page_of
from support.pages import predictions as predictions_of
from support.peak_memory import forget_peak, peak_mib
from support.predictions import NASTY, cells
from support.tars import record, three_samples, write_foreign

from viper_e2e.commands.parsing import parse_train
from viper_e2e.config import BackboneConfig, DecodingConfig, with_settings
from viper_e2e.config.presets import micro
from viper_e2e.decoding import ClipDecoder
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.model import checkpoint
from viper_e2e.model.viper import ViPER
from viper_e2e.scoring.tabular import write_records
from viper_e2e.shards import ShardLimits, ShardSet

pytestmark = pytest.mark.survival

MAX_GROWTH_MIB = 60
"""Resident memory that refusing a file may take at its peak: the code that does so, and nothing of the file."""


@dataclass
class World:
    """Where a hostile file lives, and what it is after."""

    folder: Path
    canary: Path
    """Made by whatever a file manages to run."""
    secret: Path
    """Holds ``TOP SECRET``, which nothing may read out."""
    address: str
    """Of a listener on the loopback."""

    def file(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path


Attempt = Callable[[], object]
CASES: dict[str, tuple[Callable[[World], Attempt], str | None]] = {}
"""Name → (makes the file and returns what opens it; how it is refused, or ``None``: the attempt checks it)."""


def hostile(name: str, said: str | None = None):
    def add(build: Callable[[World], Attempt]) -> Callable[[World], Attempt]:
        assert name not in CASES
        CASES[name] = (build, said)
        return build

    return add


class Runs:
    """Unpickled, it calls."""

    def __init__(self, function: Callable, *arguments: object):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def bomb(world: World) -> bytes:
    return pickle.dumps(Runs(os.system, f"touch {world.canary}"))


def decode(source: bytes | Path, *, sound: bytes | None = None) -> Attempt:
    return lambda: ClipDecoder(DecodingConfig(num_frames=4))(source, sound=sound, name="clip.mp4")


# --- playlists and polyglots given as clips -------------------------------------------------------

PLAYLISTS = {
    "HLS": ("#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\n{url}\n#EXTINF:1,\n{secret}\n", "HLS playlist"),
    "HLS after a byte order mark": ("\ufeff#EXTM3U\n#EXTINF:1,\n{secret}\n", "HLS playlist"),
    "DASH": (
        "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'><BaseURL>{url}</BaseURL></MPD>",
        "DASH playlist",
    ),
    "ffconcat": ("ffconcat version 1.0\nfile '{secret}'\nfile '{url}'\n", "ffconcat playlist"),
    "SDP": ("v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n", "SDP"),
    "PLS": ("[playlist]\nFile1={url}\nNumberOfEntries=1\n", "PLS playlist"),
    "ASX": ("<asx version='3.0'><entry><ref href='{url}'/></entry></asx>", "ASX playlist"),
    "SMIL": ("<smil><body><video src='{url}'/></body></smil>", "SMIL playlist"),
}

HEADS = {
    "mp4": box(b"ftyp", b"isom\0\0\0\0isom"),
    "webm": b"\x1a\x45\xdf\xa3\xa3\x42\x82\x84webm",
    "flv": b"FLV\x01\5\0\0\0\x09\0\0\0\0",
    "ogg": b"OggS\0",
    "avi": b"RIFF\xff\xff\xff\xffAVI ",
}


def playlist(world: World, kind: str) -> bytes:
    return PLAYLISTS[kind][0].format(url=world.address, secret=world.secret).encode()


def add_playlists() -> None:
    for kind, (_, said) in PLAYLISTS.items():
        hostile(f"{kind} playlist as a clip", said)(lambda w, kind=kind: decode(playlist(w, kind)))
    for head in HEADS:
        for kind in ("HLS", "DASH"):
            hostile(f"{kind} playlist that begins as {head}", "clip.mp4: ")(
                lambda w, head=head, kind=kind: decode(HEADS[head] + playlist(w, kind))
            )


add_playlists()


@hostile("HLS playlist between sync bytes of a transport stream", "clip.mp4: ")
def _(world: World) -> Attempt:
    line = playlist(world, "HLS").ljust(187, b"\n")[:187]
    return decode(b"".join(b"\x47" + line for _ in range(4)))


@hostile("playlist by the path of an mp4", "HLS playlist")
def _(world: World) -> Attempt:
    return decode(world.file("film.mp4", playlist(world, "HLS")))


@hostile("playlist as a clip's own sound", "HLS playlist")
def _(world: World) -> Attempt:
    clip = make_clip(world.folder / "a.mp4", num_frames=4).read_bytes()
    return decode(clip, sound=playlist(world, "HLS"))


@hostile("mov whose pictures lie in another file", None)
def _(world: World) -> Attempt:
    data = make_clip(world.folder / "a.mov", num_frames=4, sound=None).read_bytes()
    (at,) = boxes(data, b"dref")
    # `url ` with flag 1 says "in this very file"; an `alis` entry without it names another one.
    data = put(data, at + 12, ">4sI", b"url ", 0)

    def attempt() -> None:
        # Read from the file itself, as if it said nothing else.
        assert decode(data)().frames.shape[1:] == (64, 96, 3)

    return attempt


@hostile("picture as a clip", "PNG picture")
def _(world: World) -> Attempt:
    return decode(b"\x89PNG\r\n\x1a\n" + bytes(64))


@hostile("archive as a clip", "zip archive")
def _(world: World) -> Attempt:
    return decode(b"PK\3\4" + bytes(64))


@hostile("pickle as a clip", "in no format we open")
def _(world: World) -> Attempt:
    return decode(bomb(world))


# --- bombs ----------------------------------------------------------------------------------------


def add_pixel_bombs() -> None:
    for kind in ("mp4", "mkv", "flv", "ts"):
        hostile(f"frames of 8192×4608 in {kind}", "frames of 8192×4608")(
            lambda w, kind=kind: decode(one_large_frame(w.folder / f"bomb.{kind}"))
        )


add_pixel_bombs()


@hostile("frames larger than the header says", "clip.mp4: ")
def _(world: World) -> Attempt:
    data = one_large_frame(world.folder / "bomb.mp4")
    # The first "avc1" is a brand of the file, the second its codec.
    (tkhd,), (_, avc1) = boxes(data, b"tkhd"), boxes(data, b"avc1")
    data = put(data, tkhd + 76, ">II", 96 << 16, 64 << 16)
    return decode(put(data, avc1 + 24, ">HH", 96, 64))


@hostile("ten hours in 2 kB", "36,000 seconds; limits")
def _(world: World) -> Attempt:
    data = make_clip(world.folder / "a.mp4", sound=None, num_frames=3).read_bytes().replace(b"edts", b"free")
    for at in (*boxes(data, b"mvhd"), *boxes(data, b"mdhd")):
        timescale = struct.unpack(">I", data[at + 12 : at + 16])[0]
        data = put(data, at + 16, ">I", 36_000 * timescale)
    return decode(put(data, boxes(data, b"stts")[0] + 12, ">I", 36_000 * 15_360 // 3))


def wav(rate: int, channels: int, claimed: int) -> bytes:
    form = struct.pack(
        "<HHIIHH", 1, channels, rate, rate * channels * 2 & 0xFFFFFFFF, 2 * channels & 0xFFFF, 16
    )
    body = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", claimed) + bytes(6400)
    return b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + b"WAVE" + body


def add_sound_bombs() -> None:
    for name, sound, said in (
        ("sound of 255 channels", wav(16_000, 255, 6400), "audio channels"),
        ("sound of 65,535 channels", wav(16_000, 65_535, 6400), "clip.mp4"),
        ("sound at 4 GHz", wav(4_000_000_000, 1, 6400), "clip.mp4"),
        ("sound at 1 Hz", wav(1, 1, 6400), "clip.mp4"),
    ):
        hostile(name, said)(
            lambda w, sound=sound: decode(make_clip(w.folder / "a.mp4", num_frames=4).read_bytes(), sound=sound)
        )


add_sound_bombs()

TABLES = {
    "2 billion frames in a fragment": (
        box(b"moof", box(b"traf", box(b"trun", struct.pack(">II", 0x1, 2**31)))),
        "claims 2,147,483,648",
    ),
    "compressed header": (box(b"moov", box(b"cmov", bytes(8))), "its header is compressed"),
    "edit list of a million": (
        box(
            b"moov",
            box(
                b"trak",
                box(b"edts", box(b"elst", struct.pack(">II", 0, 10**6)))
                + box(b"mdia", box(b"stsz", struct.pack(">III", 0, 0, 10**5))),
            ),
        ),
        "edit list of 1,000,000 entries",
    ),
    "boxes nested a thousand deep": (None, "clip.mp4: "),
}


def nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = box(b"moov", data)
    return data


def add_tables() -> None:
    for name, (table, said) in TABLES.items():
        hostile(name, said)(
            lambda w, table=table: decode(HEADS["mp4"] + (nested(1000) if table is None else table))
        )


add_tables()


@hostile("50 million samples in a table", "claims 50,000,000 samples")
def _(world: World) -> Attempt:
    data = make_clip(world.folder / "a.mp4", sound=None, num_frames=3).read_bytes()
    data = put(data, boxes(data, b"stsz")[0] + 4, ">II", 1, 50_000_000)
    return decode(put(data, boxes(data, b"stsc")[0] + 12, ">I", 50_000_000))


@hostile("2 TB that take no room on disk", "bytes; limits.max_bytes")
def _(world: World) -> Attempt:
    path = make_clip(world.folder / "a.mp4", num_frames=3)
    with path.open("ab") as file:
        file.truncate(2 * 1024**4)
    return decode(path)


# --- paths that are no files ----------------------------------------------------------------------


def add_paths() -> None:
    for name, path in (
        ("pipe: as a path", "pipe:0"),
        ("https as a path of a clip", "https://127.0.0.1/a.mp4"),
        ("concat: as a path", "concat:/etc/passwd"),
        ("endless device as a clip", "/dev/zero"),
    ):
        hostile(name, "cannot be opened|not a regular file")(lambda w, path=path: decode(Path(path)))


add_paths()


@hostile("address of a listener as a path", "cannot be opened")
def _(world: World) -> Attempt:
    return decode(Path(world.address))


@hostile("named pipe as a clip", "not a regular file")
def _(world: World) -> Attempt:
    os.mkfifo(world.folder / "pipe.mp4")
    return decode(world.folder / "pipe.mp4")


def add_schemes() -> None:
    for scheme in (
        "pipe:touch {canary}",
        "file://{secret}",
        "ftp://h{secret}",
        "az://h{secret}",
        "data:{secret}",
    ):
        hostile(f"shards at {scheme.partition(':')[0]}:", "is refused")(
            lambda w, scheme=scheme: lambda: ShardSet(scheme.format(canary=w.canary, secret=w.secret))
        )
    hostile("shards at http:", "is refused")(lambda w: lambda: ShardSet("http://example.org/a.tar"))


add_schemes()


# --- tars -----------------------------------------------------------------------------------------


def add_compressed() -> None:
    for name, compress in (("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)):

        def build(world: World, compress=compress) -> Attempt:
            plain = write_foreign(world.folder / "plain.tar", three_samples("A")).read_bytes()
            path = world.file("a.tar", compress(plain + bytes(10**7)))
            return lambda: ShardSet(str(path))

        hostile(f"tar in {name}", "compressed|torn|not a tar")(build)


add_compressed()


def add_sparse() -> None:
    for form in ("gnu", "posix"):

        def build(world: World, form=form) -> Attempt:
            with (world.folder / "1.mp4").open("wb") as film:
                film.truncate(2**30)
            out = world.folder / "a.tar"
            command = ["tar", "-S", f"--format={form}", "-cf", out, "-C", world.folder, "1.mp4"]
            subprocess.run(command, check=True)
            assert out.stat().st_size < 2**20
            return lambda: ShardSet(str(out))

        hostile(f"sparse tar of 1 GB ({form})", "sparse")(build)


add_sparse()


def only_ok(world: World, *members: tarfile.TarInfo) -> Attempt:
    """A tar of these members and one good clip; only that may be found."""
    path = world.folder / "a.tar"
    with tarfile.open(path, "w") as tar:
        for info in members:
            tar.addfile(info, io.BytesIO(b"film"[: info.size]))
        good = tarfile.TarInfo("ok.mp4")
        good.size = 4
        tar.addfile(good, io.BytesIO(b"film"))
    return lambda: check_only_ok(path, len(members))


def check_only_ok(path: Path, num_ignored: int) -> None:
    shards = ShardSet(str(path))
    assert [shards.entry(n).key for n in range(len(shards))] == ["ok"]
    assert sum("ignored" in problem for problem in shards.problems) == num_ignored
    assert shards.read(0).video == b"film"


def add_names() -> None:
    for name in ("/etc/abs.mp4", "../up.mp4", "a/../../b.mp4", "c:\\d.mp4", "bell\a.mp4"):
        info = tarfile.TarInfo(name)
        info.size = 4
        hostile(f"tar member {name!r}")(lambda w, info=info: only_ok(w, info))
    for kind, type_ in (("symbolic link", tarfile.SYMTYPE), ("hard link", tarfile.LNKTYPE)):

        def build(world: World, type_=type_) -> Attempt:
            info = tarfile.TarInfo("link.mp4")
            info.type, info.linkname = type_, str(world.secret)
            return only_ok(world, info)

        hostile(f"tar member that is a {kind}")(build)
    for kind, type_ in (("named pipe", tarfile.FIFOTYPE), ("device", tarfile.CHRTYPE)):
        info = tarfile.TarInfo("x.mp4")
        info.type = type_
        hostile(f"tar member that is a {kind}")(lambda w, info=info: only_ok(w, info))


add_names()


def add_headers() -> None:
    for what, type_, size, said in (
        ("extended header", b"x", 2**33, "extended header"),
        ("long name", b"L", 2**33, "extended header"),
        ("clip", b"0", 2**40, "breaks off"),
    ):

        def build(world: World, type_=type_, size=size) -> Attempt:
            info = tarfile.TarInfo("1.mp4")
            info.type, info.size = type_, size
            path = world.file("a.tar", info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
            return lambda: ShardSet(str(path))

        hostile(f"tar that claims a {what} of {size:,} bytes", said)(build)


add_headers()


@hostile("clip of a shard above the limit", "at most 100 are allowed")
def _(world: World) -> Attempt:
    path = write_foreign(world.folder / "a.tar", [("1.mp4", bytes(10**6)), ("1.json", record(1))])
    return lambda: ShardSet(str(path), limits=ShardLimits(max_clip_bytes=100)).read(0)


def add_pickles() -> None:
    for suffix in ("pyd", "pkl", "pth", "pickle"):

        def build(world: World, suffix=suffix) -> Attempt:
            path = write_foreign(world.folder / "a.tar", [("1.mp4", b"film"), (f"1.{suffix}", bomb(world))])

            def attempt() -> None:
                shards = ShardSet(str(path))
                assert any(f".{suffix}" in problem for problem in shards.problems)
                assert shards.read(0).video == b"film"

            return attempt

        hostile(f"tar member 1.{suffix} that is a pickle")(build)


add_pickles()


@hostile("action units that are a pickle", "allowed are floats")
def _(world: World) -> Attempt:
    array, stream = np.empty(1, object), io.BytesIO()
    array[0] = Runs(os.system, f"touch {world.canary}")
    np.save(stream, array, allow_pickle=True)
    path = write_foreign(world.folder / "a.tar", [("1.mp4", b"film"), ("1.fau.npy", stream.getvalue())])
    return lambda: ShardSet(str(path)).read(0)


@hostile("action units that claim 100 GB", "claims shape")
def _(world: World) -> Attempt:
    stream = io.BytesIO()
    np.save(stream, np.zeros((4, 27), np.float32))
    data = stream.getvalue().replace(b"(4, 27), }          ", b"(900000000, 27), }  ")
    assert len(data) == len(stream.getvalue())
    assert data != stream.getvalue()
    path = write_foreign(world.folder / "a.tar", [("1.mp4", b"film"), ("1.fau.npy", data)])
    return lambda: ShardSet(str(path)).read(0)


def add_labels() -> None:
    for name, text in (
        ("nested 100,000 deep", b"[" * 100_000),
        ("with a number of 10,000 digits", b'{"intensities": {"fear": ' + b"9" * 10_000 + b"}}"),
    ):

        def build(world: World, text=text) -> Attempt:
            members = [("1.mp4", b"film"), ("1.json", text), ("2.mp4", b"film"), ("2.json", record(2))]
            path = write_foreign(world.folder / "a.tar", members)

            def attempt() -> None:
                shards = ShardSet(str(path), strict=False)
                assert [shards.entry(n).key for n in range(len(shards))] == ["2"]
                assert any("'1' left out" in problem for problem in shards.problems)

            return attempt

        hostile(f"labels {name}")(build)


add_labels()


# --- weights and settings -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A whole model folder."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    torch.manual_seed(0)
    ViPER(micro()).save_pretrained(folder)
    return folder


def with_file(world: World, name: str, data: bytes) -> Attempt:
    """A model folder, whole but for one file, whose manifest says that all is well."""
    source = world.folder.parent / "model"

    def fill(new: Path) -> None:
        for path in source.rglob("*"):
            if path.is_file() and path.name != "manifest.json":
                target = new / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        (new / name).write_bytes(data)

    checkpoint.write_folder(world.folder / "hostile", fill)
    return lambda: ViPER.from_pretrained(world.folder / "hostile")


@hostile("weights that are a pickle", "model.safetensors")
def _(world: World) -> Attempt:
    stream = io.BytesIO()
    torch.save({"w": Runs(os.system, f"touch {world.canary}")}, stream)
    return with_file(world, "model.safetensors", stream.getvalue())


@hostile("weights whose header claims 1 TB", "model.safetensors")
def _(world: World) -> Attempt:
    return with_file(world, "model.safetensors", struct.pack("<Q", 2**40) + b"{}")


@hostile("weights of which one tensor claims 1 TB", "model.safetensors")
def _(world: World) -> Attempt:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}).encode()
    return with_file(world, "model.safetensors", struct.pack("<Q", len(header)) + header + bytes(64))


@hostile("settings nested 100,000 deep", r"config\.json")
def _(world: World) -> Attempt:
    return with_file(world, "config.json", b"[" * 100_000)


@hostile("settings that are a pickle", r"config\.json")
def _(world: World) -> Attempt:
    return with_file(world, "config.json", bomb(world))


@hostile("manifest that points outside", "outside")
def _(world: World) -> Attempt:
    attempt = with_file(world, "extra.txt", b"")
    listed = {"../../secret.txt": {"size": 1, "sha256": "0" * 64}}
    checkpoint.write_json(world.folder / "hostile" / "manifest.json", {"schema": 1, "files": listed})
    return attempt


@hostile("backbone that is a pickle", r"pytorch_model\.bin")
def _(world: World) -> Attempt:
    config = micro()
    small = {
        "model_type": "vit",
        **{k: v for k, v in config.visual.backbone.config.items() if k != "model_type"},
    }
    world.file("vit/config.json", json.dumps(small).encode())
    world.file(
        "vit/preprocessor_config.json", b'{"size": 32, "image_mean": [0.5,0.5,0.5], "image_std": [0.5,0.5,0.5]}'
    )
    torch.save({"x": Runs(os.system, f"touch {world.canary}")}, world.folder / "vit" / "pytorch_model.bin")
    config = with_settings(
        config, {"modalities": ("visual",), "visual.backbone": BackboneConfig(str(world.folder / "vit"))}
    )
    return lambda: ViPER(config)


@hostile("released checkpoint that runs a program", "nothing in it was run")
def _(world: World) -> Attempt:
    from viper_e2e.published.released import read_released

    path = world.folder / "perceiver.model"
    torch.save({"model": Runs(os.system, f"touch {world.canary}")}, path)
    return lambda: read_released(path)


def add_yaml() -> None:
    tags = {
        "runs a program": "lr: !!python/object/apply:os.system ['touch {canary}']",
        "makes an object": "lr: !!python/object/new:os.system ['touch {canary}']",
        "names a function": "lr: !!python/name:os.system",
        "loads a module": "lr: !!python/module:antigravity",
        "doubles itself thirty times": "\n".join(
            ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 31)), "lr: *a30"]
        ),
    }
    for name, text in tags.items():

        def build(world: World, text=text) -> Attempt:
            path = world.file("settings.yaml", text.format(canary=world.canary).encode())
            words = ["--config", str(path), "--train-shards=a.tar", "--run-dir=run"]
            return lambda: parse_train(words, "viper train")

        hostile(f"settings whose YAML {name}", "")(build)


add_yaml()


# --- text that ends up in reports -----------------------------------------------------------------

MARKUP = "<script>fetch('{url}')</script><img src='{url}' onerror=alert(1)>\"'&{{{{ 7 * 7 }}}}"


@hostile("markup in keys, identifiers, errors and emotions of the report")
def _(world: World) -> Attempt:
    text = MARKUP.format(url=world.address)
    given = predictions_of(keys=[f"{text}{i}" for i in range(20)], file_ids=[text] * 20, shards=[text] * 20)
    given.errors[0] = text

    def attempt() -> None:
        options = {"title": text, "config": {text: text}, "versions": {text: text}}
        page = page_of(world.folder, given, **options)
        assert "script" not in page.tags
        assert not [name for name in page.attributes if name.startswith("on")]
        assert all(address.startswith("data:image/") for address in page.addresses)

    return attempt


@hostile("formulas in predictions.csv")
def _(world: World) -> Attempt:
    from support.predictions import predictions

    path = world.folder / "predictions.csv"

    def attempt() -> None:
        predictions(keys=NASTY, file_ids=NASTY, shards=NASTY, errors=NASTY, subjects=NASTY).write_csv(path)
        assert not [text for row in cells(path) for text in row if re.match(r"[=+@\t\r]|-\D", text)]

    return attempt


@hostile("formulas in records.csv")
def _(world: World) -> Attempt:
    from support.records import records

    path = world.folder / "records.csv"

    def attempt() -> None:
        write_records(records(), path)
        assert not [text for row in cells(path) for text in row if re.match(r"[=+@\t\r]|-\D", text)]

    return attempt


@hostile("formula in a submission", "formula or a line break")
def _(world: World) -> Attempt:
    from support.predictions import E, predictions

    given = predictions(file_ids=["=1+1", *(f"[{n}]" for n in range(8))])
    return lambda: given.write_submission(world.folder / "s.csv", [0.5] * E)


@hostile("terminal codes in the name of a clip")
def _(world: World) -> Attempt:
    from support.tables import NAMES, record, shown

    from viper_e2e.report.record_rows import records_table

    def attempt() -> None:
        name = "[red]a[/red]\x1b]0;title\x07\x1b[31m.mp4"
        text = shown(records_table([record(name)], NAMES, width=120), 120)
        assert "\x1b" not in text
        assert "\x07" not in text

    return attempt


# --- the one test ---------------------------------------------------------------------------------


def test_forty_kinds_of_hostile_files_are_known():
    assert len(CASES) >= 40


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_file_is_refused_and_gets_nothing(name, tmp_path, saved, capsys):
    build, said = CASES[name]
    folder = tmp_path / "files"
    folder.mkdir()
    (tmp_path / "model").symlink_to(saved)
    secret = tmp_path / "secret.txt"
    secret.write_text("TOP SECRET")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        attempt = build(World(folder, tmp_path / "canary", secret, address))
        # The peak so far is forgotten, so that what is measured is this attempt's.
        forget_peak()
        before = peak_mib()
        if said is None:
            attempt()
        else:
            refused(attempt, said, capsys)
        assert peak_mib() - before < MAX_GROWTH_MIB
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert not (tmp_path / "canary").exists()
    assert secret.read_text() == "TOP SECRET"


def refused(attempt: Attempt, said: str, capsys: pytest.CaptureFixture) -> None:
    """In one line of moderate length; on the command line with exit code 1."""
    with pytest.raises((ViperError, ClipError, SystemExit)) as caught:
        attempt()
    message = str(caught.value)
    if isinstance(caught.value, SystemExit):
        assert caught.value.code == 1
        message = capsys.readouterr().err.strip()
    assert re.search(said, message), message
    assert "\n" not in message
    assert len(message) < 1500
    assert "TOP SECRET" not in message
