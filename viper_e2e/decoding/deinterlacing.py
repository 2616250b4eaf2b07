"""deinterlacing.py: makes interlaced pictures whole by FFmpeg's bwdif, one frame out of each two fields."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
from av.filter import Graph

from viper_e2e.decoding.attempts import RescanNeeded
from viper_e2e.decoding.picture import new_buffer

Numbered = tuple[int, av.VideoFrame]
"""A frame and its place in the clip."""


def with_neighbours(wanted: np.ndarray) -> np.ndarray:
    """Bool mask of the wanted frames and of those before and after each."""
    mask = wanted.copy()
    mask[1:] |= wanted[:-1]
    mask[:-1] |= wanted[1:]
    return mask


class Deinterlacer:
    """Frames in order of time in, the same frames out, those flagged as interlaced made whole.

    Each frame by its own flag; exactly FFmpeg's ``bwdif=mode=send_frame:deint=interlaced`` on the whole clip,
    though frames that are no neighbours of a wanted one need not come in.
    """

    def __init__(self, wanted: np.ndarray | None = None):
        """`wanted`: bool mask over the clip's frames; None: all, however many there are."""
        self._wanted = wanted
        self._before: Numbered | None = None
        self._current: Numbered | None = None
        self._graph: Graph | None = None
        self._last_fed = -1

    def push(self, index: int, frame: av.VideoFrame) -> Iterator[Numbered]:
        """Frames that this one completes. Raises `RescanNeeded` if a wanted frame's neighbour is missing."""
        is_next = self._current is not None and index == self._current[0] + 1
        yield from self._settle((index, frame) if is_next else None)
        self._before = self._current if is_next else None
        self._current = index, frame

    def finish(self) -> Iterator[Numbered]:
        """The last frame."""
        yield from self._settle(None)
        self._before = self._current = None

    def _settle(self, after: Numbered | None) -> Iterator[Numbered]:
        if self._current is None:
            return
        index, frame = self._current
        if self._wanted is not None and not self._wanted[index]:
            return
        if not frame.interlaced_frame:
            yield index, frame
            return
        if self._wanted is not None and (
            (self._before is None and index > 0) or (after is None and index < len(self._wanted) - 1)
        ):
            raise RescanNeeded
        yield index, self._whole(index, frame, after)

    def _whole(self, index: int, frame: av.VideoFrame, after: Numbered | None) -> av.VideoFrame:
        before = self._before[1] if self._before is not None and _is_alike(self._before[1], frame) else None
        behind = after[1] if after is not None and _is_alike(after[1], frame) else None
        if self._graph is None or self._last_fed not in (index - 1, index):
            self._graph, self._last_fed = _new_graph(frame), index - 1
            if before is not None:
                _feed(self._graph, before)
        if self._last_fed == index - 1:
            _feed(self._graph, frame)
        whole = _feed(self._graph, behind)
        self._last_fed = index + 1
        if behind is None:
            self._graph = None  # it was told that the stream ends
        if whole is None:
            raise RescanNeeded
        return whole


def _feed(graph: Graph, frame: av.VideoFrame | None) -> av.VideoFrame | None:
    """The last picture that comes out after this one, or after the end."""
    graph.push(frame)
    last = None
    while True:
        try:
            last = graph.vpull()
        except (BlockingIOError, EOFError):
            return last


def _new_graph(frame: av.VideoFrame) -> Graph:
    graph = Graph()
    graph.threads = 1
    source = new_buffer(graph, frame)
    bwdif = graph.add("bwdif", mode="send_frame", parity="auto", deint="interlaced")
    graph.link_nodes(source, bwdif, graph.add("buffersink")).configure()
    return graph


def _is_alike(one: av.VideoFrame, other: av.VideoFrame) -> bool:
    return (one.width, one.height, one.format.name) == (other.width, other.height, other.format.name)
