"""generated_reference.py: a small reference in the layout of the published one: clip, weights, numbers.

The expected numbers come from a plain rewriting of the published scripts (Vaiani et al. 2022): every frame is
decoded, frames and crops go through JPEG files, features come straight from transformers and open_clip, outputs
from the pickled module. Nothing of viper_e2e is imported here, so nothing of it is tested against itself.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import av
import numpy as np
import open_clip
import torch
from facenet_pytorch import MTCNN
from PIL import Image
from safetensors.torch import save_file
from skimage.data import astronaut
from torch import nn
from transformers import (
    PerceiverConfig,
    PerceiverModel,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizerFast,
    ViTConfig,
    ViTModel,
    WavLMConfig,
    WavLMForXVector,
)
from transformers.models.perceiver.modeling_perceiver import PerceiverClassificationDecoder

NUM_TOKENS, RATE = 32, 16_000
NUM_FRAMES, FPS, WIDTH, HEIGHT = 50, 20, 320, 240
H264 = {"crf": "16", "x264-params": "mbtree=0"}
"""Macroblock trees are off: as built into PyAV's wheels, they give other bytes for the same frames at times."""

SENTENCES = [
    f"a {face} face {mood}"
    for face in ("calm", "laughing", "frightened", "disgusted", "surprised")
    for mood in ("looks up", "looks away", "smiles", "cries", "is in the dark", "is seen from near")
]


def make_reference(folder: Path) -> Path:
    """Fill ``folder/peer`` as ``$VIPER_REFERENCE/peer`` is filled; the same bytes of weights each time."""
    peer = folder / "peer"
    torch.manual_seed(0)
    for part in ("clips", "checkpoints", "expected/crops"):
        (peer / part).mkdir(parents=True)
    sound = write_clip(peer / "clips")
    vit, wavlm = write_vit(peer / "checkpoints/vit"), write_wavlm(peer / "checkpoints/wavlm")
    clip, roberta = write_clip_model(peer / "checkpoints/clip"), write_roberta(peer / "checkpoints/roberta")
    (peer / "templates.json").write_text(json.dumps(SENTENCES))
    indices, crops = extract_crops(peer / "clips/single_face.mp4", peer / "expected")
    generator = np.random.default_rng(0)
    features = {
        "visual": visual_features(vit, crops),
        "audio": audio_features(wavlm, sound),
        "fau": generator.random((NUM_TOKENS, 27), dtype=np.float32),
    }
    chosen, features["textual"] = textual_features(clip, *roberta, crops)
    padded = np.pad(features["fau"], ((0, 0), (0, 5)))
    pairs = {"ViPER-VA": features["audio"], "ViPER-VF": padded}
    logits = {
        name: released_outputs(peer / "published" / name, np.hstack([features["visual"], other]))
        for name, other in pairs.items()
    }
    np.savez(peer / "expected/features.npz", **features)
    expected = {"frame_indices": indices, "template_indices": chosen, "logits": logits}
    (peer / "expected/expected.json").write_text(json.dumps(expected))
    return folder


# --- the clip -------------------------------------------------------------------------------------


def write_clip(folder: Path) -> np.ndarray:
    """A photographed face that moves and changes in light, with stereo sound; returns the mean at 16 kHz."""
    photograph = Image.fromarray(astronaut())
    with av.open(str(folder / "single_face.mp4"), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options=H264)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream("alac", rate=44_100, layout="stereo")
        for i in range(NUM_FRAMES):
            # From near to far and from left to right, ever darker: no two frames are alike.
            zoom, left = 1 - 0.3 * i / NUM_FRAMES, 60 + 60 * i / NUM_FRAMES
            box = (left, 10, left + WIDTH * zoom, 10 + HEIGHT * zoom)
            picture = photograph.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box=box)
            pixels = np.asarray(picture, np.float32) * (1 - 0.5 * i / NUM_FRAMES)
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels.astype(np.uint8), format="rgb24")))
        container.mux(video.encode(None))
        stereo = np.stack(voice(44_100))
        pcm = (np.clip(stereo, -1, 1) * 32767).round().astype(np.int16)
        block = av.AudioFrame.from_ndarray(pcm, format="s16p", layout="stereo")
        block.sample_rate, block.pts = 44_100, 0
        fifo = av.AudioFifo()
        fifo.write(block)
        while (piece := fifo.read(4096, partial=True)) is not None:
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))
    mono = np.mean(voice(RATE), axis=0)
    write_wav(folder / "single_face.wav", mono)
    return (mono * 32767).round().astype(np.int16).astype(np.float32) / 32768


