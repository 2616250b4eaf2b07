"""packing/pack.py: match clips with their labels, and write them: all shards of a run, or none."""

from __future__ import annotations

import random
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.packing.dry_run import Rehearsal
from viper_e2e.packing.matching import match_clips
from viper_e2e.packing.media_worker import in_worker
from viper_e2e.packing.options import AS_USUAL, PackOptions
from viper_e2e.packing.replacing import publish, shards_in_the_way, to_replace
from viper_e2e.packing.report import Findings, PackReport, SplitReport
from viper_e2e.packing.samples import Samples
from viper_e2e.packing.segments import Clip
from viper_e2e.packing.subtitles import PackedWords
from viper_e2e.packing.transcripts import transcripts_of
from viper_e2e.runtime import Counted, count_of, explain
from viper_e2e.shards import ShardIndex, ShardWriter
from viper_e2e.tables import oddities_of, read_labels

TRANSCRIPTS = ".transcripts.jsonl"
"""File in the folder of shards, until all of them are written."""


def pack(
    videos: Path,
    labels: Path,
    out: Path,
    options: PackOptions = AS_USUAL,
    *,
    progress: Counted | None = None,
) -> PackReport:
    """Pack clips into shards ``OUT/SPLIT-000000.tar``, each with its index beside it.

    Files are found in ``videos`` and its subfolders by the names that the table gives them; the bytes of clips
    are untouched. Samples are written in a permutation that depends on ``options.seed`` alone: same input, same
    bytes. Shards appear in ``out`` when all are written; an interrupted run leaves nothing but a
    Whisper's transcripts, from which the next one continues.

    Clips that cannot be packed are listed in the report, the others are packed. Raises ``ViperError``
    where nothing can be packed: folders or labels.csv unusable, or shards of another run in the way.
    """
    table, findings = read_labels(labels, options.choices), Findings()
    findings.leave_out(*table.problems)
    findings.note([*table.notes, *oddities_of(table)])
    transcripts = None
    if not options.dry_run:
        transcripts = transcripts_of(options.transcribe, options.language, options.limits, out / TRANSCRIPTS)
    words = PackedWords(findings, options.subtitles, options.words_language, transcripts)
    with closing(in_worker):
        clips = match_clips(table, labels, videos, options, findings)
        old = to_replace(
            shards_in_the_way(out, options.overwrite), {clip.row.split for clip in clips}, findings
        )
        by_split = defaultdict(list)
        for clip in sorted(clips, key=lambda clip: clip.row.key):
            by_split[clip.row.split].append(clip)
        samples = Samples(words, options.limits, findings)
        if options.dry_run:
            reports = _rehearsed(by_split, samples)
            _refuse_nothing(reports, labels, videos, findings.problems)
        else:
            counted = _Counted(progress, len(clips))
            try:
                out.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(prefix=".packing-", dir=out) as folder:
                    reports = _written(Path(folder), by_split, samples, table.labels, options, counted)
                    _refuse_nothing(reports, labels, videos, findings.problems)
                    publish(Path(folder), out, old)
                    words.all_packed()
            except OSError as error:
                raise ViperError(f"{explain(error, out)}; nothing was packed") from error
            killed = sorted(out.glob(".packing-*"))
            findings.note(f"{path} is left from a run that was killed; remove it" for path in killed)
    findings.note(words.lines())
    return PackReport(
        str(out),
        table.labels,
        tuple(reports),
        tuple(findings.problems),
        findings.notes,
        table.columns,
        is_dry=options.dry_run,
    )


def _rehearsed(by_split: Mapping[str, list[Clip]], samples: Samples) -> list[SplitReport]:
    """Reports of a dry run, one for each split with clips to pack."""
    reports = []
    for split, clips in sorted(by_split.items()):
        rehearsal = Rehearsal(split)
        for clip in clips:
            samples.add_to(rehearsal, clip)
        reports += [rehearsal.report()] if rehearsal.clips else []
    return reports


def _written(
    folder: Path,
    by_split: Mapping[str, list[Clip]],
    samples: Samples,
    labels: LabelSet,
    options: PackOptions,
    counted: _Counted,
) -> list[SplitReport]:
    """Shards of each split in ``folder``, clips in an order that ``options.seed`` alone decides."""
    reports = []
    for split, clips in sorted(by_split.items()):
        order = [*clips]
        random.Random(f"{options.seed}/{split}").shuffle(order)
        with ShardWriter(folder, split, labels, shard_size=options.shard_size) as writer:
            for clip in order:
                samples.add_to(writer, clip)
                counted.step()
        if writer.indexes:
            reports.append(_split_report(split, writer.indexes))
    return reports


def _refuse_nothing(reports: list[SplitReport], labels: Path, videos: Path, problems: list[str]) -> None:
    if not reports:
        first = "; ".join(problems[:3])
        raise ViperError(
            f"{labels}: nothing to pack from {videos}: {first} ({count_of(len(problems), 'problem')})"
        )


def _split_report(split: str, indexes: list[ShardIndex]) -> SplitReport:
    samples = [sample for index in indexes for sample in index.samples]
    return SplitReport(
        split=split,
        clips=len(samples),
        unlabelled=sum(sample.intensities is None for sample in samples),
        subjects=len({sample.subject for sample in samples} - {None}),
        shards=len(indexes),
        bytes=sum(index.size for index in indexes),
    )


class _Counted:
    def __init__(self, progress: Counted | None, total: int):
        self.progress, self.total, self.done = progress, total, 0

    def step(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total)
