"""sound_notes.py: what a person should know of how a clip's sound was heard."""

from __future__ import annotations

from viper_e2e.clip import UNHEARD, WORTH_TELLING_SECONDS
from viper_e2e.config import DecodingConfig
from viper_e2e.decoding.plan import Window


def sound_notes(window: Window, config: DecodingConfig) -> tuple[str, ...]:
    """How much of a clip's sound, or of a window's, no token hears."""
    if window.unheard_seconds < WORTH_TELLING_SECONDS:
        return ()
    total = window.sound_bounds[1] - window.sound_bounds[0]
    note = f"{window.unheard_seconds:.1f} of {total:.1f} s{UNHEARD}"
    # Spans touch where their instants are no further apart than they are long; published windows are cut to a
    # second.
    by_spans, by_windows = (config.num_frames - 1) * config.span_seconds, (config.num_frames + 1) / 2
    whole = int(by_spans if config.sound == "spans" else by_windows)
    if 1 <= whole < window.end_seconds - window.start_seconds:
        note += f" (--window-seconds {whole} hears all)"
    return (note,)
