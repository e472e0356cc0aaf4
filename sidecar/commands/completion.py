"""``sidecar completion bash|zsh|fish``: a script for that shell, made from the table of options.

To be loaded by the shell: ``source <(sidecar completion bash)``, ``source <(sidecar completion zsh)``,
``sidecar completion fish | source``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sidecar.errors import StartError
from sidecar.flag_parser import COMMANDS
from sidecar.option_table import OPTIONS, TIMEOUT, Option

_WAIT = (*(option for option in OPTIONS if option.field in ("admin", "scrape")), TIMEOUT)
_ABOUT = (("--help", "print help and end"), ("--version", "print the version and end"))


def run(words: Sequence[str]) -> int:
    """Runs the command; returns its exit code. StartError where no shell of ours is named."""
    if list(words) in (["--help"], ["-h"]):
        sys.stdout.write(f"usage: sidecar completion {'|'.join(SHELLS)}\n")
        return 0
    if len(words) != 1 or words[0] not in SHELLS:
        raise StartError(f"completion: which shell? write one of {', '.join(SHELLS)}")
    sys.stdout.write(SHELLS[words[0]]())
    return 0


# -- bash ------------------------------------------------------------------------------------------------------------


def bash() -> str:
    """A function for ``complete -F``. ``=`` and ``:`` are words of their own there, as COMP_WORDBREAKS has it."""
    cases = "".join(f"        {option.flag}) {_bash_value(option)} ;;\n" for option in (*OPTIONS, TIMEOUT))
    flags = " ".join([*(option.flag for option in OPTIONS), "--help"])
    return f"""\
# bash completion of sidecar; load it by: source <(sidecar completion bash)
_sidecar() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} words
    COMPREPLY=()
    if [[ $word == "=" ]]; then
        word=
    elif [[ $before == "=" ]]; then
        before=${{COMP_WORDS[COMP_CWORD - 2]}}
    fi
    case $before in
{cases}    esac
    case ${{COMP_WORDS[1]}} in
        wait) words="{" ".join([*(option.flag for option in _WAIT), "--help"])}" ;;
        completion) words="{" ".join(SHELLS)}" ;;
        *) words="{flags}" ;;
    esac
    ((COMP_CWORD > 1)) || words="{" ".join(COMMANDS)} {flags} --version"
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -F _sidecar sidecar
"""


def _bash_value(option: Option) -> str:
    if option.bare is not None:
        return f'[[ $word == -* ]] || {{ COMPREPLY=($(compgen -W "{" ".join(option.words)}" -- "$word")); return; }}'
    if _is_path(option):
        return 'compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$word")); return'
    return f'COMPREPLY=($(compgen -W "{" ".join(option.words)}" -- "$word")); return'


# -- zsh -------------------------------------------------------------------------------------------------------------


def zsh() -> str:
    """A function for compdef, by _arguments; works sourced and from a directory in fpath."""
    commands = "\n".join(f"        {_quoted(f'{name}:{text}')}" for name, (_, text) in COMMANDS.items())
    return f"""\
#compdef sidecar
# zsh completion of sidecar; load it by: source <(sidecar completion zsh)
_sidecar() {{
    local -a commands=(
{commands}
    )
    case $words[2] in
        wait) shift words; ((CURRENT--)); _arguments \\
{_zsh_flags(_WAIT)} ;;
        completion) _values shell {" ".join(SHELLS)} ;;
        *)
            ((CURRENT == 2)) && [[ $PREFIX != -* ]] && _describe command commands
            if [[ $words[2] == check-config ]]; then shift words; ((CURRENT--)); fi
            _arguments \\
{_zsh_flags(OPTIONS)} ;;
    esac
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _sidecar "$@"; else compdef _sidecar sidecar; fi
"""


def _zsh_flags(options: Sequence[Option]) -> str:
    lines = [f"                {_zsh_flag(option)}" for option in options]
    lines += [f"                {_quoted(f'{flag}[{text}]')}" for flag, text in _ABOUT]
    return " \\\n".join(lines)


def _zsh_flag(option: Option) -> str:
    text = option.help.translate({ord(c): f"\\{c}" for c in "[]:\\"})
    what = "_files" if _is_path(option) else f"({' '.join(option.words)})" if option.words else " "
    colon = "::" if option.bare is not None else ":"
    return _quoted(f"{option.flag}=[{text}]{colon}{option.metavar.split('|')[0].translate({58: None})}:{what}")


# -- fish ------------------------------------------------------------------------------------------------------------


def fish() -> str:
    """A line per flag and command for ``complete``."""
    lines = ["# fish completion of sidecar; load it by: sidecar completion fish | source", "complete -c sidecar -f"]
    for name, (_, text) in COMMANDS.items():
        lines.append(f"complete -c sidecar -n __fish_use_subcommand -a {name} -d {_fish(text)}")
    shells = _fish(" ".join(SHELLS))
    lines.append(f"complete -c sidecar -n '__fish_seen_subcommand_from completion' -a {shells}")
    lines += [_fish_flag(option, "__fish_seen_subcommand_from wait") for option in _WAIT]
    lines += [_fish_flag(option, "not __fish_seen_subcommand_from wait completion") for option in OPTIONS]
    lines += [f"complete -c sidecar -l {flag[2:]} -d {_fish(text)}" for flag, text in _ABOUT]
    return "\n".join(lines) + "\n"


def _fish_flag(option: Option, when: str) -> str:
    value = "-r -F" if _is_path(option) else f"-x -a {_fish(' '.join(option.words))}"
    if option.bare is not None:
        value = f"-a {_fish(' '.join(option.words))}"
    return f"complete -c sidecar -n {_fish(when)} -l {option.flag[2:]} {value} -d {_fish(option.help)}"


# -- words -----------------------------------------------------------------------------------------------------------


def _is_path(option: Option) -> bool:
    return option.metavar.startswith("PATH")


def _quoted(text: str) -> str:
    """For bash and zsh: nothing inside means anything."""
    return "'" + text.replace("'", "'\\''") + "'"


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}
