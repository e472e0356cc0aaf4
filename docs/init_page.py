"""docs/reference/init.md, from the table of the flags of sidecar-init."""

from __future__ import annotations

from init.cli import names
from init.options import OPTIONS, Option

_HEAD = """\
# sidecar-init

<!-- Made from init/options.py and docs/init_page.py by make docs; change those, not this. -->

```
sidecar-init [FLAG ...]
```

Installs the rules that lead a pod's connections to its sidecar, and ends. It needs the capability `CAP_NET_ADMIN`
(`NET_ADMIN` in a pod), and neither `nft` nor `iptables`: the rules go to the kernel as netlink messages, all in one
table of their own, `inet sidecar`, which replaces the one before in one step. No other table is touched.

Each flag has a twin in the environment; where both are given the flag wins. Ports are written `80,8000-8100`, networks
`10.0.0.0/8,fd00::/8`; `*` stands for all and `none` for none. Run twice with the same flags it changes nothing the
second time, not even a counter.

```
$ sidecar-init --dry-run --inbound-ports 8080 --format nft    # what would be installed, as a script for nft
$ sidecar-init --show                                          # what each rule has counted
$ sidecar-init --verify --inbound-ports 8080                   # is that still what is installed?
```

## Exit codes

| code | meaning |
| --- | --- |
| 0 | done |
| 2 | the flags are wrong: a line for each |
| 3 | not permitted: `CAP_NET_ADMIN` is missing |
| 4 | the kernel refused: the line names the rule, and nothing was changed |
| 5 | the table is not what the flags would make |

## IPv6

The sidecar's inbound reaches the app from `::6`, as it does from `127.0.0.6` for IPv4. sidecar-init adds that address
to `lo`, where IPv6 is captured, and `--cleanup` takes it away again if it was added here. Under `auto` IPv6 is captured
if `lo` has it, or any interface has an address of it. Where it is not captured, each IPv6 connection that would have
been is dropped: nothing passes by unseen.

## The node's own namespace

In the network namespace of the node itself the rules would capture the whole node. It is known by a setting that the
kernel shows nowhere else (`net.core.netdev_budget`), and refused with exit code 2 unless `--allow-host-network` is
given; so is a namespace whose settings under `/proc/sys/net/core` can't be read. A pod that is a virtual machine
(Kata Containers) may have its network there, and then needs that flag.
"""
_TABLE = "\n## {group}\n\n| flag | twin | default | meaning |\n| --- | --- | --- | --- |\n"


def text() -> str:
    """The page."""
    groups = dict.fromkeys(option.group for option in OPTIONS)
    tables = [
        _TABLE.format(group=group) + "".join(_row(option) for option in OPTIONS if option.group == group)
        for group in groups
    ]
    return _HEAD + "".join(tables)


def _row(option: Option) -> str:
    flag, default = names(option).replace("|", "\\|"), f"`{option.default}`" if option.metavar else ""
    return f"| `{flag}` | `{option.twin}` | {default} | {option.help} |\n"
