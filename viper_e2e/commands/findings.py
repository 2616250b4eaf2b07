"""findings.py: findings of `viper check` and `viper pack`: printed, and with `--output` written down."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from viper_e2e.runtime import SteadyConsole, plain_json, written_whole


@runtime_checkable
class Findings(Protocol):
    """A report that Rich can print."""

    @property
    def exit_code(self) -> int: ...

    def to_json(self) -> dict[str, Any]: ...


def tell_findings(found: Findings, output: str | None) -> int:
    """Print them and write the file; the exit code that they come to."""
    try:
        if output:
            with written_whole(output) as partial:
                text = plain_json.dumps(found.to_json(), indent=2) + "\n"
                partial.write_text(text, encoding="utf-8", errors="backslashreplace")
    finally:
        # What was long in the making is not lost with its file.
        SteadyConsole(highlight=False).print(found)
    return found.exit_code
