"""passes.py: clips through the model, batch by batch or window by window; only here does scoring call it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from viper_e2e.clip import DecodedClip
from viper_e2e.encoders import PreparedClip, TokenCache
from viper_e2e.errors import ClipError
from viper_e2e.loading import ClipLoader, DecodeSample, OrderSettings, decode_windows
from viper_e2e.model import Prediction, ViPER, ViPEROutput, failed, in_mode, predictions_of
from viper_e2e.scoring.score import Pass, Wanted
from viper_e2e.scoring.sources import Subset


def in_batches(one_pass: Pass) -> Iterator[tuple[int, list[Prediction]]]:
    """Number and predictions of each clip of a process's share, one for each set of hidden modalities."""
    model, wanted, hooks = one_pass.model, one_pass.wanted, one_pass.hooks
    assert model is not None
    loader = ClipLoader(
        one_pass.source,
        one_pass.decode or DecodeSample(model.decoder),
        one_pass.reading,
        order=OrderSettings(shuffle=False),
        share=one_pass.share,
        cached=hooks.cached,
        quarantine=hooks.quarantine,
    )
    with in_mode(model, training=False), loader:
        for batch in loader.epoch(0):
            rows = [(row, i) for row, i in enumerate(batch.positions) if i is not None]
            if not rows:
                continue
            keep_streams = hooks.on_batch is not None
            prepared, outputs = _forward(model, batch.clips, wanted.hidden, keep_streams=keep_streams)
            if hooks.on_batch is not None:
                hooks.on_batch(batch, outputs[0])
            made = [
                _predictions(model, output, batch.keys, wanted, hidden)
                for hidden, output in zip(wanted.hidden, outputs, strict=True)
            ]
            for row, i in rows:
                if hooks.on_clip is not None:
                    hooks.on_clip(i, prepared[row])
                yield i, [of_set[row] for of_set in made]


@torch.no_grad()
def _forward(
    model: ViPER, clips: Sequence[Any], hidden: Sequence[tuple[str, ...]], *, keep_streams: bool = False
) -> tuple[list[PreparedClip | ClipError], list[ViPEROutput]]:
    """Clips with their tokens, encoded once, and what the model says with each of these sets hidden.

    A function of its own: around a generator, `no_grad` ends where annotations are checked.
    """
    prepared, cache = model.prepare(clips), TokenCache()
    outputs = []
    for names in hidden:
        mask = None
        if names:
            is_hidden = torch.tensor([name in names for name in model.modalities], device=model.device)
            mask = is_hidden.expand(len(prepared), -1)
        outputs.append(model(prepared, hidden=mask, cache=cache, keep_streams=keep_streams))
    encoded = [clip if isinstance(clip, ClipError) else cache.with_tokens(clip) for clip in prepared]
    return encoded, outputs


def _predictions(
    model: ViPER, output: ViPEROutput, clips: Sequence[str], wanted: Wanted, hidden: tuple[str, ...] = ()
) -> list[Prediction]:
    names, modalities, frames, boxes = model.labels.names, model.modalities, wanted.frames, wanted.boxes
    output = model.calibrated(output)
    return predictions_of(output, clips, names, modalities, frames=frames, boxes=boxes, hidden=hidden)


def in_windows(one_pass: Pass) -> Iterator[tuple[int, list[Prediction]]]:
    """Number and predictions of every clip, as each is done, one for each of its windows.

    Where a clip can be read no further, what was scored stays, and a failed prediction stands for the rest.
    Each file is decoded in one pass and its windows are scored as they come, so that memory does not depend on
    its length; the time limit is one window's. Up to ``num_workers`` clips are decoded at the same time.
    """
    model, wanted, own = one_pass.model, one_pass.wanted, one_pass.own
    assert model is not None
    assert wanted.windows is not None
    source, begun = Subset(one_pass.source, own), defaultdict[int, list[Prediction]](list)
    with in_mode(model, training=False):
        for i, found in decode_windows(source, model.decoder, *wanted.windows, one_pass.reading):
            windows = begun[i]
            if isinstance(found, ClipError):
                reached = windows[-1].end_seconds if windows else None
                key, modalities = source.entry(i).key, model.modalities
                windows.append(failed(key, found.reason, modalities, stage=found.stage, start_seconds=reached))
            elif found is not None:
                windows.append(_window(model, *found, wanted))
                continue
            yield own[i], begun.pop(i)


def _window(model: ViPER, start_seconds: float, clip: DecodedClip, wanted: Wanted) -> Prediction:
    _, (output,) = _forward(model, [clip], ((),))
    (one,) = _predictions(model, output, [clip.name], wanted)
    return one.in_window(start_seconds, start_seconds + clip.duration_seconds)
