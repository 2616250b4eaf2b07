"""bombs.py: small files that ask for much memory."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av


def one_large_frame(path: Path, codec: str = "libx264") -> bytes:
    """A clip of one picture of 8192×4608, which is all black."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 8192, 4608, "yuv420p"
        frame = av.VideoFrame(8192, 4608, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.pts, frame.time_base = 0, Fraction(1, 10)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()
