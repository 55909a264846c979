"""The daemon's settings and modules, loaded for the commands that run on its own host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jetway.cli.errors import CommandError
from jetway.cli.places import find_state_dir, require_own

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
    """The effective settings, as `serve` has them. Raises CommandError."""
    from jetway.settings import load_settings

    overrides: dict[str, Any] = {} if state_dir is None else {"state_dir": state_dir.absolute()}
    with startup_errors():
        return load_settings(config, overrides=overrides)


def load_standing(config: Path | None, state_dir: Path | None = None) -> Settings:
    """The settings for a command that works on the state of this host's daemon, wherever it is.

    Where neither an option nor a setting names the directory it is looked for. Raises CommandError, also where it
    is another user's.
    """
    settings = load(config, state_dir)
    if "state_dir" not in settings.model_fields_set:
        settings = load(config, find_state_dir())
    require_own(settings.state_dir)
    return settings
