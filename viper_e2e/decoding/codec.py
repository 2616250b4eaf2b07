"""codec.py: a clip's video codec: how it is set up, and what comes out of it that is whole."""

from __future__ import annotations

import math

import av
from av.error import FFmpegError

from viper_e2e.decoding.media import ClipMedia, reason_of
from viper_e2e.errors import ClipError

_ADVICE = "copy the file again, or leave the clip out"


def prepare_video_codec(media: ClipMedia) -> None:
    """Set up the video codec before its first packet: one thread, and no frame above the limits."""
    codec = media.video.codec_context
    # Frame threads decode ahead of what we ask for; parallelism is by process (`loading/workers.py`).
    codec.thread_type, codec.thread_count = "NONE", 1
    codec.options = {"max_pixels": str(media.limits.max_pixels)}


def can_skip(media: ClipMedia) -> bool:
    """Whether the decoder leaves out, packet by packet, pictures that nothing refers to, and only those.

    libdav1d (see `av1.py`), VP8 and VP9 decide once at the start. In HEVC with temporal layers "not referred
    to" holds for one layer only (H.265 7.4.2.2), so there all are decoded.
    """
    codec = media.video.codec_context
    if codec.name == "hevc":
        header = codec.extradata or b""
        # ISO/IEC 14496-15, HEVCDecoderConfigurationRecord: numTemporalLayers.
        return len(header) > 21 and header[0] == 1 and header[21] >> 3 & 7 == 1
    return codec.name in ("h264", "mpeg4", "mpeg2video", "mpeg1video")


def first_frame(media: ClipMedia) -> av.VideoFrame:
    """Decode from the file's position to its first frame. Raises `ClipError` (stage ``decode``)."""
    prepare_video_codec(media)
    try:
        frame = next(media.container.decode(media.video), None)
    except FFmpegError as error:
        raise media.fail(f"its first frame cannot be decoded ({reason_of(error)})", stage="decode") from error
    if not isinstance(frame, av.VideoFrame):
        raise media.fail("has a video stream without a frame", stage="decode")
    media.check_frame_size(frame.width, frame.height)
    return frame


def whole_frames(media: ClipMedia, packet: av.Packet | None) -> tuple[list[av.VideoFrame], ClipError | None]:
    """Frames that the video decoder gives for a packet (``None``: all that it still holds) up to the first that
    is damaged, also where the decoder painted over it, and what is wrong then (stage ``decode``)."""
    try:
        frames = media.video.codec_context.decode(packet)
    except FFmpegError:
        where = (
            "" if packet is None or packet.pts is None else f" at {float(packet.pts * packet.time_base):.2f} s"
        )
        return [], media.fail(f"a frame{where} cannot be decoded; {_ADVICE}", stage="decode")
    for i, frame in enumerate(frames):
        if frame.is_corrupt:
            where = f" at {frame.time:.2f} s" if math.isfinite(frame.time or 0.0) and frame.time else ""
            return frames[:i], media.fail(f"the frame{where} is damaged; {_ADVICE}", stage="decode")
        media.check_frame_size(frame.width, frame.height)
    return frames, None
