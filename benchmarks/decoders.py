"""decoders.py: the contenders of `decode.py`: bytes -> wanted frames and seconds of sound, each its own way."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from itertools import pairwise

import av
import numpy as np

NUM_FRAMES = 32
SPAN_SECONDS = 2.0
SAMPLE_RATE = 16_000

Result = tuple[np.ndarray, list[np.ndarray], int | None]
"""Frames, runs of sound, frames decoded."""
Decode = Callable[[bytes, np.ndarray], Result]
"""Of a clip's bytes and the places of the wanted frames among all, in order of time."""


def ours(backend: str, max_side: int | None = None) -> Decode:
    from viper_e2e.config import DecodingConfig
    from viper_e2e.decoding import ClipDecoder

    if backend == "decord":
        import torch  # noqa: F401
    decoder = ClipDecoder(DecodingConfig(backend=backend, max_side=max_side))

    def decode(data: bytes, wanted: np.ndarray) -> Result:
        clip = decoder(data)
        return clip.frames, [run.samples for run in clip.sound], decoder.frames_decoded

    return decode


def decode_all() -> Decode:
    """Every frame through the codec in one demux with the sound; only the wanted ones are converted."""
    from viper_e2e.config import LimitsConfig
    from viper_e2e.decoding import Deinterlacer, Scaler, open_clip, prepare_video_codec

    def decode(data: bytes, wanted: np.ndarray) -> Result:
        frames, seconds, blocks, number = [], [], [], 0
        with open_clip(data, LimitsConfig()) as media:
            prepare_video_codec(media)
            scaler, fields, is_wanted = Scaler(media, None), Deinterlacer(), set(wanted.tolist())

            def keep(whole) -> None:
                for index, frame in whole:
                    if index in is_wanted:
                        frames.append(scaler(frame))

            resampler = av.AudioResampler(format="fltp", rate=SAMPLE_RATE)
            streams = [stream for stream in (media.video, media.audio) if stream is not None]
            for packet in media.container.demux(streams):
                for frame in packet.decode():
                    if isinstance(frame, av.AudioFrame):
                        blocks += [block.to_ndarray().mean(0) for block in resampler.resample(frame)]
                        continue
                    if number in is_wanted:
                        seconds.append(frame.time)
                    keep(fields.push(number, frame))
                    number += 1
            keep(fields.finish())
        spans = merged(np.array(seconds) - seconds[0])
        return np.stack(frames), cut(np.concatenate(blocks) if blocks else np.zeros(0), spans), number

    return decode


def plain_decord() -> Decode:
    import torch  # noqa: F401  (its libraries must come first)
    from decord import AudioReader, VideoReader, cpu

    def decode(data: bytes, wanted: np.ndarray) -> Result:
        reader = VideoReader(io.BytesIO(data), ctx=cpu(0), num_threads=1)
        frames = reader.get_batch(wanted).asnumpy()
        seconds = reader.get_frame_timestamp(wanted)[:, 0]
        sound = AudioReader(io.BytesIO(data), ctx=cpu(0), sample_rate=SAMPLE_RATE, mono=True)
        return frames, cut(sound[:].asnumpy()[0], merged(seconds)), None

    return decode


def torchcodec_exact() -> Decode:
    from torchcodec.decoders import AudioDecoder, VideoDecoder

    def decode(data: bytes, wanted: np.ndarray) -> Result:
        decoder = VideoDecoder(data, seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NHWC")
        batch = decoder.get_frames_at(wanted.tolist())
        sound = AudioDecoder(data, sample_rate=SAMPLE_RATE, num_channels=1)
        end = sound.metadata.duration_seconds  # a webm has none in its header
        runs = [
            sound.get_samples_played_in_range(max(a, 0.0), min(b, end)).data[0].numpy()
            for a, b in merged(batch.pts_seconds.numpy())
        ]
        return batch.data.numpy(), runs, None

    return decode


def opencv_all() -> Decode:
    """`grab` every frame, `retrieve` the wanted ones; it has no sound, so PyAV decodes that."""
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "threads;1"
    import cv2

    cv2.setNumThreads(1)

    def decode(data: bytes, wanted: np.ndarray) -> Result:
        descriptor = os.memfd_create("clip")
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        capture = cv2.VideoCapture(f"/proc/self/fd/{descriptor}", cv2.CAP_FFMPEG)
        is_wanted = set(wanted.tolist())
        frames, number = [], 0
        while capture.grab():
            if number in is_wanted:
                frames.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
            number += 1
        seconds = wanted / capture.get(cv2.CAP_PROP_FPS)
        capture.release()
        os.close(descriptor)
        blocks = []
        with av.open(io.BytesIO(data)) as container:
            resampler = av.AudioResampler(format="fltp", rate=SAMPLE_RATE)
            for frame in container.decode(audio=0) if container.streams.audio else ():
                blocks += [block.to_ndarray().mean(0) for block in resampler.resample(frame)]
        return np.stack(frames), cut(np.concatenate(blocks) if blocks else np.zeros(0), merged(seconds)), number

    return decode


CONTENDERS: dict[str, tuple[str, Callable[[], Decode]]] = {
    "ours (PyAV)": ("av", lambda: ours("pyav")),
    "ours (PyAV), 640 px": ("av", lambda: ours("pyav", 640)),
    "ours (decord)": ("decord", lambda: ours("decord")),
    "PyAV decode-all": ("av", decode_all),
    "plain decord": ("decord", plain_decord),
    "torchcodec exact": ("torchcodec", torchcodec_exact),
    "OpenCV decode-all": ("cv2", opencv_all),
}


def wanted_frames(data: bytes) -> np.ndarray:
    """The frames shown at 32 even instants, by the times of all frames as decoding everything tells them."""
    from viper_e2e.config import LimitsConfig
    from viper_e2e.decoding import frames_by_time, open_clip

    with open_clip(data, LimitsConfig()) as media:
        pts = [frame.pts for frame in media.container.decode(media.video)]
    # An AVI's frames have decoding times, or none: as many as there are, evenly.
    known = None not in pts and all(a < b for a, b in pairwise(pts))
    return frames_by_time(np.array(pts if known else range(len(pts)), np.int64), NUM_FRAMES)


def merged(seconds: np.ndarray) -> list[tuple[float, float]]:
    spans: list[tuple[float, float]] = []
    for start, end in ((s - SPAN_SECONDS / 2, s + SPAN_SECONDS / 2) for s in seconds.tolist()):
        if spans and start <= spans[-1][1]:
            start = spans.pop()[0]
        spans.append((start, end))
    return spans


def cut(samples: np.ndarray, spans: list[tuple[float, float]]) -> list[np.ndarray]:
    return [samples[max(0, round(a * SAMPLE_RATE)) : round(b * SAMPLE_RATE)].copy() for a, b in spans]
