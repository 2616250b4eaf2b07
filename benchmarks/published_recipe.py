"""published_recipe.py: the published recipe as passes with files in between, after the authors' scripts."""

from __future__ import annotations

import argparse
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from facenet_pytorch import MTCNN
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as pixels

from viper_e2e.clip import CropSpec
from viper_e2e.encoders import ClipSound, Stream
from viper_e2e.labels import HUME_REACTION
from viper_e2e.model import ViPER
from viper_e2e.training import IntensityLoss

JPEG_QUALITY = 95
"""As OpenCV writes them."""


def extract_frames(video: Path, folder: Path, num_frames: int) -> None:
    """Decode all, keep some as JPEG, the whole sound as wav."""
    folder.mkdir(parents=True)
    sound, times, number = [], [], 0
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type = "NONE"
        wanted = set((np.linspace(0, stream.frames - 1, num_frames) + 1e-6).astype(int).tolist())
        resampler = av.AudioResampler(format="fltp", rate=16_000)
        for packet in container.demux(stream, container.streams.audio[0]):
            for frame in packet.decode():
                if isinstance(frame, av.AudioFrame):
                    sound += [block.to_ndarray().mean(0) for block in resampler.resample(frame)]
                    continue
                if number in wanted:
                    times.append(frame.time)
                    frame.to_image().save(folder / f"{len(times):02d}.jpg", quality=JPEG_QUALITY)
                number += 1
    with wave.open(str(folder / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((np.concatenate(sound).clip(-1, 1) * 32767).astype(np.int16).tobytes())
    np.save(folder / "seconds.npy", np.array(times, np.float32))


def read_images(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.jpg"))]


def save_crops(frames: list[np.ndarray], boxes: Any, folder: Path) -> None:
    """The first box of each frame, truncated to whole pixels; the whole frame where there is none."""
    folder.mkdir(parents=True)
    for number, (frame, found) in enumerate(zip(frames, boxes, strict=True)):
        if found is not None:
            x0, y0, x1, y1 = (max(0, int(side)) for side in found[0])
            frame = frame[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
        Image.fromarray(frame).save(folder / f"{number:02d}.jpg", quality=JPEG_QUALITY)


def prepared(folder: Path, spec: CropSpec) -> torch.Tensor:
    """Crops as an encoder wants them, read from their files."""
    size = [spec.size] * (2 if spec.aspect == "squash" else 1)
    crops = []
    for image in read_images(folder):
        face = pixels.resize(torch.from_numpy(image.copy()).permute(2, 0, 1), size, antialias=True)
        crops.append(pixels.center_crop(face, [spec.size, spec.size]))
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    return (torch.stack(crops).float() / 255 - mean) / std


def read_sound(folder: Path) -> ClipSound:
    with wave.open(str(folder / "sound.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16) / np.float32(32768)
    seconds = torch.from_numpy(np.load(folder / "seconds.npy"))
    return ClipSound([(0.0, torch.from_numpy(samples))], seconds, len(samples) / 16_000)


class Folders(Dataset):
    """One item per clip: whatever a function of its name gives."""

    def __init__(self, names: list[str], read: Callable[[str], Any]):
        self.names, self.read = names, read

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[str, Any]:
        return self.names[index], self.read(self.names[index])


def ahead(names: list[str], read: Callable[[str], Any], workers: int) -> Iterator[tuple[str, Any]]:
    yield from DataLoader(Folders(names, read), batch_size=None, num_workers=workers, collate_fn=_as_it_is)


def _as_it_is(item: tuple[str, Any]) -> tuple[str, Any]:
    return item


@torch.no_grad()
def make_features(model: ViPER, videos: Path, work: Path, names: list[str], workers: int) -> None:
    """Passes one to five."""
    count, faces = model.config.decoding.num_frames, model.config.faces
    for _ in ahead(
        names, lambda n: extract_frames(videos / f"{n}.mp4", work / "frames" / n, count) or 0, workers
    ):
        pass
    detector = MTCNN(min_face_size=faces.min_face_size, thresholds=list(faces.thresholds))
    for name, frames in ahead(names, lambda n: read_images(work / "frames" / n), workers):
        save_crops(frames, detector.detect(np.stack(frames))[0], work / "crops" / name)
    for modality, encoder in model.encoders.items():
        (work / modality).mkdir()
        if modality == "audio":
            for name, sound in ahead(names, lambda n: read_sound(work / "frames" / n), workers):
                np.save(work / modality / f"{name}.npy", encoder([sound]).tokens[0].numpy())
            continue
        spec = encoder.crop_spec
        for name, crops in ahead(names, lambda n, spec=spec: prepared(work / "crops" / n, spec), workers):
            np.save(work / modality / f"{name}.npy", encoder.embed(crops).numpy())


def train_on_features(
    model: ViPER,
    work: Path,
    labels: dict[str, list[float]],
    args: argparse.Namespace,
    told: Callable[[], None],
) -> None:
    """The last pass; `told` is called after every epoch."""
    names, modalities = sorted(labels), list(model.encoders)
    loss_of = IntensityLoss({"mse": 1.0}, len(HUME_REACTION))
    optimizer = torch.optim.AdamW(model.fusion.parameters(), lr=1e-3)

    def read(name: str) -> tuple[list[np.ndarray], np.ndarray, list[float]]:
        tokens = [np.load(work / modality / f"{name}.npy") for modality in modalities]
        return tokens, np.load(work / "frames" / name / "seconds.npy"), labels[name]

    def together(rows: list[tuple[str, Any]]) -> Any:
        tokens, seconds, targets = zip(*(row for _, row in rows), strict=True)
        columns = [torch.from_numpy(np.stack(column)) for column in zip(*tokens, strict=True)]
        return columns, torch.from_numpy(np.stack(seconds)), torch.tensor(targets)

    loader = DataLoader(
        Folders(names, read), args.batch_size, shuffle=True, num_workers=args.workers, collate_fn=together
    )
    for _ in range(args.epochs):
        for columns, seconds, targets in loader:
            there = torch.ones(seconds.shape, dtype=torch.bool)
            streams = {
                name: Stream(tokens, there, there, seconds)
                for name, tokens in zip(modalities, columns, strict=True)
            }
            output = model.fusion(streams, there, seconds[:, -1], None)
            weights = torch.ones(len(targets))
            loss = loss_of(output, targets, weights, weights.sum(), None, 0).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.fusion.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        torch.save(model.fusion.state_dict(), work / "model.pt")
        told()
