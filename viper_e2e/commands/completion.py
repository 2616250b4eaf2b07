"""completion.py: `viper completion`: a script with which bash or zsh completes commands and options."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Mapping, Sequence

_SCRIPT = """\
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


def script(shell: str, commands: Mapping[str, tuple[Callable[[Sequence[str]], int], str]]) -> str:
    """For ``eval`` in the shell's own start-up file."""
    cases = [
        f'            {name}) words="{" ".join(options_of(run))}" ;;' for name, (run, _) in commands.items()
    ]
    setup = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return _SCRIPT.format(setup=setup, commands=" ".join(commands), cases="\n".join(cases))


def options_of(run: Callable[[Sequence[str]], int]) -> list[str]:
    """What its ``--help`` names."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
        run(["--help"])
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", told.getvalue())))
