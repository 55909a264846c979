"""The program: all command groups put together."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Annotated

import typer

from jetway import __version__
from jetway.cli import (
    alerts,
    api_token,
    audit,
    backup,
    check_config,
    derived,
    import_,
    job,
    join,
    keys,
    maintenance,
    migrate,
    package,
    run,
    serve,
    service,
)

_DEMO = "jetway.cli.demo"


def build() -> typer.Typer:
    """The whole command line."""
    # Plain help and errors: they read the same in a log, and need not load rich.
    app = typer.Typer(
        name="jetway",
        help="Onboarding gateway for edge services: packages, a registry, liveness and audit over NATS.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_top)
    app.command("serve")(serve.serve)
    if importlib.util.find_spec(_DEMO) is not None:
        app.command("demo")(_demo)
    app.command("check-config")(check_config.check_config)
    app.command("migrate")(migrate.migrate)
    app.command("backup")(backup.backup)
    app.command("restore")(backup.restore)
    app.command("import")(import_.import_services)
    app.add_typer(package.app, name="package")
    app.add_typer(service.app, name="service")
    app.add_typer(api_token.app, name="api-token")
    app.add_typer(job.app, name="job")
    app.add_typer(alerts.app, name="alerts")
    app.add_typer(maintenance.app, name="maintenance")
    app.add_typer(keys.app, name="keys")
    app.add_typer(audit.app, name="audit")
    app.command("reconcile")(derived.reconcile)
    app.command("reproject")(derived.reproject)
    app.command("join")(join.join)
    app.command("run")(run.run)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jetway {__version__}")
        raise typer.Exit


def _top(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Onboarding gateway for edge services: packages, a registry, liveness and audit over NATS.

    The client commands find the daemon of this host by themselves; JETWAY_URL and JETWAY_TOKEN point them
    elsewhere.
    """


def _demo(
    once: Annotated[bool, typer.Option("--once", help="Exit 0 when all three services are active.")] = False,
    port: Annotated[int, typer.Option(help="Port of the HTTP API; 0: any free one.", min=0, max=65535)] = 0,
) -> None:
    """Show everything at once, in a throw-away directory and on free ports."""
    demo = importlib.import_module(_DEMO)
    raise typer.Exit(demo.demo_command(once=once, port=port) or 0)
