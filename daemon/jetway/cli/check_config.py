"""`jetway check-config`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jetway.cli import local
from jetway.cli.options import ConfigOption, StateDirOption

if TYPE_CHECKING:
    from jetway.settings import Settings

HIDDEN = "[hidden]"
_USERINFO = re.compile(r"(?<=://)[^/\s]+(?=@)")


def check_config(
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of TOML.")] = False,
) -> None:
    """Check the settings, and print those in effect with secrets hidden."""
    effective = describe(local.load(config, state_dir))
    typer.echo(json.dumps(effective, indent=2) if as_json else "\n".join(_toml(effective)))


def describe(settings: Settings) -> dict[str, Any]:
    """The settings as plain values, what is derived from others filled in, secrets hidden."""
    effective = settings.model_dump(mode="json")
    effective["http"]["public_url"] = settings.public_url
    effective["nats"]["public_urls"] = list(settings.nats_public_urls)
    # Of the secret, the database's URL, all but a password is worth seeing.
    effective["database"]["url"] = settings.database_url
    hidden: dict[str, Any] = _hide(effective)
    return hidden


def _hide(value: Any) -> Any:
    """User and password out of all URLs."""
    if isinstance(value, dict):
        return {name: _hide(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_hide(item) for item in value]
    return _USERINFO.sub(HIDDEN, value) if isinstance(value, str) else value


def _toml(settings: dict[str, Any]) -> Iterator[str]:
    """Top-level keys first, then a table a section; what is not set stands as a comment."""
    sections = {name: value for name, value in settings.items() if isinstance(value, dict)}
    yield from (_line(name, value) for name, value in settings.items() if name not in sections)
    for name, section in sections.items():
        yield ""
        yield f"[{name}]"
        yield from (_line(key, value) for key, value in section.items())


def _line(key: str, value: Any) -> str:
    if value is None:
        return f"# {key} is not set"
    # JSON's strings, numbers, truth values and flat lists are TOML as well.
    return f"{key} = {json.dumps(value, ensure_ascii=False)}"
