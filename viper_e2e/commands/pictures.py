"""pictures.py: plots and rendered clips of a call, for one clip or for each, under safe and unique names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from viper_e2e.config import InferConfig
from viper_e2e.errors import ViperError
from viper_e2e.loading import ClipSource, WorkerLost, WorkerPool
from viper_e2e.model import Record, ViPER
from viper_e2e.report import CANNOT_DRAW
from viper_e2e.runtime import AS_IT_IS, console, settle_file, settle_folder

if TYPE_CHECKING:
    from viper_e2e.report import RenderClip

# What draws is imported by whoever draws: most calls of `viper infer` do not.

ENDINGS = {"plot": ".png", "render": ".mp4"}

LONGEST_NAME = 60
"""Characters of a picture's name: in UTF-8, and with its ending, what every disk takes."""

SECONDS_TO_DRAW_ONE = 20.0
"""Time limit per clip: rendering takes longer than decoding what the model looks at."""


def check_pictures(sources: Sequence[ClipSource], options: InferConfig) -> None:
    """Refuse pictures that cannot be made before anything is computed; the folder of ``--out`` is made."""
    if options.out:
        settle_folder(options.out, "--out")
    for name, wanted in _wanted(options).items():
        ending = ENDINGS[name]
        if wanted == "" and not options.out:
            raise ViperError(f"--{name} draws every clip into a folder: add --out FOLDER, or name one {ending}")
        if name == "plot" and not options.window_seconds:
            raise ViperError("--plot shows windows over time; add --window-seconds, e.g. 12")
        if wanted and sum(map(len, sources)) != 1:
            raise ViperError(f"--{name} {wanted} takes exactly one clip; for each write --{name} --out FOLDER")
        if wanted and Path(wanted).suffix.lower() != ending:
            raise ViperError(f"--{name} {wanted}: name a {ending} file")
        for path in _paths(sources, name, options):
            settle_file(path, f"--{name}")
            if name == "render":
                _check_render(path)


def _check_render(path: Path) -> None:
    from viper_e2e.report import may_replace

    if not may_replace(path):
        raise ViperError(f"{path}: exists and was not rendered by viper; name another place for --render")


def draw(path: Path, make: Callable[[], Path]) -> bool:
    """A picture, and a line that says where it is or why there is none; whether it could be drawn."""
    try:
        console.print(f"wrote {make()}", **AS_IT_IS)
    except CANNOT_DRAW as error:
        console.print(f"{path}: not drawn: {error}", style="yellow", **AS_IT_IS)
        return False
    return True


def draw_pictures(
    sources: Sequence[ClipSource], clips: Sequence[list[Record]], model: ViPER, options: InferConfig
) -> bool:
    """The plots and videos that the options want of what was scored; whether all of them could be drawn.

    ``clips``: the records of each clip of the sources, in order. A picture that cannot be drawn is one line.
    """
    places = [(number, i) for number, source in enumerate(sources) for i in range(len(source))]
    all_drawn = True
    with _Renderer(sources, model, options) as renderer:
        for name in _wanted(options):
            for place, records, path in zip(places, clips, _paths(sources, name, options), strict=True):
                scored = [record for record in records if record["valid"]]
                try:
                    if scored and name == "plot":
                        console.print(f"plot: {_plot(records, path)}", **AS_IT_IS)
                    elif scored:
                        console.print(f"video: {renderer(place, scored, path)}", **AS_IT_IS)
                except CANNOT_DRAW as error:
                    reason = " ".join(str(error).split()) or type(error).__name__
                    console.print(f"{path}: not drawn: {reason}", style="yellow", **AS_IT_IS)
                    all_drawn = False
    return all_drawn


def _plot(records: list[Record], path: Path) -> Path:
    from viper_e2e.report import figures

    return figures.windows_plot(records, path)


class _Renderer:
    """Decodes clips once more and draws them, in a worker, which a clip may crash or hang as any other."""

    def __init__(self, sources: Sequence[ClipSource], model: ViPER, options: InferConfig):
        self.sources, self.model, self.options = sources, model, options
        self.pool: WorkerPool | None = None

    def __call__(self, clip: tuple[int, int], records: list[Record], path: Path) -> Path:
        from viper_e2e.report import partial_of

        source, i = clip
        job = (source, self.sources[source].place_of(i), records, path)
        if self.options.num_workers == 0:  # no workers: someone debugs
            return self._task()(job)
        self.pool = self.pool or WorkerPool(self._task(), 1, max_restarts=self.options.max_worker_restarts)
        seconds = max(record["end_seconds"] or record["duration_seconds"] or 0.0 for record in records)
        self.pool.time_limit_seconds = self.options.clip_timeout_seconds + SECONDS_TO_DRAW_ONE * seconds
        outcome = self.pool.outcome(self.pool.submit(job, path.name))
        if isinstance(outcome, WorkerLost):
            partial_of(path).unlink(missing_ok=True)
            raise ViperError(f"its process was lost ({outcome.reason})")
        return outcome

    def _task(self) -> RenderClip:
        from viper_e2e.report import RenderClip

        decoding = self.model.config.decoding
        readers = tuple(source.reader() for source in self.sources)
        return RenderClip(readers, self.model.labels, decoding.limits, decoding.video_track)

    def __enter__(self) -> _Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.close()


def _wanted(options: InferConfig) -> dict[str, str]:
    """The kinds of pictures that are asked for, each with its file; empty: one for each clip, in the folder."""
    asked = {"plot": options.plot, "render": options.render}
    return {name: path for name, path in asked.items() if path is not None}


def _paths(sources: Sequence[ClipSource], name: str, options: InferConfig) -> list[Path]:
    """Path for the picture of each clip."""
    if wanted := _wanted(options)[name]:
        return [Path(wanted)]
    keys = [source.entry(i).key for source in sources for i in range(len(source))]
    return [Path(options.out or "", stem + ENDINGS[name]) for stem in picture_names(keys)]


def picture_names(clips: Sequence[str]) -> list[str]:
    """A file's name, without ending, for each clip: as like the clip's as is safe, and no two alike.

    Clips of several folders are named with these folders from where they part. What is alike even then
    (``a.mp4`` and ``a.mov``, ``A`` and ``a``, the same clip twice) is numbered.
    """
    parts = [PurePath(clip).parts for clip in clips]
    folders = {inner[:-1] for inner in parts}
    shared = next((n for n, level in enumerate(zip(*folders, strict=False)) if len(set(level)) > 1), None)
    shared = min(map(len, folders), default=0) if shared is None else shared
    used: Counter[str] = Counter()
    names = []
    for inner in parts:
        shown = PurePath(*inner[shared:]).with_suffix("").parts
        text = re.sub(r"[^\w .()+-]", "_", "_".join(shown)).strip(" ._") or "clip"
        text = f"_{text}" if text.startswith("-") else text[-LONGEST_NAME:]
        number = 1
        while (name := text if number == 1 else f"{text}-{number}").casefold() in used:
            number += 1
        used[name.casefold()] += 1
        names.append(name)
    return names
