"""checking.py: `viper check`: reads every clip of a set of shards once, and prints what was found."""

from __future__ import annotations

from viper_e2e.commands.findings import tell_findings
from viper_e2e.commands.reading_options import shard_limits, with_reading_options
from viper_e2e.config import CheckConfig, DecodingConfig, FaceConfig
from viper_e2e.loading import notes_on_reading
from viper_e2e.runtime import counting as progress_bar
from viper_e2e.runtime import settle_file, tell_problems
from viper_e2e.scoring import check
from viper_e2e.shards import ShardSet


def run_check(options: CheckConfig) -> int:
    """Check, print the findings, and return the exit code: 2 where clips cannot be read."""
    if options.output:
        settle_file(options.output, "--output")
    decoding = with_reading_options(DecodingConfig(), options)
    faces = None
    if options.faces:
        from viper_e2e.faces import FaceCropper  # loads torch

        faces = FaceCropper(FaceConfig())
    shards = ShardSet(options.shards, limits=shard_limits(options), strict=False)
    tell_problems(notes_on_reading(shards.remote_reading, (shards,)))
    with progress_bar("reading") as progress:
        report = check(
            shards,
            decoding=decoding,
            faces=faces,
            num_workers=options.num_workers,
            clip_timeout_seconds=options.clip_timeout_seconds,
            max_restarts=options.max_worker_restarts,
            progress=progress,
        )
    return tell_findings(report, options.output)
