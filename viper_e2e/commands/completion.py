"""completion.py: `viper completion`: a script with which bash, zsh or fish completes commands and options."""

from __future__ import annotations

from argparse import Action, ArgumentParser
from collections.abc import Iterator, Mapping

from viper_e2e.commands.cli import COMMANDS, Command
from viper_e2e.commands.command_line import parser_of
from viper_e2e.commands.train_help import help_parser
from viper_e2e.config import CompletionConfig
from viper_e2e.errors import ExitCode

_BASH = """\
{setup}_viper() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" words=""
    if [ "$COMP_CWORD" = 1 ]; then
        words="{commands}"
    else
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
        case "$word" in -*) ;; *) words="" ;; esac
    fi
    COMPREPLY=( $(compgen -W "$words" -- "$word") )
}}
complete -o default -o bashdefault -F _viper viper
"""
"""Names of files are completed by the shell itself, where nothing of ours fits."""
_FISH = """\
function __viper_is
    set -l words (commandline -opc)
    test (count $words) -ge 2; and test $words[2] = $argv[1]
end
function __viper_has_no_command
    test (count (commandline -opc)) -eq 1
end
complete -c viper -n __viper_has_no_command -f
"""


def run_completion(options: CompletionConfig) -> int:
    """Print it for ``eval`` in the shell's own start-up file; in fish, for ``source``."""
    print(script(options.shell, COMMANDS), end="")
    return ExitCode.OK


def script(shell: str, commands: Mapping[str, Command]) -> str:
    """The script for `bash`, `zsh` or `fish`."""
    if shell == "fish":
        return _FISH + "".join(f"{line}\n" for name, row in commands.items() for line in _in_fish(name, row))
    cases = [
        f'            {name}) words="{" ".join(sorted(options_of(name, row)))}" ;;'
        for name, row in commands.items()
    ]
    setup = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return _BASH.format(setup=setup, commands=" ".join(commands), cases="\n".join(cases))


def options_of(name: str, command: Command) -> dict[str, Action]:
    """Every option that a command understands, with what its parser knows of it."""
    parsers: list[ArgumentParser] = [parser_of(command.options, f"viper {name}")]
    if command.reads_settings:
        parsers.append(help_parser("base", f"viper {name}", is_short=True))
    found = {word: action for parser in parsers for word, action in parser._option_string_actions.items()}
    return {word: action for word, action in found.items() if word.startswith("--")}


def _in_fish(name: str, command: Command) -> Iterator[str]:
    yield f"complete -c viper -n __viper_has_no_command -a {name} -d {_quoted(command.summary)}"
    for word, action in options_of(name, command).items():
        takes = "" if action.nargs == 0 else " -r"
        if action.choices is not None:
            takes = f" -x -a {_quoted(' '.join(map(str, action.choices)))}"
        told = _quoted((action.help or "").replace("%%", "%"))
        yield f"complete -c viper -n '__viper_is {name}' -l {word.removeprefix('--')}{takes} -d {told}"


def _quoted(text: str) -> str:
    """Text in single quotes, for fish."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
