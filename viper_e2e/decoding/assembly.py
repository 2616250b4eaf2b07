"""assembly.py: puts frames and sound, as they come, into the windows that wait for them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np

from viper_e2e.clip import DecodedClip, Pixels, SoundRun
from viper_e2e.decoding.attempts import RescanNeeded
from viper_e2e.decoding.plan import Plan, Window, sound_notes
from viper_e2e.decoding.sound import SoundReader


@runtime_checkable
class Pictures(Protocol):
    """Interface of every backend."""

    @property
    def num_decoded(self) -> int | None: ...
    @property
    def display_size(self) -> tuple[int, int]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...

    def __iter__(self) -> Iterator[tuple[int, Pixels]]:
        """(index in the timeline, uint8 ``H W 3``) of each wanted frame, ascending."""
        ...


class Assembly:
    """Hands out each window as soon as its last frame and its last sound are there, then lets go of both."""

    def __init__(
        self,
        plan: Plan,
        first: int,
        pictures: Pictures,
        sound: SoundReader | None,
        name: str,
        has_sound: bool,
        notes: tuple[str, ...] = (),
    ):
        """`first`: number of the first window to hand out. `name`, `has_sound`, `notes` go into the clips."""
        self._plan, self._pictures, self._sound = plan, pictures, sound
        self._name, self._has_sound, self._notes = name, has_sound, notes
        self._windows = plan.windows(first)
        self._window = next(self._windows, None)
        self._images: dict[int, Pixels] = {}
        """Images of windows, which may share frames."""
        self._stack: Pixels | None = None
        """Images of a clip that is its own only window."""
        self._stacked = np.zeros(0, np.int64) if self._window is None else self._window.frames
        self._is_stacked = np.zeros(len(self._stacked), bool)

    def __iter__(self) -> Iterator[tuple[Window, DecodedClip]]:
        """Raises `RescanNeeded`."""
        for index, image in self._pictures:
            self._store(index, image)
            while self._window is not None and self._is_complete(self._window, index):
                yield self._hand_out(self._window)
            if self._window is None:
                return
        if self._sound is not None:
            self._sound.read_until(math.inf)
        while self._window is not None:
            yield self._hand_out(self._window)

    def _store(self, index: int, image: Pixels) -> None:
        if self._plan.is_tiled:
            self._images[index] = image
            return
        # Straight to where it will be handed out: fresh memory costs as much as the copy.
        if self._stack is None:
            self._stack = _room_for(len(self._is_stacked), image)
        place = int(np.searchsorted(self._stacked, index))
        self._stack[place], self._is_stacked[place] = image, True

    def _is_complete(self, window: Window, last_index: int) -> bool:
        if last_index < window.frames[-1]:
            return False
        if self._sound is None or not window.spans:
            return True
        end = window.spans[-1][1]
        self._sound.read_until(end)
        return self._sound.reached_seconds >= end

    def _hand_out(self, window: Window) -> tuple[Window, DecodedClip]:
        self._window = next(self._windows, None)
        # Frames of the next window stay; the others go as they are copied, so that memory holds them once.
        kept_from = int(self._window.frames[0]) if self._window is not None else sys.maxsize
        frames = self._take(window.frames, kept_from)
        for index in [index for index in self._images if index < kept_from]:
            del self._images[index]
        runs = tuple(run for span in window.spans for run in self._sound.cut(*span)) if self._sound else ()
        if self._sound is not None and self._window is not None and self._window.spans:
            self._sound.forget(self._window.spans[0][0])
        return window, self._clip(window, frames, runs)

    def _take(self, indices: np.ndarray, kept_from: int) -> Pixels:
        if not self._plan.is_tiled:
            if self._stack is None or not self._is_stacked.all():
                raise RescanNeeded
            return self._stack
        wanted: list[int] = indices.tolist()
        if not self._images.keys() >= set(wanted):
            raise RescanNeeded
        frames = _room_for(len(wanted), self._images[wanted[0]])
        for place, index in enumerate(wanted):
            frames[place] = self._images[index] if index >= kept_from else self._images.pop(index)
        return frames

    def _clip(self, window: Window, frames: Pixels, runs: tuple[SoundRun, ...]) -> DecodedClip:
        plan, config = self._plan, self._plan.config
        # A window's times count from its start, those of a whole clip from its first frame.
        start = window.start_seconds if plan.is_part else 0.0
        length = window.end_seconds - window.start_seconds
        if start:
            runs = tuple(SoundRun(run.start_seconds - start, run.samples) for run in runs)
        sound_seconds = window.sound_bounds[1] - window.sound_bounds[0]
        if config.sound == "windows":
            sound_seconds = sum(len(run.samples) for run in runs) / config.sample_rate
        heard = self._sound.notes if self._sound is not None else ()
        return DecodedClip(
            name=self._name,
            frames=frames,
            # A picture that stands since before the window is its first.
            frame_seconds=np.clip(plan.seconds[window.frames] - start, 0.0, max(length, 0.0)),
            duration_seconds=length,
            sound=runs,
            has_sound=self._has_sound,
            sound_seconds=sound_seconds,
            sound_instants=window.instants - start,
            unheard_seconds=window.unheard_seconds,
            display_size=self._pictures.display_size,
            notes=(*self._notes, *self._pictures.notes, *heard, *sound_notes(window, config)),
        )


def _room_for(count: int, image: Pixels) -> Pixels:
    """An empty row of pictures like this one, in its kind of memory."""
    shape = (count, *image.shape)
    return np.empty(shape, np.uint8) if isinstance(image, np.ndarray) else image[:0].new_empty(shape)
