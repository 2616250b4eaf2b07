"""clocks.py: makes timestamps continuous that restart within a file, as in joined recordings."""

from __future__ import annotations

from collections import Counter, deque

import av

_BACK_SECONDS = 0.2
"""Decoding times never go back; by less they do where writers round."""
_AHEAD_SECONDS = 10.0
"""A leap of all streams together by more is another clock, as FFmpeg's own program has it; less is a gap."""
_FLAGS_BEFORE_JOIN = 8
"""Packets; FFmpeg's parser hands a flag to one that is a little earlier than the last."""


class RunningClock:
    """Sets packets, in the file's order, to a time that goes on where the file's own clock restarts.

    Where one part of a file ends and another begins, the new part begins when the last stream of the old one
    has ended; streams keep their places to one another.
    """

    def __init__(self, num_whole: Counter[int]):
        """`num_whole`: by stream, counts packets that are flagged as torn and are whole: the counter of a TS
        breaks off after them where two recordings are joined."""
        self._shift_seconds = 0.0
        self._ends: dict[int, float] = {}
        """End of each stream's last packet of this part."""
        self._last: dict[int, float] = {}
        """Begin of each stream's last packet."""
        self._old: dict[int, tuple[float, float]] = {}
        """Shift and end of the part before, of each stream that has not appeared in this part yet."""
        self._part_start = 0.0
        self._torn: dict[int, deque[bool]] = {}
        """Whether each stream's last packets are flagged as torn."""
        self._num_whole = num_whole
        num_whole.clear()

    def place(self, packet: av.Packet) -> None:
        """Change the packet's times."""
        stream = packet.stream.index
        torn = self._torn.setdefault(stream, deque(maxlen=_FLAGS_BEFORE_JOIN))
        if self._begins_part(packet):
            self._num_whole[stream] += sum(torn)
            torn.clear()
        torn.append(packet.is_corrupt)

    def _begins_part(self, packet: av.Packet) -> bool:
        """Move a packet; whether it is its stream's first in a part that is not the file's first."""
        if packet.dts is None:
            # A time of display says nothing: it goes back from picture to picture as it likes.
            self._move(packet, self._shift_seconds)
            return False
        stream, raw = packet.stream.index, float(packet.dts * packet.time_base)
        length = float((packet.duration or 0) * packet.time_base)
        if stream in self._old and self._belongs_to_old(stream, raw, length):
            self._move(packet, self._old[stream][0])
            return False
        begins = self._old.pop(stream, None) is not None
        at = raw + self._shift_seconds
        if stream in self._ends and self._restarts(at, stream):
            part_start = max(self._ends.values())
            self._old = {i: (self._shift_seconds, e) for i, e in self._ends.items() if i != stream}
            self._shift_seconds += part_start - at
            self._part_start, at, self._ends, begins = part_start, part_start, {}, True
        self._last[stream] = at
        self._ends[stream] = max(at + length, self._ends.get(stream, at))
        self._move(packet, self._shift_seconds)
        return begins

    def _restarts(self, at: float, stream: int) -> bool:
        if at < self._last[stream] - _BACK_SECONDS:
            return True
        others = [end for other, end in self._ends.items() if other != stream]
        far = at - self._ends[stream] > _AHEAD_SECONDS
        return far and bool(others) and all(at - end > _AHEAD_SECONDS for end in others)

    def _belongs_to_old(self, stream: int, raw: float, length: float) -> bool:
        shift, end = self._old[stream]
        fits_old = abs(raw + shift - end) < 1.0
        fits_new = abs(raw + self._shift_seconds - self._part_start) < 1.0
        if fits_old and not fits_new:
            self._old[stream] = shift, raw + shift + length
        return fits_old and not fits_new

    @staticmethod
    def _move(packet: av.Packet, seconds: float) -> None:
        if seconds:
            ticks = round(seconds / packet.time_base)
            if packet.pts is not None:
                packet.pts += ticks
            if packet.dts is not None:
                packet.dts += ticks
