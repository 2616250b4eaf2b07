"""divx.py: rewrites MPEG-4 in AVI as DivX 5 wrote it: a B-frame in the packet of the picture before it."""

from __future__ import annotations

from pathlib import Path

import av

_VOP = b"\0\0\1\xb6"
_MARK = b"\0\0\1\xb2DivX503b1393p"
"""User data by which decoders know such a stream."""
_B_VOP = 2


def packed(source: Path, target: Path) -> Path:
    """The same pictures and sound, packed; each packet that lost its picture has an empty one (N-VOP)."""
    with av.open(str(source)) as film, av.open(str(target), "w") as made:
        streams = {stream.index: made.add_stream_from_template(stream, opaque=True) for stream in film.streams}
        video = film.streams.video[0]
        pictures = [p for p in film.demux(video) if p.size]
        contents = _packed([bytes(packet) for packet in pictures])
        for packet, content in zip(pictures, contents, strict=True):
            _mux(made, streams[video.index], packet, content)
        film.seek(0)
        for packet in film.demux(film.streams.audio):
            if packet.size:
                _mux(made, streams[packet.stream.index], packet, bytes(packet))
    return target


def _mux(made: av.container.OutputContainer, stream: av.stream.Stream, old: av.Packet, content: bytes) -> None:
    packet = av.Packet(content)
    packet.dts = packet.pts = old.dts
    packet.time_base, packet.duration, packet.is_keyframe = old.time_base, old.duration, old.is_keyframe
    packet.stream = stream
    made.mux(packet)


def _packed(pictures: list[bytes]) -> list[bytes]:
    """In the order of decoding: the reference, then its B-frames. I B B P … as I, P+B, N, B …"""
    made, number = [], 0
    while number < len(pictures):
        content = pictures[number]
        if number == 0:
            at = content.index(_VOP)
            content = content[:at] + _MARK + content[at:]
        behind = pictures[number + 1 :][:2]
        are_b = [_kind(picture) == _B_VOP for picture in behind]
        if are_b and are_b[0]:
            # With two, the second waits in the packet of the first: that is as deep as DivX goes.
            run = behind if are_b == [True, True] else behind[:1]
            made += [content + run[0], *run[1:], _empty_like(behind[-1] if len(run) == 2 else run[0])]
            number += 1 + len(run)
        else:
            made.append(content)
            number += 1
    return made


def _kind(picture: bytes) -> int:
    return picture[picture.index(_VOP) + 4] >> 6


def _empty_like(picture: bytes) -> bytes:
    """A VOP that is not coded: type P, no whole second, marker, time (5 bits at 25 a second), marker, 0."""
    bits = "01" + "0" + "1" + "00000" + "1" + "0"
    bits += "0" + "1" * (-(len(bits) + 1) % 8)
    return _VOP + int(bits, 2).to_bytes(len(bits) // 8, "big")
