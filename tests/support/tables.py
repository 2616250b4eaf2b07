"""tables.py: records for tables, and tables as a terminal shows them."""

from __future__ import annotations

from rich.console import Console

from viper_e2e.labels import HUME_REACTION

NAMES = HUME_REACTION.names


def record(clip: str = "a.mp4", values=(0.72, 0.1, 0.05, 0.0, 0.33, 0.21, 0.98), **changes) -> dict:
    return {
        "clip": clip,
        "valid": True,
        "error": None,
        "intensities": dict(zip(NAMES, values, strict=True)),
        "present": {"visual": True, "audio": False, "textual": True},
        "face_found": 0.94,
    } | changes


def shown(table, width: int) -> str:
    console = Console(width=width, highlight=False, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
