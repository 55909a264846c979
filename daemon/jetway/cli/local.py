"""The daemon's settings and modules, loaded for the commands that run on its own host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jetway.cli.errors import CommandError

if TYPE_CHECKING:
    from jetway.settings import Settings


@contextmanager
def startup_errors() -> Iterator[None]:
    """Turn the product's own errors into one line."""
    from jetway.core.errors import PortError, RefusedError, StartupError

    try:
        yield
    except (StartupError, RefusedError, PortError) as error:
        raise CommandError(str(error)) from error


def load(config: Path | None, state_dir: Path | None = None) -> Settings:
    """The effective settings. Raises CommandError."""
    from jetway.settings import load_settings

    overrides: dict[str, Any] = {} if state_dir is None else {"state_dir": state_dir.absolute()}
    with startup_errors():
        return load_settings(config, overrides=overrides)
