"""step_memory.py: what a training step of a model needs."""

from __future__ import annotations

from support.models import decoded
from viper_e2e.encoders.prepared import PreparedClip
from viper_e2e.model.viper import ViPER
from viper_e2e.training.memory import Needs, measure


def prepared(model: ViPER) -> PreparedClip:
    return model.prepare([decoded()])[0]


def needs_of(model: ViPER, **options) -> Needs:
    return measure(model, prepared(model), **options)
