"""Options and arguments that several commands take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

_DURATION = re.compile(r"^(\d+)(s|m|h|d)?$")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
TYPES = ("poller", "agent", "checker")


def service_type(text: str) -> str:
    """`agent` from `agent` or `agents`."""
    singular = text.lower().removesuffix("s")
    if singular not in TYPES:
        raise typer.BadParameter(f"must be one of {', '.join(TYPES)}")
    return singular


def seconds(text: str | int) -> int:
    """`90`, `30s`, `15m`, `24h` or `90d` in seconds. A default comes as a number."""
    match = _DURATION.match(str(text))
    if match is None:
        raise typer.BadParameter("must be a number and a unit: s, m, h or d, for example 24h")
    return int(match[1]) * _UNITS[match[2] or "s"]


def pairs(items: list[str] | None, option: str) -> dict[str, str]:
    """`k=v` options as a dictionary. A key that comes twice is wrong usage."""
    found: dict[str, str] = {}
    for item in items or []:
        key, equals, value = item.partition("=")
        if not equals or not key or key in found:
            reason = f"{key!r} is given twice" if key in found else f"{item!r} is not KEY=VALUE"
            raise typer.BadParameter(reason, param_hint=option)
        found[key] = value
    return found


def given(**fields: Any) -> dict[str, Any]:
    """The fields that somebody set."""
    return {name: value for name, value in fields.items() if value not in (None, "", {}, [])}


TypeArgument = Annotated[
    str,
    typer.Argument(parser=service_type, metavar="TYPE", help="poller, agent or checker.", show_default=False),
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The service's id.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the API's JSON.")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Show at most so many.", show_default="all")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
CascadeOption = Annotated[
    bool, typer.Option("--cascade/--no-cascade", help="Take out what lives beneath, too.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only show what would happen.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for the history.", show_default=False)]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", envvar="JETWAY_CONFIG", help="The settings, a TOML file.", show_default=False),
]
StateDirOption = Annotated[
    Path | None, typer.Option("--state-dir", help="Where the daemon keeps its state.", show_default=False)
]
DirOption = Annotated[
    Path, typer.Option("--dir", metavar="DIR", help="The folder of the joined service.", show_default=False)
]
