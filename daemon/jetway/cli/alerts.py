"""`jetway alerts`: whether alerts arrive."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from jetway.cli import local
from jetway.cli.errors import CommandError
from jetway.cli.options import ConfigOption

if TYPE_CHECKING:
    from jetway.settings import Settings

app = typer.Typer(help="Alerts to webhooks.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Alerts to webhooks."""


@app.command("test")
def test_webhooks(config: ConfigOption = None) -> None:
    """Send a test alert to every webhook of the settings, from this host, and say what became of it."""
    settings = local.load(config)
    if not settings.alerts.webhooks:
        raise CommandError(
            "alerts.webhooks: there are none in the settings; --config names the daemon's file"
        )
    with local.startup_errors():
        failed = asyncio.run(_send(settings))
    if failed:
        raise CommandError(
            f"{failed} of {len(settings.alerts.webhooks)} webhooks did not take the test alert"
        )


async def _send(settings: Settings) -> int:
    """How many failed."""
    from jetway.adapters.clock import RandomIdentifiers, SystemClock
    from jetway.adapters.webhooks import open_webhooks
    from jetway.core.alerts import TEST, encode_test
    from jetway.core.errors import PortError

    clock, failed = SystemClock(), 0
    alert_id = RandomIdentifiers().new_id()
    body = encode_test(alert_id, clock.now(), settings.public_url)
    senders = open_webhooks(settings.alerts, clock)
    for target, sender in zip(settings.alerts.webhooks, senders, strict=True):
        try:
            await sender.send(alert_id, TEST, body)
            typer.echo(f"{target.host}: taken")
        except PortError as error:
            failed += 1
            typer.echo(f"{target.host}: {error}")
    return failed
