"""av1.py: whether other pictures refer to an AV1 packet, by its headers; if not, it need not be decoded.

FFmpeg's AV1 decoder decides once, at its start, whether to skip pictures that nothing refers to; here they are
left out one by one, before it sees them. Only the beginnings of headers are read, as the AV1 specification
(version 1.0.0 with errata 1) lays them out: units (OBU, 5.3), the sequence header (5.5), frame headers up to
`refresh_frame_flags` (5.9). Whatever is unusual there (layers, decoder models, frame numbers, still pictures)
counts as referred to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_SEQUENCE_HEADER, _FRAME_HEADER, _TILE_GROUP, _FRAME, _REDUNDANT_FRAME_HEADER = 1, 3, 4, 6, 7
_KEY_FRAME, _INTRA_ONLY_FRAME, _SWITCH_FRAME = 0, 2, 3
_CONFIGURATION_RECORD = 0x81
"""Its first byte: marker and version."""
_SELECT = 2
"""A choice that each frame makes for itself."""
_HEADER_BYTES = 64
"""Bytes of a header that are read at most."""


@dataclass(frozen=True)
class _Sequence:
    """A sequence header, as far as the frame headers after it depend on it."""

    screen_content_tools: int
    integer_motion: int
    order_hint_bits: int


class References:
    """Reads a stream's packets in their order and tells what of each is needed for pictures that come later."""

    def __init__(self, extradata: bytes | None):
        """`extradata`: of the codec; an AV1CodecConfigurationRecord has 4 bytes before its sequence header."""
        self._sequence: _Sequence | None = None
        if extradata and extradata[0] == _CONFIGURATION_RECORD:
            self.needed_part(memoryview(extradata)[4:])

    def needed_part(self, packet: memoryview) -> bytes | memoryview:
        """The packet (a temporal unit) without frames that nothing refers to; all of it if that is unclear."""
        needed, is_needed = [], True
        for kind, unit, content in _units(packet):
            if kind < 0:
                return packet
            if kind == _SEQUENCE_HEADER:
                self._sequence = _read_sequence(_Bits(content))
            if kind in (_FRAME_HEADER, _FRAME):
                is_needed = self._sequence is None or _is_kept(_Bits(content), self._sequence)
            if is_needed or kind not in (_FRAME_HEADER, _FRAME, _TILE_GROUP, _REDUNDANT_FRAME_HEADER):
                needed.append(unit)
            if kind == _FRAME:
                is_needed = True
        size = sum(map(len, needed))
        return packet if size == len(packet) else b"".join(needed)


class _Bits:
    """A reader of big-endian bits; after the end there are ones, so that nothing looks unreferred to."""

    def __init__(self, data: memoryview):
        head = bytes(data[:_HEADER_BYTES])
        self._value = int.from_bytes(head + b"\xff" * (_HEADER_BYTES - len(head)))
        self._left = 8 * _HEADER_BYTES

    def take(self, count: int) -> int:
        self._left = max(0, self._left - count)
        return self._value >> self._left & (1 << count) - 1


def _units(packet: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """(type, all of it, content) of each open bitstream unit; a type of -1 where they do not add up."""
    at = 0
    while at < len(packet):
        start, kind, has_extension, has_size = (
            at,
            packet[at] >> 3 & 15,
            packet[at] >> 2 & 1,
            packet[at] >> 1 & 1,
        )
        at += 1 + has_extension
        size = len(packet) - at
        if has_size:
            size, num_bytes = _leb128(packet[at : at + 8])
            at += num_bytes
        if size < 0 or at + size > len(packet):
            yield -1, packet[:0], packet[:0]
            return
        yield kind, packet[start : at + size], packet[at : at + size]
        at += size


def _leb128(data: memoryview) -> tuple[int, int]:
    """(number, bytes it is written in); a negative number where it does not end."""
    value = 0
    for index, byte in enumerate(data):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, index + 1
    return -1, len(data)


def _read_sequence(bits: _Bits) -> _Sequence | None:
    """None for a sequence whose frame headers are not read here."""
    bits.take(3)  # seq_profile
    bits.take(1)  # still_picture
    if bits.take(1):  # reduced_still_picture_header
        return None
    if bits.take(1):  # timing_info_present_flag
        bits.take(64)
        if bits.take(1):  # equal_picture_interval: a number in Exp-Golomb code
            zeros = 0
            while not bits.take(1) and zeros < 32:
                zeros += 1
            bits.take(zeros)
        if bits.take(1):  # decoder_model_info_present_flag
            return None
    has_display_delay = bits.take(1)
    if bits.take(5) or bits.take(12):  # several operating points, or one that leaves layers out
        return None
    if bits.take(5) > 7:  # seq_level_idx
        bits.take(1)  # seq_tier
    if has_display_delay and bits.take(1):
        bits.take(4)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    bits.take(width_bits + height_bits)
    if bits.take(1):  # frame_id_numbers_present_flag
        return None
    bits.take(3 + 4)  # superblocks, intra filters; ways of inter prediction
    has_order_hint = bits.take(1)
    if has_order_hint:
        bits.take(2)
    screen_content_tools = _SELECT if bits.take(1) else bits.take(1)
    integer_motion = _SELECT
    if screen_content_tools:
        integer_motion = _SELECT if bits.take(1) else bits.take(1)
    return _Sequence(screen_content_tools, integer_motion, bits.take(3) + 1 if has_order_hint else 0)


def _is_kept(bits: _Bits, sequence: _Sequence) -> bool:
    """Whether a frame header says that the frame is kept for others to refer to."""
    if bits.take(1):  # show_existing_frame: costs nothing, and may renew everything
        return True
    frame_type, is_shown = bits.take(2), bits.take(1)
    if frame_type == _SWITCH_FRAME or (frame_type == _KEY_FRAME and is_shown):
        return True
    if not is_shown:
        bits.take(1)  # showable_frame
    is_resilient = bits.take(1)
    bits.take(1)  # disable_cdf_update
    tools = bits.take(1) if sequence.screen_content_tools == _SELECT else sequence.screen_content_tools
    if tools and sequence.integer_motion == _SELECT:
        bits.take(1)
    bits.take(1)  # frame_size_override_flag
    bits.take(sequence.order_hint_bits)
    if frame_type not in (_KEY_FRAME, _INTRA_ONLY_FRAME) and not is_resilient:
        bits.take(3)  # primary_ref_frame
    return bits.take(8) != 0  # refresh_frame_flags
