"""cli.py: the command `viper`: finds what was asked for, and gives what goes wrong a line and an exit code."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from viper_e2e.commands.command_line import VOLUME
from viper_e2e.commands.command_table import COMMANDS
from viper_e2e.commands.ending import EndAtOnce
from viper_e2e.commands.stopping import stopping, what_is_kept
from viper_e2e.commands.usage import overview, unknown_command
from viper_e2e.errors import ExitCode, ViperError
from viper_e2e.runtime import end_without_collecting, show_notes, tolerate_terminal_encodings

QUIET, VERBOSE = VOLUME


def _refuse_a_deleted_folder() -> None:
    """Torch's libraries end a process that stands in one, with a line that says nothing of it."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise ViperError("the folder that you are in was deleted; change to another one (cd)") from error


def run(argv: Sequence[str] | None = None) -> NoReturn:
    """`main` for a script, which ends with its exit code: `viper`, `python -m viper_e2e`, `train.py`."""
    end = EndAtOnce()
    end.code = main(argv)
    sys.exit(end.code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 all fine, 1 nothing done or misuse, 2 some clips failed."""
    argv = list(sys.argv[1:] if argv is None else argv)
    tolerate_terminal_encodings()
    argv = set_volume(argv)
    end_without_collecting()
    command = argv[0] if argv else "--help"
    if command in ("-h", "--help"):
        print(overview({name: row.summary for name, row in COMMANDS.items()}))
        return ExitCode.OK if argv else ExitCode.NOTHING_DONE
    if command == "--version":
        from viper_e2e import __version__

        print(f"viper_e2e {__version__}")
        return ExitCode.OK
    if command not in COMMANDS:
        return unknown_command(command, COMMANDS)
    try:
        with stopping():
            _refuse_a_deleted_folder()
            return COMMANDS[command].run(command, argv[1:])
    except ViperError as error:
        print(f"viper {command}{_which_process()}: {error}", file=sys.stderr)
        return ExitCode.NOTHING_DONE
    except KeyboardInterrupt as stopped:
        print(f"\nviper {command}: stopped; {what_is_kept(command, argv)}", file=sys.stderr)
        return stopped.args[0] if stopped.args else ExitCode.STOPPED
    except BrokenPipeError:
        # The reader of our output went away (`| head`); say nothing more, also not at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except OSError as error:
        # What the machine refuses (a full disk, a file without permission) is no fault of ours to be traced.
        from viper_e2e.runtime import explain

        print(f"viper {command}{_which_process()}: {explain(error)}", file=sys.stderr)
        return ExitCode.NOTHING_DONE


def set_volume(argv: list[str]) -> list[str]:
    """What every command understands: ``-q`` shows results and errors alone, ``-v`` all that is noted."""
    end = argv.index("--") if "--" in argv else len(argv)
    given = {word for word in argv[1:end] if word in (*QUIET, *VERBOSE)}
    level = logging.DEBUG if given & {*VERBOSE} else logging.WARNING if given else logging.INFO
    show_notes(level)
    if level == logging.WARNING:
        from viper_e2e.runtime import console

        console.quiet = True
    return [word for place, word in enumerate(argv) if place >= end or word not in given]


def _which_process() -> str:
    """Whose error it is, where torchrun or `accelerate launch` started several processes."""
    count = os.environ.get("WORLD_SIZE", "1")
    return f" (process {os.environ.get('RANK', '0')} of {count})" if count != "1" else ""


if __name__ == "__main__":
    sys.exit(main())
