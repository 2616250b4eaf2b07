"""score.py: every clip of a source scored once, however it is read and by however many processes.

The one path of `eval`, `infer`, `ablate`, validation in training and, without a model, `check`: what a clip
costs that crashes or hangs its process, what an earlier run has scored already, and who scores which share, is
decided here for all of them. Loads no torch until there is a model to score with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from viper_e2e.clip import ClipSource, DecodedClip, Sample
from viper_e2e.config import looks_at_face
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.loading import ClipStream, Reading
from viper_e2e.model import Prediction, failed
from viper_e2e.scoring.sources import ClipFiles, Subset, name_of

if TYPE_CHECKING:
    from viper_e2e.model import ViPER

NOT_SCORED = "no process has scored it; run the same command again"
CHANGED = "the file was changed while it was scored"


@runtime_checkable
class Team(Protocol):
    """`Processes` that score a share of the clips each."""

    index: int
    count: int

    def gather_list(self, items: list, *, purpose: str) -> list: ...


@runtime_checkable
class Journal(Protocol):
    """A `ResultJournal`."""

    def known(self) -> dict[str, Any]: ...

    def add(self, outcomes: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Wanted:
    """What to return for each clip besides its intensities and the modalities present."""

    frames: bool = False
    """The times of the frames that the model read."""
    boxes: bool = False
    """These, and the face in each frame."""
    windows: tuple[float, float] | None = None
    """Length and hop in seconds: one prediction for each window of a clip, instead of one for the whole."""
    hidden: tuple[tuple[str, ...], ...] = ((),)
    """Modalities treated as absent: one prediction for each of these sets, from one pass of encoding."""

    def __post_init__(self) -> None:
        if self.windows is not None and not 0 < self.windows[1] <= self.windows[0]:
            length, hop = self.windows
            raise ViperError(
                f"windows of {length} s every {hop} s: the hop must be above 0, at most the window"
            )


@dataclass(frozen=True)
class Hooks:
    """What else happens to the clips of this process as they pass; nothing happens to windows."""

    cached: Callable[[str], Any] | None = None
    """As in `ClipStream`."""
    quarantined: dict[str, str] | None = None
    """As in `ClipStream`."""
    on_batch: Callable[[Any], None] | None = None
    """Called with each `ClipBatch` after its pass through the model."""
    on_clip: Callable[[int, Any], None] | None = None
    """Called with the number of each clip and its `PreparedClip`, what was decoded, or its `ClipError`."""


def score(
    model: ViPER | None,
    source: ClipSource,
    reading: Reading | None = None,
    *,
    wanted: Wanted | None = None,
    processes: Team | None = None,
    journal: Journal | None = None,
    decode: Callable[[Sample], Any] | None = None,
    hooks: Hooks | None = None,
    tell: Callable[[Prediction, int], None] = lambda prediction, num_clips: None,
) -> Iterator[Prediction]:
    """Score every clip of a source; yields a `Prediction` for each, also for those that cannot be read.

    Predictions of one clip come together. The first are those that the journal has, then those of this process
    as it scores them, then those of the other processes, so every process yields all of them.
    `Prediction.index` has the order of the source.

    Args:
        model: a `ViPER`. None: clips are only decoded, and predictions have no intensities.
        reading: how clips are read, and how many may crash or hang their process.
        processes: the processes that share the work (default: this one alone).
        journal: saves each clip's predictions as soon as they are made, and has those of earlier runs.
        decode: what is done with each sample, picklable (default: what the model's decoder does).
        tell: called after each clip with its prediction and the number of clips done, over all processes.

    The model is in evaluation mode during scoring, and then returns to its earlier mode.
    """
    wanted, hooks, reading = wanted or Wanted(), hooks or Hooks(), reading or Reading()
    names = [name_of(source, i) for i in range(len(source))] if journal is not None else []
    kept = journal.known() if journal is not None else {}
    done = {i for i, name in enumerate(names) if name in kept}
    for i in sorted(done):
        clip = [replace(one, index=i) for one in _restored(kept[names[i]], model, source.entry(i).key)]
        tell(clip[0], 1)
        yield from clip
    count = processes.count if processes is not None else 1
    own: list[Prediction] = []
    for i, found in _scored(model, source, done, reading, wanted, processes, decode, hooks):
        is_changed = isinstance(source, ClipFiles) and source.has_changed(i)
        clip = [replace(one, index=i, warning=_with_note(one, is_changed)) for one in found]
        if journal is not None:
            journal.add({names[i]: [one.to_json() for one in clip]})
        own += clip if count > 1 else ()
        done.add(i)
        tell(clip[0], count)
        yield from clip
    if processes is not None and count > 1:
        everyones = processes.gather_list(own, purpose="gathering what all processes have scored")
        others = [one for one in everyones if one.index not in done]
        done |= {one.index for one in others}
        yield from others
    modalities = model.modalities if model is not None else ()
    for i in sorted(set(range(len(source))) - done):
        yield replace(failed(source.entry(i).key, NOT_SCORED, modalities), index=i)
    yield from (failed(key, why, modalities, stage="read") for key, why in source.unusable)


def _scored(
    model: ViPER | None,
    source: ClipSource,
    done: set[int],
    reading: Reading,
    wanted: Wanted,
    processes: Team | None,
    decode: Callable[[Sample], Any] | None,
    hooks: Hooks,
) -> Iterator[tuple[int, list[Prediction]]]:
    """Number and predictions of each clip of this process's share of what is not done."""
    rest = [i for i in range(len(source)) if i not in done]
    if not rest:
        return
    share = (processes.index, processes.count) if processes is not None else (0, 1)
    if hooks.on_clip is not None:
        seen = hooks.on_clip
        hooks = replace(hooks, on_clip=lambda i, clip: seen(rest[i], clip))
    if model is None:
        assert decode is not None, "without a model nothing else says how"
        found = _decoded(Subset(source, rest), reading, decode, hooks)
    elif wanted.windows is not None:
        from viper_e2e.scoring.passes import in_windows

        rest = rest[share[0] :: share[1]]
        found = in_windows(model, Subset(source, rest), reading, wanted)
    else:
        from viper_e2e.scoring.passes import in_batches

        found = in_batches(model, Subset(source, rest), reading, wanted, decode, hooks, *share)
    for i, clip in found:
        yield rest[i], clip


def _decoded(
    source: ClipSource, reading: Reading, decode: Callable[[Sample], Any], hooks: Hooks
) -> Iterator[tuple[int, list[Prediction]]]:
    """Clips that are decoded alone, in order: whether they can be, how long they are, and notes."""
    with ClipStream(source, decode, reading, cached=hooks.cached, quarantined=hooks.quarantined) as stream:
        for slot in stream.clips(range(len(source))):
            clip, slot.clip = slot.clip, None
            if hooks.on_clip is not None:
                hooks.on_clip(slot.index, clip)
            if isinstance(clip, ClipError):
                one = failed(slot.key, clip.reason, (), stage=clip.stage)
            else:
                one = Prediction(slot.key, start_seconds=0.0)
                if isinstance(clip, DecodedClip):
                    told = "; ".join(clip.notes) or None
                    one = replace(one, end_seconds=round(clip.duration_seconds, 3), warning=told)
            yield slot.index, [one]


def _with_note(one: Prediction, is_changed: bool) -> str | None:
    return "; ".join(filter(None, (one.warning, CHANGED))) if is_changed else one.warning


def _restored(
    outcome: list[dict[str, Any]] | dict[str, Any], model: ViPER | None, key: str
) -> list[Prediction]:
    """The predictions of one clip, out of a journal."""
    if isinstance(outcome, list):
        return [Prediction.from_json(one) for one in outcome]
    # What `eval` kept until every command kept the same: a row of its table.
    assert model is not None
    if outcome["error"] is not None:
        return [failed(key, outcome["error"], model.modalities)]
    sees = any(map(looks_at_face, model.modalities))
    intensities = [float("nan") if value is None else value for value in outcome["predicted"]]
    return [
        Prediction(
            key,
            start_seconds=0.0,
            end_seconds=round(outcome["duration"], 3),
            intensities=dict(zip(model.labels.names, intensities, strict=True)),
            present=dict(zip(model.modalities, outcome["present"], strict=True)),
            face_found=outcome["face_share"] if sees else None,
        )
    ]
