"""score.py: every clip of a source scored once, however it is read and by however many processes.

The one path of `eval`, `infer`, `ablate`, validation in training and, without a model, `check`: what a clip
costs that crashes or hangs its process, what an earlier run has scored already, and who scores which share, is
decided here for all of them. Loads no torch until there is a model to score with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from viper_e2e.clip import DecodedClip, Sample
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.loading import ClipSource, ClipStream, ProcessShare, Quarantine, Reading
from viper_e2e.model import Prediction, failed
from viper_e2e.scoring.sources import Subset

if TYPE_CHECKING:
    from viper_e2e.loading import ClipBatch
    from viper_e2e.model import ViPER, ViPEROutput

OnBatch = Callable[["ClipBatch", "ViPEROutput"], None]
"""Gets a batch after its pass through the model, and the output, with its streams."""
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
    """Results wanted for each clip besides its intensities and the modalities present."""

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
        if self.windows is not None and self.hidden != ((),):
            raise ViperError("windows are scored with all modalities: leave out `hidden`, or score whole clips")


@dataclass(frozen=True)
class Hooks:
    """Hooks for the clips of this process as they pass; windows have none."""

    cached: Callable[[str], Any] | None = None
    """See `ClipStream`."""
    quarantine: Quarantine | None = None
    """See `ClipStream`."""
    on_batch: OnBatch | None = None
    """Called with each batch; of several sets of hidden modalities, with the output of the first."""
    on_clip: Callable[[int, Any], None] | None = None
    """Called with the number of each clip and its `PreparedClip`, what was decoded, or its `ClipError`."""

    def numbered(self, numbers: Sequence[int]) -> Hooks:
        """Hooks for clips that stand alone and have these numbers in their source."""
        on_clip = self.on_clip
        if on_clip is None:
            return self
        return replace(self, on_clip=lambda i, clip: on_clip(numbers[i], clip))


@dataclass(frozen=True)
class Pass:
    """One process's share of the clips of a source, how they are read, and what of them is wanted.

    `ViperError` for a hook or a wish that this way of scoring would ignore.
    """

    model: ViPER | None
    source: ClipSource
    reading: Reading
    wanted: Wanted
    decode: Callable[[Sample], Any] | None
    hooks: Hooks
    share: ProcessShare

    def __post_init__(self) -> None:
        if self.model is None:
            assert self.decode is not None, "without a model nothing else says how"
            if self.wanted != Wanted() or self.hooks.on_batch is not None:
                raise ViperError("without a model clips are only decoded: leave out `wanted` and `on_batch`")
        elif self.wanted.windows is not None and (self.decode is not None or self.hooks != Hooks()):
            raise ViperError(
                "windows are decoded as the model does, past all hooks: leave out `decode` and `hooks`"
            )

    @property
    def own(self) -> range:
        """Numbers of the clips of this process."""
        return range(self.share.index, len(self.source), self.share.count)

    def predictions(self) -> Iterator[tuple[int, list[Prediction]]]:
        """Number and predictions of each clip of this process, as it is done."""
        if not len(self.source):
            return iter(())
        if self.model is None:
            return self._decoded()
        from viper_e2e.scoring import passes

        return passes.in_batches(self) if self.wanted.windows is None else passes.in_windows(self)

    def _decoded(self) -> Iterator[tuple[int, list[Prediction]]]:
        """Clips that are decoded alone, in order: whether they can be, how long they are, and notes."""
        assert self.decode is not None
        hooks, on_clip = self.hooks, self.hooks.on_clip
        stream = ClipStream(
            self.source, self.decode, self.reading, cached=hooks.cached, quarantine=hooks.quarantine
        )
        with stream:
            for slot in stream.clips(self.own):
                clip, slot.clip = slot.clip, None
                if on_clip is not None:
                    on_clip(slot.index, clip)
                yield slot.index, [_as_prediction(slot.key, clip)]


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
    names = [source.name_of(i) for i in range(len(source))] if journal is not None else []
    kept = journal.known() if journal is not None else {}
    done = {i for i, name in enumerate(names) if name in kept}
    for i in sorted(done):
        clip = [replace(Prediction.from_json(one), index=i) for one in kept[names[i]]]
        tell(clip[0], 1)
        yield from clip
    count = processes.count if processes is not None else 1
    own: list[Prediction] = []
    rest = [i for i in range(len(source)) if i not in done]
    share = ProcessShare(processes.index, count) if processes is not None else ProcessShare()
    one_pass = Pass(model, Subset(source, rest), reading, wanted, decode, hooks.numbered(rest), share)
    for i, found in ((rest[at], found) for at, found in one_pass.predictions()):
        clip = [replace(one, index=i, warning=_with_note(one, source.has_changed(i))) for one in found]
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


def _as_prediction(key: str, clip: object) -> Prediction:
    if isinstance(clip, ClipError):
        return failed(key, clip.reason, (), stage=clip.stage)
    one = Prediction(key, start_seconds=0.0)
    if not isinstance(clip, DecodedClip):
        return one
    told = "; ".join(clip.notes) or None
    return replace(one, end_seconds=round(clip.duration_seconds, 3), warning=told)


def _with_note(one: Prediction, is_changed: bool) -> str | None:
    return "; ".join(filter(None, (one.warning, CHANGED))) if is_changed else one.warning
