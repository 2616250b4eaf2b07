"""packing_options.py: options of `viper pack`, `viper index` and the recipes of corpora."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from viper_e2e.config.bounds import ABOVE_0, FROM_0, FROM_1
from viper_e2e.config.shared_options import SHARDS, option
from viper_e2e.config.values import Size


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """Write the index of shards that another program made, so that one request opens each of them."""

    shards: list[str] = option(positional=True, metavar="SHARDS", help=SHARDS)
    out: str | None = option(
        None, metavar="DIR", help="folder for the indexes (default: beside each shard; needed for addresses)"
    )
    overwrite: bool = option(False, help="replace indexes that are there already")


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """Pack clips and labels into shards, one set per split."""

    videos: str = option(help="folder of clips (mp4, mov, mkv, webm, avi, mpg, wmv and others)")
    labels: list[str] = option(
        help="table (csv, tsv, xlsx, parquet): File_ID, Split, one column per emotion; or a folder of labels "
        "by frame; given again with titles, "
        "e.g. --labels Valence,Arousal: only these columns are emotions",
    )
    out: str = option(help="folder for the shards")
    audio: str | None = option(None, help="folder of separate sound files (wav, flac, m4a, mp3, opus, …)")
    fau: str | None = option(None, help="folder of precomputed action units (csv or npy per clip)")
    transcribe: str | None = option(
        None,
        metavar="MODEL",
        help="Whisper model (folder or hub id) to transcribe clips that come without words",
    )
    language: str | None = option(None, metavar="XX", help="spoken language, for --transcribe (default: any)")
    words_language: str = option(
        "", metavar="XX", help="language of the subtitles to read where there are several (CLIP.en.srt)"
    )
    no_subtitles: bool = option(False, help="ignore subtitles next to the clips (.vtt, .srt, .txt)")
    shard_size: Annotated[Size, FROM_1] = option(Size(256 * 10**6), help="size of a shard")
    max_bytes: Annotated[Size | None, FROM_1] = option(
        None, metavar="SIZE", help="largest file of a clip, e.g. 4GB (default: 2 GiB)"
    )
    seed: Annotated[int, FROM_0] = option(0, help="seed of the order of samples (default: 0)")
    overwrite: bool = option(False, help="replace the shards of an earlier run")
    dry_run: bool = option(
        False,
        help="write nothing: show what each column is taken for, what is found, and what would be left out",
    )
    output: str | None = option(None, help="also write the report as JSON")
    tasks: str = option(
        "",
        metavar="FILE",
        help="what to predict, if not intensities: a YAML file, or Emotion=class,Valence=number "
        "(kinds: intensities, class, labels, number)",
        group="table",
    )
    window_seconds: Annotated[float | None, ABOVE_0] = option(
        None,
        metavar="S",
        help="where --labels is a folder of labels by frame (Aff-Wild2, AFEW-VA): length of the clips that are "
        "made of them (default: 2)",
        group="table",
    )
    meta: list[str] = option(
        [],
        metavar="A,B",
        help="columns to keep with each clip (Gender,Language) for scores by group; they are not labels",
        group="table",
    )
    ignore: list[str] = option(
        [], metavar="A,B", dashed=True, help="columns that are not emotions", group="table"
    )
    missing: list[str] = option(
        [],
        metavar="CODES",
        dashed=True,
        help="cells that mean missing, e.g. -99,NA; none: there are no such codes",
        group="table",
    )
    id_column: str = option(
        "", metavar="TITLE", help="column that names the clips (default: File_ID, or Path)", group="table"
    )
    split_column: str = option(
        "", metavar="TITLE", help="column that names the splits (default: Split)", group="table"
    )
    subject_column: str = option(
        "", metavar="TITLE", help="column that names the person in the clip (default: Subject)", group="table"
    )
    split: str = option(
        "", metavar="NAME", help="split of all rows, if no column names it, e.g. train", group="table"
    )
    encoding: str = option(
        "",
        help="encoding of a table that is neither UTF-8, UTF-16 nor Windows-1252, e.g. gb18030",
        group="table",
    )
    sheet: str = option("", help="sheet to read, of an Excel workbook that has several", group="table")


GROUPS = {"table": "for what the table does not say"}
"""Headings of ``--help``, by the name of the group."""


# Not frozen, unlike all other options: people's recipes inherit from these two by a plain `@dataclass`, which
# Python does not allow of a frozen one.
@dataclass(kw_only=True)
class RecipeOptions:
    """Pack a corpus into shards."""

    corpus: Path = option(metavar="DIR", help="folder of the corpus, as distributed")
    out: Path = option(metavar="DIR", help="folder for the shards and labels.csv")
    shard_size: Annotated[Size, FROM_1] = option(
        Size(256 * 10**6), metavar="SIZE", help="largest size of a shard"
    )
    seed: Annotated[int, FROM_0] = option(0, help="seed of the order of samples in the shards")
    overwrite: bool = option(False, help="replace the shards of an earlier run")
    facts: bool = option(False, help="print what is known of the corpus (licence, link, split) and exit")
    make_fake: Path | None = option(
        None, metavar="DIR", help="write a made-up tree of the corpus's layout there and exit"
    )


@dataclass(kw_only=True)
class FoldRecipeOptions(RecipeOptions):
    """Pack a corpus that is reported by folds into shards."""

    fold: str = option(
        "", metavar="K", help="which fold is held out (default: the first); all are in the column Fold"
    )
