"""viper.py: ViPER, the one module: clips go in, reaction intensities come out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from viper_e2e.clip import DecodedClip, Sample
from viper_e2e.config.schema import LOOKING, MODALITIES, ModelConfig, backbones_of
from viper_e2e.decoding import ClipDecoder
from viper_e2e.encoders.action_units import ActionUnitEncoder
from viper_e2e.encoders.audio import AudioEncoder
from viper_e2e.encoders.base import Encoder
from viper_e2e.encoders.motion import MotionEncoder
from viper_e2e.encoders.textual import TextualEncoder
from viper_e2e.encoders.visual import VisualEncoder
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.faces import FaceCropper, FaceTrack
from viper_e2e.fusion import build_fusion, sample_hidden
from viper_e2e.fusion.scale import LabelScale
from viper_e2e.fusion.stream import Stream
from viper_e2e.labels import HUME_REACTION, LabelSet
from viper_e2e.model.augment import Augment
from viper_e2e.model.close_ups import CloseUps
from viper_e2e.model.inputs import EncoderInputs
from viper_e2e.model.output import ViPEROutput
from viper_e2e.model.prepared import ClipTokens, PreparedClip
from viper_e2e.model.pretrained import Pretrained
from viper_e2e.model.records import Record, records_of
from viper_e2e.model.transfer import Transfer

Clip = bytes | str | os.PathLike | Sample | DecodedClip | PreparedClip | ClipError | None
"""What the module takes: bytes, a path, a packed sample, or a clip further on its way. A
:class:`ClipError` or ``None`` holds the place of a clip that could not be read."""

Watch = Callable[[dict[str, Stream], Tensor, Tensor], None]
"""Gets streams, ``face_found`` (B T) and ``duration_seconds`` (B)."""


class ViPER(Pretrained, nn.Module):
    """From clips to reaction intensities in one forward pass, with nothing written in between.

    ``model(clips)`` decodes, finds and crops faces, encodes every modality and fuses them; training and
    inference call it alike. Backbones are frozen unless their ``train`` setting says otherwise.

    Source: ViPER (Vaiani et al. 2022, https://doi.org/10.1145/3551876.3554806), rebuilt end to end.

    Args:
        config: what is computed; see ``presets.py`` for where to start.
        labels: names and range of the outputs.
        assets: a checkpoint folder's ``backbones/``, holding configs, preprocessors and tokenizers.
        records: ``{backbone: {spec, revision, tensors_sha256}}`` that loaded weights must match.
        overrides: ``{backbone: path}``, looked at before any other place.
        held: backbones that are built without weights, for the caller to load.
    """

    def __init__(
        self,
        config: ModelConfig,
        labels: LabelSet = HUME_REACTION,
        *,
        assets: os.PathLike | None = None,
        records: Mapping[str, Any] | None = None,
        overrides: Mapping[str, str] | None = None,
        held: frozenset[str] = frozenset(),
    ):
        super().__init__()
        self.config, self.labels = config, labels
        self.modalities = _in_order(config.modalities)
        self.decoder = ClipDecoder.for_model(config)
        self.faces = FaceCropper(config.faces)
        _check_overrides(config, overrides or {}, held)
        where = {"assets": assets, "records": records, "overrides": overrides, "held": held}
        self.encoders = nn.ModuleDict({name: _build_encoder(name, config, where) for name in self.modalities})
        widths = {name: encoder.embed_dim for name, encoder in self.encoders.items()}
        scale = LabelScale.of(labels, bounded=config.fusion.output == "sigmoid")
        self.fusion = build_fusion(config.fusion, widths, len(labels), labels.in_unit_interval, scale)
        self.compute_dtype: torch.dtype | None = None
        """Of backbones and fusion; ``None``: weights as they were made, under the caller's autocast."""
        self.augment: Augment | None = None
        """Changes clips that come with a seed, in training mode alone; set by who trains, never saved."""
        self.watch: Watch | None = None
        """Sees the streams of every pass, before any modality is hidden; set by who trains, never saved."""

    @property
    def device(self) -> torch.device:
        return next(self.fusion.parameters()).device

    def forward(self, clips: Clip | Sequence[Clip], seeds: Sequence[int] | None = None) -> ViPEROutput:
        """Score a batch of clips.

        Args:
            clips: any mixture of the forms of :data:`Clip`; one alone is a batch of one.
            seeds: in training, one integer per clip from which its modality dropout and augmentation
                are drawn; ``None``: neither.

        An unreadable clip keeps its row: ``valid`` is False there and ``errors`` tells why.
        """
        return self.fuse(self.prepare(clips), seeds)

    @torch.no_grad()
    def predict(self, clips: Clip | Sequence[Clip], *, boxes: bool = False) -> Record | list[Record]:
        """Score one clip (a record) or several (a list); see :func:`records.records_of` for what it holds."""
        several, batch = not _is_one(clips), _batch_of(clips)
        names = [_name_of(clip) for clip in batch]
        was_training = self.training
        output = self.eval()(batch)
        self.train(was_training)
        records = records_of(output, names, self.labels.names, self.modalities, boxes=boxes)
        return records if several else records[0]

    # --- clips -> prepared clips ------------------------------------------------------------------

    def prepare(self, clips: Clip | Sequence[Clip]) -> list[PreparedClip | ClipError]:
        """Decode and find faces; what is further on its way passes through."""
        transfer = Transfer(self.device)
        decoded = [self._decode(clip) for clip in _batch_of(clips)]
        sent = [self._send(clip, transfer) for clip in decoded]
        with self._close_ups(transfer) as closer:
            begun = [
                closer.begin(found(), clip) if callable(found) else found
                for clip, found in zip(decoded, sent, strict=True)
            ]
            return [clip() if callable(clip) else clip for clip in begun]

    def _decode(self, clip: Clip) -> DecodedClip | PreparedClip | ClipError:
        if isinstance(clip, DecodedClip | PreparedClip | ClipError):
            return clip
        if clip is None:
            return ClipError("no clip in this place", stage="read")
        try:
            if isinstance(clip, Sample):
                return self.decoder(clip.video, sound=clip.sound, name=clip.key, action_units=clip.action_units)
            name = "" if isinstance(clip, bytes) else os.fspath(clip)
            return self.decoder(clip, name=name)
        except ClipError as error:
            return error

    def _send(
        self, clip: DecodedClip | PreparedClip | ClipError, transfer: Transfer
    ) -> PreparedClip | ClipError | Callable[[], PreparedClip]:
        """Begin to bring a decoded clip to the device; the function returned finds the face."""
        if not isinstance(clip, DecodedClip):
            return clip
        instants = clip.frame_seconds if clip.sound_instants is None else clip.sound_instants
        times = [clip.frame_seconds.astype(np.float32), instants.astype(np.float32)]
        arrays = [clip.frames, *times, *(run.samples for run in clip.sound)]
        arrive = transfer.send(arrays if clip.action_units is None else [*arrays, clip.action_units])
        return lambda: self._find_face(clip, *arrive())

    def _find_face(
        self, clip: DecodedClip, frames: Tensor, seconds: Tensor, instants: Tensor, *others: Tensor
    ) -> PreparedClip:
        """``others``: its runs of sound, and its action units if it has some."""
        num_runs = len(clip.sound)
        return PreparedClip(
            name=clip.name,
            seconds=seconds,
            duration_seconds=clip.duration_seconds,
            track=self._track(frames, seconds),
            pixels=frames,
            sound=[(run.start_seconds, samples) for run, samples in zip(clip.sound, others, strict=False)],
            sound_seconds=clip.sound_seconds,
            sound_instants=None if clip.sound_instants is None else instants,
            unheard_seconds=clip.unheard_seconds,
            units=None if clip.action_units is None else others[num_runs],
            display_size=clip.display_size,
            frame_size=(clip.frames.shape[2], clip.frames.shape[1]),
            notes=clip.notes,
        )

    def _close_ups(self, transfer: Transfer) -> CloseUps:
        looking = [name for name in self.modalities if name in LOOKING and self.decoder.comes_back]
        specs = [self.encoders[name].crop_spec for name in looking]
        reach = self.augment.box_reach if self.augment is not None and "box" in self.augment.kinds else 0.0
        margin = max(self.config.faces.hold_margin, reach)
        measured = "action_units" in self.modalities and self.config.action_units.source == "py-feat"
        return CloseUps(self.config.decoding, specs, margin, transfer, keeps_frames=measured)

    def _track(self, frames: Tensor, seconds: Tensor) -> FaceTrack:
        if set(self.modalities) & set(LOOKING):
            return self.faces([frames], [seconds])[0]
        # Action units have a detector of their own.
        return FaceTrack.of_no_face(len(seconds), frames.shape[2], frames.shape[1], self.device)

    def hold(self, clip: PreparedClip) -> PreparedClip:
        """The least of a clip that makes a later pass bitwise equal to this one."""
        trained = {name for name, encoder in self.encoders.items() if not encoder.is_frozen}
        aligned = any(self.encoders[name].crop_spec.align == "eyes" for name in trained & set(LOOKING))
        return clip.held(
            self.faces, pixels=bool(trained & set(LOOKING)), sound="audio" in trained, aligned=aligned
        )

    def set_compute_dtype(self, dtype: torch.dtype) -> None:
        """Store frozen backbones in ``dtype``; run the others, and the fusion, under autocast to it.

        Autocast around the module is then neither needed nor heeded. The detector, crops, times and outputs
        stay float32.
        """
        self.compute_dtype = dtype
        for encoder in self.encoders.values():
            encoder.to_compute_dtype(dtype)

    def _fusing(self) -> AbstractContextManager:
        """The autocast state that the fusion runs in; its weights are float32 throughout."""
        if self.compute_dtype is None:
            return nullcontext()
        half = self.compute_dtype.itemsize < 4
        return torch.autocast(self.device.type, dtype=self.compute_dtype if half else None, enabled=half)

    # --- prepared clips -> streams -> intensities -------------------------------------------------

    def fuse(
        self,
        clips: Sequence[PreparedClip | ClipError],
        seeds: Sequence[int] | None = None,
        hidden: Bool[Tensor, "B M"] | None = None,
    ) -> ViPEROutput:
        """Encode every modality and fuse; frozen encoders leave their tokens in the prepared clips.

        ``hidden``: modalities to be treated as absent, clip by clip.
        """
        windows = self.config.decoding.sound == "windows"
        spread = self.config.fusion.kind == "concat"
        if not clips:
            # No network takes an empty batch: of a batch of one, no row.
            nothing = ClipError("no clip in this place", stage="read")
            return ViPEROutput(*(rows[:0] for rows in self.fuse([nothing])))
        slots = _Slots(clips, self.config.decoding.num_frames, spread, windows, self.device)
        augment = self.augment if self.training and seeds is not None else None
        inputs = EncoderInputs(clips, self.faces, self.config.decoding.sample_rate, augment, seeds)
        streams = {name: self._stream(name, clips, slots, inputs) for name in self.modalities}
        if self.watch is not None:
            self.watch(streams, slots.face_found, slots.duration_seconds)
        present = torch.stack([stream.present.any(dim=1) for stream in streams.values()], dim=1)
        if hidden is None and self.training and seeds is not None and self.config.fusion.modality_dropout > 0:
            hidden = sample_hidden(present, self.config.fusion.modality_dropout, seeds)
        with self._fusing():
            answers = self.fusion(streams, slots.face_found, slots.duration_seconds, hidden)
        by_network = answers if answers.ndim == 3 else answers[:, None]
        return ViPEROutput(
            intensities=by_network.mean(1),
            by_network=by_network,
            valid=slots.valid,
            present=present,
            boxes=slots.boxes,
            box_source=slots.box_source,
            face_found=slots.face_found,
            frame_seconds=slots.seconds,
            used=slots.used,
            duration_seconds=slots.duration_seconds,
            errors=tuple(clip if isinstance(clip, ClipError) else None for clip in clips),
            notes=tuple(() if isinstance(clip, ClipError) else clip.notes for clip in clips),
            unheard_seconds=tuple(slots.unheard_seconds),
        )

    def _stream(
        self, name: str, clips: Sequence[PreparedClip | ClipError], slots: _Slots, inputs: EncoderInputs
    ) -> Stream:
        encoder = self.encoders[name]
        if encoder.is_frozen:
            made = [self._frozen_tokens(name, clip, i, slots, inputs) for i, clip in enumerate(clips)]
            tokens, present, seconds = (torch.stack(column) for column in zip(*made, strict=True))
        elif name == "audio":
            sounds = [inputs.sound(i, slots.seconds[i]) for i in range(len(clips))]
            tokens, present, seconds = encoder(sounds)
        elif name == "motion":
            tokens, present, seconds = self._trained_motion(encoder, clips, slots, inputs)
        else:
            tokens, present, seconds = self._trained_images(encoder, clips, slots, inputs)
        # Sound has its own instants, whatever the number of frames; everything else lives in frame slots.
        used = slots.used if name != "audio" else slots.heard
        return Stream(tokens, present, used, seconds)

    @torch.no_grad()
    def _frozen_tokens(
        self, name: str, clip: PreparedClip | ClipError, index: int, slots: _Slots, inputs: EncoderInputs
    ) -> ClipTokens:
        encoder, seconds = self.encoders[name], slots.seconds[index]
        if isinstance(clip, ClipError):
            return ClipTokens(
                torch.zeros(len(seconds), encoder.embed_dim, device=seconds.device),
                torch.zeros_like(seconds, dtype=torch.bool),
                seconds,
            )
        if inputs.are_changed(name):
            # Of this pass alone: what is kept must be what an unchanged clip gives.
            return self._encode_clip(name, encoder, clip, index, slots, inputs)
        maker = encoder.weights_id()
        if name not in clip.tokens or clip.made_by.get(name) != maker:
            if clip.is_held and name in clip.tokens:
                raise ViperError(
                    f"{clip.name}: was held in memory for another model, or for other weights; prepare it again"
                )
            clip.tokens[name] = self._encode_clip(name, encoder, clip, index, slots, inputs)
            # Once encoded: what is embedded at first use belongs to these weights.
            clip.made_by[name] = maker
        return clip.tokens[name]

    def _encode_clip(
        self, name: str, encoder: Encoder, clip: PreparedClip, index: int, slots: _Slots, inputs: EncoderInputs
    ) -> ClipTokens:
        seconds, frame = slots.seconds[index], slots.index[index]
        if name == "audio":
            tokens, present, centres = encoder([inputs.sound(index, seconds)])
            return ClipTokens(tokens[0], present[0], centres[0])
        if name == "action_units":
            frames = clip.pixels if clip.frames is None else clip.frames
            units = encoder.measure(frames, clip.name) if clip.units is None else clip.units
            tokens, present = encoder([units], [len(clip.seconds)])
            return ClipTokens(tokens[0][frame], present[0][frame], seconds)
        if name == "motion":
            (tokens,) = encoder([inputs.crops(index, encoder.crop_spec)])
            tokens, seconds = tokens[frame], encoder.seconds(clip.seconds)[frame]
        else:
            tokens = encoder(inputs.crops(index, encoder.crop_spec))[frame]
        return ClipTokens(tokens, torch.ones_like(seconds, dtype=torch.bool), seconds)

    def _trained_images(
        self, encoder: Encoder, clips: Sequence[PreparedClip | ClipError], slots: _Slots, inputs: EncoderInputs
    ) -> tuple[Float[Tensor, "B T D"], Bool[Tensor, "B T"], Float[Tensor, "B T"]]:
        # A fixed shape whatever is absent, so that every process runs every parameter in every step.
        size, num_frames = encoder.crop_spec.size, slots.seconds.shape[1]
        blank = torch.zeros(num_frames, 3, size, size, device=slots.seconds.device)
        pixels = [
            blank if isinstance(clip, ClipError) else inputs.crops(i, encoder.crop_spec)[slots.index[i]]
            for i, clip in enumerate(clips)
        ]
        tokens = encoder(torch.cat(pixels)).unflatten(0, (len(clips), num_frames))
        present = slots.valid[:, None].expand(-1, num_frames)
        return torch.where(present[..., None], tokens, torch.zeros_like(tokens)), present, slots.seconds

    def _trained_motion(
        self, encoder: Encoder, clips: Sequence[PreparedClip | ClipError], slots: _Slots, inputs: EncoderInputs
    ) -> tuple[Float[Tensor, "B T D"], Bool[Tensor, "B T"], Float[Tensor, "B T"]]:
        # At least one window of each clip, so that every process runs every parameter in every step.
        size = encoder.crop_spec.size
        blank = torch.zeros(1, 3, size, size, device=slots.seconds.device)
        made = encoder(
            [
                blank if isinstance(clip, ClipError) else inputs.crops(i, encoder.crop_spec)
                for i, clip in enumerate(clips)
            ]
        )
        tokens = torch.stack([of_frames[slots.index[i]] for i, of_frames in enumerate(made)])
        seconds = slots.seconds.clone()
        for i, clip in enumerate(clips):
            if not isinstance(clip, ClipError):
                seconds[i] = encoder.seconds(clip.seconds)[slots.index[i]]
        present = slots.valid[:, None].expand(-1, tokens.shape[1])
        return torch.where(present[..., None], tokens, torch.zeros_like(tokens)), present, seconds


def load(
    source: str | os.PathLike,
    *,
    revision: str | None = None,
    overrides: Mapping[str, str] | None = None,
) -> ViPER:
    """A trained model from a folder or a hub id, ready to predict; see :meth:`ViPER.from_pretrained`."""
    return ViPER.from_pretrained(source, revision=revision, overrides=overrides)


class _Slots:
    """The T slots of each clip: which frame each shows, when, and where the face is.

    A clip with fewer distinct frames than T leaves slots unused (their frame repeats the last one), or,
    with ``spread``, spreads its frames over all slots, as the published concatenation needs. ``windows``: there
    is a token of sound for each slot even of a clip that names no instants of its own.
    """

    def __init__(
        self,
        clips: Sequence[PreparedClip | ClipError],
        num_slots: int,
        spread: bool,
        windows: bool,
        device: torch.device,
    ):
        shape = (len(clips), num_slots)
        self.index = torch.zeros(shape, dtype=torch.long, device=device)
        self.used = torch.ones(shape, dtype=torch.bool, device=device)
        self.heard = torch.ones(shape, dtype=torch.bool, device=device)
        """As `used`, of the tokens of sound."""
        self.unheard_seconds = [0.0 if isinstance(c, ClipError) else c.unheard_seconds for c in clips]
        self.seconds = torch.zeros(shape, device=device)
        self.boxes = torch.zeros(*shape, 4, device=device)
        self.box_source = torch.zeros(shape, dtype=torch.uint8, device=device)
        self.duration_seconds = torch.zeros(len(clips), device=device)
        self.valid = torch.tensor([not isinstance(c, ClipError) for c in clips], device=device)
        slots = torch.arange(num_slots, device=device)
        for i, clip in enumerate(clips):
            if isinstance(clip, ClipError):
                continue
            num_frames = len(clip.seconds)
            if spread:
                self.index[i] = slots * num_frames // num_slots
            else:
                self.index[i] = slots.clamp(max=num_frames - 1)
                self.used[i] = slots < num_frames
            scale = torch.tensor(clip.display_size, device=device) / torch.tensor(
                clip.frame_size, device=device
            )
            self.seconds[i] = clip.seconds[self.index[i]]
            self.boxes[i] = (clip.track.boxes * scale.repeat(2))[self.index[i]]
            self.box_source[i] = clip.track.source[self.index[i]]
            self.duration_seconds[i] = clip.duration_seconds
            if clip.sound_instants is None and not windows:
                self.heard[i] = self.used[i]
        self.face_found = self.box_source > 0


def _in_order(modalities: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in modalities if name not in MODALITIES]
    if unknown or not modalities:
        raise ViperError(
            f"modalities: {', '.join(unknown) or 'none given'}; choose among {', '.join(MODALITIES)}"
        )
    return tuple(name for name in MODALITIES if name in modalities)


def _check_overrides(config: ModelConfig, overrides: Mapping[str, str], held: frozenset[str]) -> None:
    """A place that nothing is taken from would be believed to be used."""
    known = [*backbones_of(config), *(["sentence_bank"] if "textual" in config.modalities else [])]
    for name in overrides:
        option = "--sentence-bank" if name == "sentence_bank" else f"--backbone {name}"
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ViperError(f"{option}: {hint}this model has {', '.join(known) or 'no backbone'}")
        if name in held:
            raise ViperError(f"{option}: the checkpoint holds its own weights of {name}; leave this out")


def _build_encoder(name: str, config: ModelConfig, where: Mapping[str, Any]) -> Encoder:
    decoding = config.decoding
    if name == "visual":
        return VisualEncoder.build(config.visual, **where)
    if name == "audio":
        heard = decoding.sound, decoding.span_seconds, decoding.sample_rate
        return AudioEncoder.build(config.audio, *heard, **where)
    if name == "textual":
        return TextualEncoder.build(config.textual, **where)
    if name == "motion":
        return MotionEncoder.build(config.motion, decoding.num_frames, **where)
    return ActionUnitEncoder.build(config.action_units)


def _is_one(clips: Any) -> bool:
    """A name is one clip, not a batch of letters."""
    return clips is None or isinstance(clips, bytearray | memoryview | Clip)


def _batch_of(clips: Any) -> list[Clip]:
    """One clip or several → a list; `ViperError` for what is no clip."""
    batch = [clips] if _is_one(clips) or not isinstance(clips, Iterable) else list(clips)
    for clip in batch:
        if not _is_one(clip):
            raise ViperError(
                f"a clip is a path, the bytes of a file, or a Sample; got {type(clip).__name__}: write frames "
                "to a video file first, or build a DecodedClip"
            )
    return [bytes(clip) if isinstance(clip, bytearray | memoryview) else clip for clip in batch]


def _name_of(clip: Clip) -> str:
    if isinstance(clip, str | os.PathLike):
        return os.fspath(clip)
    if isinstance(clip, Sample):
        return clip.key
    return getattr(clip, "name", "")