def voice(rate: int) -> list[np.ndarray]:
    """Left and right, known at every instant: the mean can be had at any rate without resampling."""
    t = np.arange(round(NUM_FRAMES / FPS * rate)) / rate
    fade = np.minimum(1, np.minimum(t, NUM_FRAMES / FPS - t) / 0.05)
    hertz = 150 + 60 * t
    left = sum(np.sin(2 * np.pi * k * hertz * t) / k for k in (1, 2, 5)) * np.sin(3 * t) ** 2
    right = np.sin(2 * np.pi * 700 * t) * np.cos(5 * t) ** 2
    return [(0.3 * fade * left).astype(np.float32), (0.2 * fade * right).astype(np.float32)]


def write_wav(path: Path, samples: np.ndarray) -> None:
    import wave

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())


# --- weights in the released formats --------------------------------------------------------------


def _shaken(model: nn.Module, scale: float, seed: int) -> nn.Module:
    """Weights large enough that outputs differ plainly from input to input."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def write_vit(folder: Path) -> ViTModel:
    config = ViTConfig(num_hidden_layers=1, intermediate_size=64)
    model = _shaken(ViTModel(config, add_pooling_layer=False), 0.08, 1)
    model.save_pretrained(folder)
    # As older checkpoints have it: a type that transformers 5 refuses to know.
    values = {
        "image_processor_type": "ViTFeatureExtractor",
        "resample": 2,
        "size": {"height": 224, "width": 224},
    }
    values |= {"do_normalize": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return model


def write_wavlm(folder: Path) -> WavLMForXVector:
    config = WavLMConfig(
        conv_dim=[16] * 7,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        tdnn_dim=[32, 32, 32, 32, 48],
        xvector_output_dim=512,
    )
    model = _shaken(WavLMForXVector(config), 0.2, 2)
    model.save_pretrained(folder)
    values = {"do_normalize": False, "feature_size": 1, "padding_value": 0.0, "sampling_rate": RATE}
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return model


def write_clip_model(folder: Path) -> open_clip.CLIP:
    """An OpenAI CLIP state dict in its original names, with their three scalars: QuickGELU."""
    sizes = {
        "vision_cfg": {"image_size": 224, "layers": 1, "width": 64, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }
    model = _shaken(open_clip.CLIP(embed_dim=32, quick_gelu=True, **sizes), 0.2, 3)
    folder.mkdir()
    scalars = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(
        tensors | {name: torch.tensor(value) for name, value in scalars.items()}, folder / "model.safetensors"
    )
    return model


def write_roberta(folder: Path) -> tuple[RobertaModel, RobertaTokenizerFast]:
    folder.mkdir()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = sorted(open_clip.tokenizer.bytes_to_unicode().values())
    vocabulary = {word: i for i, word in enumerate([*specials, *alphabet, "Ġf", "ac", "Ġfac", "<mask>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\nĠ f\na c\nĠf ac\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer"}))
    config = RobertaConfig(
        vocab_size=len(vocabulary), num_hidden_layers=1, intermediate_size=64, max_position_embeddings=40
    )
    model = _shaken(RobertaModel(config, add_pooling_layer=False), 0.08, 4)
    model.save_pretrained(folder)
    files = {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
    return model, RobertaTokenizerFast(**files)


# --- what the published scripts do ----------------------------------------------------------------


def published_indices(num_frames: int) -> list[int]:
    """First, then every N / 31 rounded, then the last."""
    step = num_frames / (NUM_TOKENS - 1)
    return [0, *(round(step * k) for k in range(1, NUM_TOKENS - 1)), num_frames - 1]


def decode(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def extract_crops(clip: Path, expected: Path) -> tuple[list[int], list[Image.Image]]:
    """Frames through JPEG, the first box of each truncated by ``int()``, crops through JPEG again."""
    frames = decode(clip)
    indices = published_indices(len(frames))
    detector = MTCNN(keep_all=True, min_face_size=60)
    boxes, crops = {}, []
    for index in indices:
        frame = through_jpeg(Image.fromarray(frames[index]))
        found, _ = detector.detect(frame)
        boxes[str(index)] = [float(value) for value in found[0]]
        crop = frame.crop([int(value) for value in found[0]])
        path = expected / f"crops/frame_{index}.jpg"
        crop.save(path, quality=95)
        crops.append(Image.open(path).convert("RGB"))
    (expected / "boxes.json").write_text(json.dumps(boxes))
    return indices, crops


def through_jpeg(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95)
    return Image.open(file).convert("RGB")


@torch.no_grad()
def visual_features(model: ViTModel, crops: list[Image.Image]) -> np.ndarray:
    resized = [np.asarray(crop.resize((224, 224), Image.Resampling.BILINEAR)) for crop in crops]
    pixels = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2) / 255
    return model((pixels - 0.5) / 0.5).last_hidden_state[:, 0].numpy()


@torch.no_grad()
def audio_features(model: WavLMForXVector, sound: np.ndarray) -> np.ndarray:
    """32 half-overlapping windows over the whole sound, each cut or padded to one second."""
    length = 2 * len(sound) / (NUM_TOKENS + 1)
    windows = []
    for k in range(NUM_TOKENS):
        window = sound[int(k * length / 2) : int(k * length / 2 + length)][:RATE]
        windows.append(np.pad(window, (0, RATE - len(window))))
    return model(torch.from_numpy(np.stack(windows))).embeddings.numpy()


@torch.no_grad()
def textual_features(
    clip: open_clip.CLIP, roberta: RobertaModel, tokenizer: RobertaTokenizerFast, crops: list[Image.Image]
) -> tuple[list[int], np.ndarray]:
    prepare = open_clip.image_transform(224, is_train=False)
    faces = clip.encode_image(torch.stack([prepare(crop) for crop in crops]), normalize=True)
    words = clip.encode_text(open_clip.SimpleTokenizer()(SENTENCES), normalize=True)
    chosen = (faces @ words.T).argmax(1)
    batch = tokenizer(SENTENCES, padding="max_length", truncation=True, max_length=16, return_tensors="pt")
    rows = roberta(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state[:, 0]
    return chosen.tolist(), rows[chosen].numpy()


@torch.no_grad()
def released_outputs(folder: Path, features: np.ndarray) -> list[float]:
    """Save a whole pickled module as the authors released theirs; its outputs for these features."""
    config = PerceiverConfig(
        d_model=features.shape[1],
        num_labels=7,
        num_latents=8,
        d_latents=32,
        num_self_attends_per_block=2,
        num_self_attention_heads=4,
        num_cross_attention_heads=4,
    )
    positions = {"num_channels": config.d_latents, "index_dims": 1}
    decoder = PerceiverClassificationDecoder(
        config,
        num_channels=config.d_latents,
        trainable_position_encoding_kwargs=positions,
        use_query_residual=True,
    )
    model = _shaken(PerceiverModel(config, decoder=decoder), 0.25, 5)
    folder.mkdir(parents=True)
    torch.save(model, folder / "perceiver_2.model")
    return model(inputs=torch.from_numpy(features).float()[None]).logits[0].tolist()
