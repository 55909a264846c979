"""Jetway: the onboarding gateway for edge services.

One idea: every change of a service is one compare-and-swap on one key; everything else is derived from it.

The rooms, and what each may touch (imports go one way, a linter holds them):

    core/       decides. Values in, values out; no clock, no randomness, no I/O
    ports/      what the house needs from outside, as Protocols
    services/   one verb a file: issue, redeem, observe, administer, project, ... over the ports
    adapters/   one technology each (NATS, SQLite, keys, systemd); obeys, decides nothing
    entry/      doors: HTTP, heartbeats, the table of jobs. Parse, call one service, render
    app.py      the composition root: the only file that knows every adapter
    serving.py  the process around it: signals, systemd, exit status; upkeep.py: what is done beside it
    edge/       what runs on the edge host: join, run
    cli/        the command `jetway`, one file a group

    cli, app -> entry -> services -> ports -> core;   app -> adapters -> ports -> core

How a change travels: a door hands a command to a service; `services.recorder` reads the record from the ledger,
`core.lifecycle.step` decides, the recorder writes the next revision with compare-and-swap. From there the
index (every record in memory), the config documents, the registry rows and the audit events are derived, each
by a worker of its own that may lag but never loses and never goes backwards.
"""

__version__ = "0.1.0"
