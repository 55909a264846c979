"""How a host joins, step by step: what its operator copies. No command holds the token; each asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from jetway.entry.http.packages import install_commands
from jetway.setting_types import is_loopback

DOCKERFILE = """\
FROM python:3.12-slim
COPY edge_jetway-*.whl /tmp/
RUN pip install --no-cache-dir /tmp/edge_jetway-*.whl \\
 && useradd --uid 10001 jetway-edge && install -d -o jetway-edge -m 700 /state
USER jetway-edge
VOLUME /state
ENTRYPOINT ["jetway"]
CMD ["run", "--dir", "/state"]
"""
"""The image of an edge host. There is no ready one: operators build it; docs/edge.md has the same lines."""
_UNITS = """\
install -m 644 jetway-edge.sysusers.conf /etc/sysusers.d/jetway-edge.conf
install -m 644 jetway-edge.tmpfiles.conf /etc/tmpfiles.d/jetway-edge.conf
install -m 644 jetway-edge@.service /etc/systemd/system/jetway-edge@.service
systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload
python3 -m venv /opt/jetway && /opt/jetway/bin/pip install ./edge_jetway-*.whl"""
_RUN_OPTIONS = (
    "--restart unless-stopped --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges"
)


@dataclass(frozen=True, slots=True)
class Step:
    """One command, or a few that belong together."""

    name: str
    title: str
    command: str


@dataclass(frozen=True, slots=True)
class Way:
    """One way of joining, as a whole."""

    name: str
    title: str
    about: str
    steps: tuple[Step, ...]


def ways(public_url: str, service_id: str, pin: str = "") -> list[Way]:
    """All ways, the shortest first. `pin` is of the gateway's own authority, empty where it has none."""
    commands = install_commands(public_url, service_id, pin)
    folder = f"/etc/jetway-edge/{service_id}"
    return [
        Way(
            "python",
            "With Python",
            "Python 3.11 or newer is on the host, and the wheel edge_jetway-*.whl, which you build, is in this"
            " directory. A script gives the token to join with --token-file FILE.",
            (
                Step("python", "Join", commands.python),
                Step("run", "Then keep it alive", f"jetway run --dir {folder}"),
            ),
        ),
        Way(
            "shell",
            "With a shell alone",
            "It unpacks the same files with a start script, which sends heartbeats with what the host has."
            " A script gives it the token as JETWAY_JOIN_TOKEN in the environment.",
            (
                Step("shell", "Join", commands.shell),
                Step("start", "Then keep it alive", f"{folder}/start.sh"),
            ),
        ),
        _docker(public_url, service_id),
        Way(
            "systemd",
            "With systemd",
            "As root. The three files jetway-edge* are in the folder systemd of Jetway's sources; put the wheel"
            " edge_jetway-*.whl, which you build, beside them."
            " A script gives the token to join on standard input.",
            (
                Step("units", "Once for a host, in that folder", _UNITS),
                Step(
                    "systemd-join",
                    "Join",
                    f"runuser -u jetway-edge -- /opt/jetway/bin/jetway join --dir {folder}",
                ),
                Step("systemd", "Then keep it alive", f"systemctl enable --now jetway-edge@{service_id}"),
            ),
        ),
    ]


def _docker(public_url: str, service_id: str) -> Way:
    name = f"jetway-{service_id}"
    # A gateway on this machine's loopback is not to be found from within a container's own network.
    network = " --network host" if is_loopback(urlsplit(public_url).hostname or "") else ""
    state = f"{network} -v {name}:/state"
    return Way(
        "docker",
        "With Docker",
        "There is no ready image: it is built here from a few lines and the wheel edge_jetway-*.whl, which you"
        " build, in this directory. The volume keeps the keys and the"
        " configuration, so a new container goes on as the same service."
        " A script joins with -i in the place of -it, and gives the token on standard input.",
        (
            Step(
                "image",
                "Once for a host: the image",
                f"docker build -t jetway-edge -f - . <<'END'\n{DOCKERFILE}END",
            ),
            Step(
                "docker-join",
                "Join",
                f'docker run --rm -it{state} jetway-edge join --dir /state --hostname "$(hostname)"',
            ),
            Step(
                "docker",
                "Then keep it alive",
                f"docker run -d --name {name} {_RUN_OPTIONS}{state} jetway-edge",
            ),
        ),
    )


def is_plain(public_url: str) -> bool:
    """Whether the token would cross a network unencrypted: `jetway join` then wants to be told."""
    url = urlsplit(public_url)
    return url.scheme == "http" and not is_loopback(url.hostname or "")
