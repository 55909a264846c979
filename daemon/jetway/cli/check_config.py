"""`jetway check-config`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from jetway.cli import local
from jetway.cli.options import ConfigOption, StateDirOption


def check_config(
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of TOML.")] = False,
) -> None:
    """Check the settings, and print those in effect with secrets hidden."""
    from jetway.effective import describe

    effective = describe(local.load(config, state_dir))
    typer.echo(json.dumps(effective, indent=2) if as_json else "\n".join(_toml(effective)))


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
