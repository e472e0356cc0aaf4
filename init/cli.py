"""The command ``sidecar-init``: flags and environment -> what is wanted -> done, and what the exit code means.

0: done. 2: it can't do what the flags say; a line for each that is wrong. 3: not permitted; the line names the
capability. 4: the kernel refused; the line names the rule, and nothing was changed. 5: the table is not what it should
be. Whatever is not one of these is a bug of ours.
"""

from __future__ import annotations

import difflib
import errno
import ipaddress
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from init import namespace, render
from init.options import OPTIONS, Given, Option, split
from init.plan import Wanted, plan
from init.rules import Plan

DONE, FLAGS, FORBIDDEN, REFUSED, DIFFERS = 0, 2, 3, 4, 5
DOINGS = ("dry_run", "show", "verify", "cleanup")
_RESOLV_CONF = Path("/etc/resolv.conf")
_WIDTH = 116
_COLUMN = 28


class _End(Exception):
    """The command ends with this code, after these lines."""

    def __init__(self, code: int, *lines: str) -> None:
        super().__init__(code, lines)
        self.code = code
        self.lines = lines


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with the arguments given (default: the process's own); returns the exit code."""
    try:
        return _run(sys.argv[1:] if argv is None else argv, os.environ)
    except _End as end:
        sys.stderr.writelines(f"sidecar-init: {line}\n" for line in end.lines)
        return end.code


def _run(words: Sequence[str], environ: Mapping[str, str]) -> int:
    given = split(words)
    if given.help and not given.problems:
        sys.stdout.write(help_text())
        return DONE
    values = read(given, environ)
    if values["dry_run"]:
        sys.stdout.write(_said(plan(wanted(values)), values["format"]))
        return DONE
    if not values["allow_host_network"] and namespace.is_the_nodes():
        raise _End(
            FLAGS,
            "this is the network namespace of the node itself, and the rules would capture all of it; "
            "run it in the pod's, or give --allow-host-network",
        )
    return _change(values)


def read(given: Given, environ: Mapping[str, str]) -> dict[str, Any]:
    """{field: value} from the flags, else the environment, else the defaults; _End with all that is wrong."""
    problems = list(given.problems)
    values: dict[str, Any] = {}
    for option in OPTIONS:
        text = given.flags.get(option.field, environ.get(option.twin, option.default))
        try:
            values[option.field] = option.parse(text)
        except ValueError as error:
            problems.append(f"{_source(option, given, environ)}: {error}; write {_form(option)}")
    problems += _unknown_twins(environ)
    if not problems:
        problems += _contradictions(values)
    if problems:
        raise _End(FLAGS, *problems)
    return values


def wanted(values: Mapping[str, Any]) -> Wanted:
    """What the flags and the namespace say together."""
    from init import loopback

    names = values["redirect_dns"] or values["capture_all_dns"]
    fields = {name: values[name] for name in Wanted.__dataclass_fields__ if name in values}
    fields["ipv6"] = values["ipv6"] == "on" or (values["ipv6"] == "auto" and loopback.has_ipv6())
    return Wanted(**fields, resolvers=_resolvers() if names else ())


def help_text() -> str:
    """What ``--help`` prints."""
    parts = [
        "usage: sidecar-init [FLAG ...]\n\n"
        "Installs the rules that lead a pod's connections to its sidecar: whatever is sent to the pod to inbound, and\n"
        "whatever it sends to outbound. Run it again with other flags, and the new rules replace the old in one step.\n"
    ]
    for group in dict.fromkeys(option.group for option in OPTIONS):
        parts.append(f"\n{group}:\n")
        for option in OPTIONS:
            if option.group == group:
                default = f"default: {option.default}; " if option.metavar else ""
                parts.append(_entry(names(option), f"{option.help} ({default}{option.twin})"))
    parts.append(
        "\nPORTS: 80,8000-8100. CIDRS: 10.0.0.0/8,fd00::/8. Each flag can stand in the environment under the name\n"
        "given; the flag wins. Exit codes: 0 done, 2 flags, 3 not permitted, 4 the kernel refused, 5 the table is not\n"
        "what it should be.\n"
    )
    return "".join(parts)


def names(option: Option) -> str:
    """How a flag is written, with its short form and its value."""
    short = f"-{option.short}, " if option.short else ""
    return f"{short}{option.flag} {option.metavar}".rstrip()


def _change(values: Mapping[str, Any]) -> int:
    """Whatever needs the kernel. Imported here: neither --help nor --dry-run needs netlink."""
    from init.conversation import Refused
    from init.table import RuleRefused, Table

    try:
        with Table() as table:
            return _do(table, values)
    except RuleRefused as error:
        raise _ended(error.refused, f"the kernel refused {error.what}") from None
    except Refused as error:
        raise _ended(error, "the kernel refused to show the table") from None


def _do(table: Any, values: Mapping[str, Any]) -> int:
    if values["show"]:
        sys.stdout.write(_counted(table.read(), values["format"]))
        return DONE
    if values["cleanup"]:
        print("the table is gone" if table.cleanup() else "there was nothing to take away")
        return DONE
    planned = plan(wanted(values))
    changed = not values["verify"] and table.install(planned)
    lines = table.differences(planned)
    if lines:
        raise _End(DIFFERS, *lines)
    rules = sum(len(chain.rules) for chain in planned.chains)
    print(f"{rules} rules in {len(planned.chains)} chains {'are in place' if changed else 'were in place already'}")
    return DONE


def _ended(refused: Any, what: str) -> _End:
    if refused.code == errno.EPERM:  # EACCES is also what a disabled IPv6 says
        return _End(FORBIDDEN, "not permitted: the rules need the capability CAP_NET_ADMIN (NET_ADMIN in a pod)")
    words = f": {refused.words}" if refused.words else ""
    return _End(REFUSED, f"{what}: {os.strerror(refused.code) if refused.code else 'no answer'}{words}")


def _said(planned: Plan, form: str) -> str:
    return {"text": render.text, "json": render.as_json, "nft": render.nft}[form](planned)


def _counted(seen: Any, form: str) -> str:
    if seen is None:
        raise _End(DIFFERS, "there is no table of ours in this namespace; sidecar-init without --show makes it")
    chains = {
        name: [(rule.packets, rule.bytes, rule.comment) for rule in seen.rules.get(name, ())] for name in seen.chains
    }
    return render.counted_json(chains) if form == "json" else render.counted_text(chains)


def _resolvers(path: Path = _RESOLV_CONF) -> tuple[Any, ...]:
    """The resolvers that resolv.conf names; _End if there are none."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError as error:
        raise _End(FLAGS, f"--redirect-dns: {path} can't be read ({error.strerror})") from None
    found = []
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                found.append(ipaddress.ip_address(words[1].partition("%")[0]))
            except ValueError:
                continue
    if not found:
        raise _End(FLAGS, f"--redirect-dns: {path} names no resolver whose queries could be redirected")
    return tuple(found)


def _contradictions(values: Mapping[str, Any]) -> Iterator[str]:
    asked = [name for name in DOINGS if values[name]]
    if len(asked) > 1:
        yield f"--{asked[0].replace('_', '-')} and --{asked[1].replace('_', '-')} exclude each other; give one of them"
    if values["format"] == "nft" and not values["dry_run"]:
        yield "--format: nft is a form of --dry-run only; add it, or write text or json"
    if values["inbound_port"] == values["outbound_port"]:
        yield "--inbound-port: is the same as --outbound-port; choose another"


def _unknown_twins(environ: Mapping[str, str]) -> Iterator[str]:
    twins = [option.twin for option in OPTIONS]
    for name in sorted(environ):
        if name.startswith("SIDECAR_INIT_") and name not in twins:
            near = difflib.get_close_matches(name, twins, n=1)
            hint = f"did you mean {near[0]}?" if near else "remove it"
            yield f"the environment's {name} is not the twin of a flag; {hint}"


def _source(option: Option, given: Given, environ: Mapping[str, str]) -> str:
    from_twin = option.field not in given.flags and option.twin in environ
    return f"{option.flag} (from {option.twin})" if from_twin else option.flag


def _form(option: Option) -> str:
    if not option.metavar:
        return "on or off"
    words = option.metavar.split("|")
    if all(word.islower() for word in words):
        return "one of " + ", ".join(words)
    return f"{words[0]}, for example {option.example}" + (f", or {' or '.join(words[1:])}" if words[1:] else "")


def _entry(left: str, right: str) -> str:
    """Two columns, the right one broken between words."""
    lines = [""]
    for word in right.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > _WIDTH - _COLUMN:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return f"  {left}\n" + "".join(f"{' ' * _COLUMN}{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
