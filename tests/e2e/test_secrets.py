"""Every secret of a run is looked for in everything that the run left or said.

The real daemon with HTTPS, TLS and credentials at NATS, its log at `debug`. What may hold a secret stands here:
`keys/`, `admin.token` and `nats/admin.creds` on the gateway, and a host's own folder. A JWT without its seed is no
secret; a seed that the gateway made is in the ledger as ciphertext, until the service is active.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from support.daemon import PACKAGES, SERVICES, Answer, Daemon, environment, eventually, jetway, require_gone
from support.ports import free_port

SECRET_FILES = {"admin.token", "nats/admin.creds"}
"""In the state directory, beside keys/."""
SEED = re.compile(r"\bS[AOU][A-Z2-7]{56}\b")
WRONG = "jwa_" + "wrong-but-somebodys-all-the-same"


class SecureDaemon(Daemon):
    """A daemon that is called over HTTPS; it remembers every answer."""

    answers: list[bytes]

    def call(self, method: str, path: str, body: object = None, **more: Any) -> Answer:
        """One call, by the gateway's own authority."""
        address = urlsplit(self.url)
        context = ssl.create_default_context(cafile=str(self.state / "keys" / "ca.pem"))
        connection = http.client.HTTPSConnection(
            address.hostname or "", address.port, timeout=60, context=context
        )
        token = self.token if more.get("token") is None else more["token"]
        headers = {"Content-Type": "application/json"} if body is not None else {}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        with contextlib.closing(connection):
            data = None if body is None else json.dumps(body)
            connection.request(method, path, body=data, headers={**headers, **(more.get("headers") or {})})
            response = connection.getresponse()
            shown = {name.lower(): value for name, value in response.getheaders()}
            answer = Answer(response.status, shown, response.read())
        self.answers.append(repr(shown).encode() + answer.body)
        return answer


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[SecureDaemon]:
    port = free_port()
    made = SecureDaemon(
        tmp_path / "gateway",
        JETWAY_HTTP__TLS="own",
        JETWAY_HTTP__FAILURES_PER_MINUTE="100000",
        JETWAY_NATS__LISTEN=f"0.0.0.0:{port}",
        JETWAY_NATS__PUBLIC_URLS=json.dumps([f"tls://127.0.0.1:{port}"]),
        JETWAY_LOG__LEVEL="debug",
    )
    made.answers = []
    try:
        yield made.start()
    finally:
        made.discard()


class Planted:
    """The secrets of the run, by what they are."""

    def __init__(self) -> None:
        self._secrets: dict[str, list[bytes]] = {}

    def add(self, name: str, text: str) -> None:
        """A secret text, in every form in which it could show."""
        data = text.encode()
        self._secrets.setdefault(name, []).extend(_forms(data))

    def add_key(self, name: str, pem: str) -> None:
        """A private key: its text, and the bytes of the key itself."""
        body = pem.partition("PRIVATE KEY-----")[2].partition("-----END")[0]
        lines = body.split()
        raw = base64.b64decode("".join(lines))
        # PKCS #8 has 36 bytes before the number of a P-256 key, and 16 before that of an Ed25519 one.
        secret = raw[36:68] if len(raw) > 100 else raw[16:48]
        assert len(secret) == 32
        self._secrets.setdefault(name, []).extend([lines[0].encode(), *_forms(secret)])

    def add_token(self, name: str, token: str) -> None:
        """A package token: whole, its secret in the claims, its signature."""
        head, claims, signature = token.split(".")
        self.add(name, token)
        self.add(name, signature)
        del head, claims

    @property
    def names(self) -> set[str]:
        return set(self._secrets)

    def found_in(self, data: bytes) -> set[str]:
        """Names of the secrets that stand there."""
        return {name for name, forms in self._secrets.items() if any(form in data for form in forms)}


def _forms(data: bytes) -> list[bytes]:
    return [
        data,
        data.hex().encode(),
        base64.b64encode(data).rstrip(b"="),
        base64.urlsafe_b64encode(data).rstrip(b"="),
    ]


class Run:
    """What is done in the run, and what it said on its way."""

    def __init__(self, daemon: SecureDaemon, folder: Path) -> None:
        self.daemon, self.folder, self.planted, self.said = daemon, folder, Planted(), list[bytes]()
        self.packages: dict[str, str] = {}

    def create(self, kind: str, name: str, parent: str = "") -> str:
        answer = self.daemon.create(kind, name, parent)
        self.daemon.answers.pop()  # the one answer that shows the token
        del answer["install"]["shell"]
        token = str(answer.pop("token"))
        self.daemon.answers.append(json.dumps(answer).encode())
        self.planted.add_token(f"token of {name}", token)
        self.packages[name] = answer["package"]["package_id"]
        return token

    def join(self, name: str, token: str) -> Path:
        """With the real command; the host's own folder holds its keys."""
        folder = self.folder / name
        done = jetway("join", "--dir", str(folder), given=token)
        self.said.append((done.stdout + done.stderr).encode())
        assert done.returncode == 0, done.stderr
        (seed,) = set(SEED.findall((folder / "nats.creds").read_text()))
        self.planted.add(f"NATS seed of {name}", seed)
        self.planted.add_key(f"certificate key of {name}", (folder / "key.pem").read_text())
        return folder

    def redeem_without_keys(self, name: str, token: str) -> Mapping[str, Any]:
        """As a host that cannot make a key: what the gateway made is shown once."""
        answer = self.daemon.redeem(token)
        assert answer.status == 200, answer.body
        self.daemon.answers.pop()
        creds = answer.json["nats"]["creds"]
        (seed,) = set(SEED.findall(creds))
        self.planted.add(f"server-made NATS seed of {name}", seed)
        return dict(answer.json)

    def api_token(self, name: str, role: str) -> str:
        answer = self.daemon.call("POST", "/api/admin/api-tokens", {"name": name, "role": role})
        self.daemon.answers.pop()
        text = str(answer.json["token"])
        self.planted.add(f"API token {name}", text)
        return text

    def plant_the_gateways(self) -> None:
        """All that stands in keys/, and the two files beside it."""
        state = self.daemon.state
        self.planted.add("admin.token", self.daemon.token)
        for seed in SEED.findall((state / "nats" / "admin.creds").read_text()):
            self.planted.add("admin.creds", seed)
        for file in (state / "keys").iterdir():
            text = file.read_text()
            if "PRIVATE KEY" in text:
                self.planted.add_key(file.name, text)
            elif file.suffix == ".json":
                for name, seed in json.loads(text).items():
                    self.planted.add(f"{file.name} {name}", seed)
            elif file.suffix in (".key", ".keys"):
                for line in text.split():
                    self.planted.add(file.name, line)
                    self.planted.add(file.name, base64.b64decode(line).hex())


def test_no_secret_of_a_run_is_found_where_it_must_not_be(daemon: SecureDaemon, tmp_path: Path) -> None:
    run = Run(daemon, tmp_path / "hosts")
    run.plant_the_gateways()
    made = {"admin.token", "admin.creds", "ca-key.pem", "https.pem", "token-signing.pem", "token-secret.key"}
    assert made | {"vault.keys", "nats.json operator", "nats.json edge-agent"} <= run.planted.names
    viewer = run.api_token("seen", "viewer")
    revoked = run.api_token("ended", "operator")
    _live(run, viewer, revoked)

    for what, data in _everything(run):
        assert run.planted.found_in(data) == set(), what

    assert daemon.stop() == 0
    for what, data in _files(daemon):
        assert run.planted.found_in(data) == set(), what
    daemon.check_log()


def _live(run: Run, viewer: str, revoked: str) -> None:
    """A day in the life of a gateway, with all that goes wrong in it."""
    daemon = run.daemon
    token = run.create("poller", "site-a")
    folder = run.join("site-a", token)
    with _running(folder) as host:
        eventually(lambda: _require_status(daemon, "poller", "site-a", "active"))
        _no_secret_in_processes(run, [daemon.process.pid if daemon.process else 0, daemon.nats_pid, host.pid])
    run.create("agent", "waiting", "site-a")
    run.redeem_without_keys("handed-out", run.create("agent", "handed-out", "site-a"))
    spent = run.create("agent", "cut-off", "site-a")
    run.join("cut-off", spent)
    daemon.call("POST", f"{PACKAGES}/{run.packages['cut-off']}/revoke", {"reason": "stolen"})
    reissued = daemon.call("POST", f"{PACKAGES}/{run.packages['cut-off']}/reissue", {})
    daemon.answers.pop()
    run.planted.add_token("reissued token", reissued.json["token"])

    # Whoever puts a secret where it does not belong gets an error that does not repeat it.
    for secret in (token, spent, viewer, revoked, daemon.token):
        for path in (f"{SERVICES}/pollers/{secret}", f"{SERVICES}/pollers?q={secret}", f"/{secret}"):
            daemon.call("GET", path)
            daemon.call("GET", path, token=secret)
        daemon.call("POST", f"/api/edge/redeem?token={quote(secret)}", {"token": secret}, token="")
        daemon.call("POST", "/api/edge/redeem", {"token": secret[:-2], "csr_pem": secret}, token="")
        daemon.call("POST", PACKAGES, {"component_type": secret, secret[:20]: 1})
        daemon.call("GET", f"{SERVICES}/tree", headers={"Authorization": secret})
    daemon.call("DELETE", "/api/admin/api-tokens/ended")
    daemon.call("GET", f"{SERVICES}/tree", token=revoked)
    daemon.call("POST", "/api/admin/api-tokens", {"name": "x", "role": "admin"}, token=viewer)


def _everything(run: Run) -> Iterator[tuple[str, bytes]]:
    """All that can be read of a running gateway, with a proof that the search would have found something."""
    daemon, package = run.daemon, run.packages["site-a"].encode()
    _ask_everything(run)
    answers = b"\n".join(daemon.answers)
    assert package in answers
    yield "answers of the API", answers
    yield "what the commands said", b"\n".join(run.said)
    for name in ("package", "service", "api-token"):
        listed = daemon.command(name, "list", "--json")
        assert listed.returncode == 0, listed.stderr
        yield f"jetway {name} list", (listed.stdout + listed.stderr).encode()
    settings = daemon.command("check-config")
    yield "jetway check-config", (settings.stdout + settings.stderr).encode()
    log = daemon.log_text().encode()
    assert b'"debug"' in log
    assert package in log
    yield "the log", log


def _ask_everything(run: Run) -> None:
    """Every GET that the API has, for everything that there is."""
    daemon = run.daemon
    values = {
        "package_id": list(run.packages.values()),
        "service_id": list(run.packages),
        "kind": ["pollers", "agents", "checkers"],
    }
    paths = daemon.call("GET", "/openapi.json").json["paths"]
    asked = 0
    for path in (path for path, methods in paths.items() if "get" in methods and not path.endswith("/watch")):
        for filled in _filled(path, values):
            asked += daemon.call("GET", filled).status == 200
    assert asked > 25


def _filled(path: str, values: Mapping[str, list[str]]) -> list[str]:
    found = re.search(r"{(\w+)}", path)
    if found is None:
        return [path]
    known = values.get(found[1], [*values["service_id"], *values["kind"]])
    return [done for value in known for done in _filled(path.replace(found[0], value, 1), values)]


def _files(daemon: Daemon) -> Iterator[tuple[str, bytes]]:
    """The state directory without what is made to hold secrets: the database, every stream and bucket, raw."""
    everything = b""
    for file in sorted(daemon.state.rglob("*")):
        name = file.relative_to(daemon.state).as_posix()
        if not file.is_file() or name.startswith("keys/") or name in SECRET_FILES:
            continue
        data = file.read_bytes()
        everything += name.encode() + data
        yield name, data
    for control in (b"registry.db", b"KV_registry", b"KV_config", b"REGISTRY_EVENTS", b"KV_api_tokens"):
        assert control in everything, control
    assert everything.count(b"handed-out") > 3, "the search reads what is stored"
    assert b"sealed_seed" in everything


async def test_no_secret_is_in_any_message_that_nats_hands_out(daemon: SecureDaemon, tmp_path: Path) -> None:
    run = Run(daemon, tmp_path / "hosts")
    run.plant_the_gateways()
    run.api_token("seen", "viewer")
    run.create("poller", "site-a")
    run.redeem_without_keys("handed-out", run.create("agent", "handed-out", "site-a"))
    nats = daemon.state / "nats"
    client = Client()
    context = ssl.create_default_context(cafile=nats / "ca.pem")
    url = json.loads((daemon.state / "daemon.json").read_text())["nats_urls"][0]
    await client.connect(url, user_credentials=str(nats / "admin.creds"), tls=context, connect_timeout=30)
    jetstream, seen = client.jetstream(timeout=30), dict[str, bytes]()
    try:
        for info in await jetstream.streams_info():
            stream = str(info.config.name)
            # One that never held a message begins at 0, where none can stand.
            for sequence in range(max(1, info.state.first_seq), info.state.last_seq + 1):
                try:
                    message = await jetstream.get_msg(stream, sequence)
                except NotFoundError:  # another has taken its place meanwhile
                    continue
                whole = (
                    (message.subject or "").encode() + (message.data or b"") + repr(message.headers).encode()
                )
                assert run.planted.found_in(whole) == set(), f"{stream} {sequence}"
                seen[stream] = seen.get(stream, b"") + whole
    finally:
        await client.close()
    for stream in ("KV_registry", "KV_config", "KV_api_tokens", "REGISTRY_EVENTS"):
        assert seen.get(stream), list(seen)
    for package in run.packages.values():
        assert package.encode() in seen["KV_registry"], "the search reads what is handed out"
    assert b"sealed_seed" in seen["KV_registry"]


def test_the_search_finds_what_is_there() -> None:
    planted = Planted()
    planted.add("text", "SUsomething-secret")
    for form in (
        b"SUsomething-secret",
        b"SUsomething-secret".hex().encode(),
        base64.b64encode(b"SUsomething-secret"),
    ):
        assert planted.found_in(b"x" + form + b"y") == {"text"}
    assert planted.found_in(b"SUsomething-other") == set()


@pytest.mark.parametrize("in_file", [False, True], ids=["in the URL", "in a file"])
def test_the_password_of_the_database_is_not_said(tmp_path: Path, in_file: bool) -> None:
    """The database is away, so all that is said of it is said."""
    planted, password, file = Planted(), "pass-word-of-the-database", tmp_path / "password"
    planted.add("password", password)
    url = "proton://jetway@127.0.0.1:1/x" if in_file else f"proton://jetway:{password}@127.0.0.1:1/x"
    settings = {"JETWAY_DATABASE__URL": url}
    if in_file:
        file.write_text(password)
        file.chmod(0o600)
        settings["JETWAY_DATABASE__PASSWORD_FILE"] = str(file)
    daemon = Daemon(tmp_path / "d", **settings, JETWAY_LOG__LEVEL="debug")
    try:
        server = daemon.start().nats_pid
        said = [daemon.call("GET", path).body for path in ("/readyz", "/metrics", f"{SERVICES}/tree")]
        for command in (("check-config",), ("migrate", "--status")):
            done = daemon.command(*command)
            said.append((done.stdout + done.stderr).encode())
        assert b"127.0.0.1:1" in b"".join(said)
        assert planted.found_in(b"".join(said) + daemon.log_text().encode()) == set()
        assert daemon.process is not None
        for pid in (daemon.nats_pid, daemon.process.pid):
            assert planted.found_in(Path(f"/proc/{pid}/cmdline").read_bytes()) == set()
        assert planted.found_in(Path(f"/proc/{daemon.nats_pid}/environ").read_bytes()) == set()
    finally:
        daemon.discard()
    eventually(lambda: require_gone(server))  # it writes until its end
    for what, data in ((str(path), path.read_bytes()) for path in daemon.state.rglob("*") if path.is_file()):
        assert planted.found_in(data) == set(), what


@contextlib.contextmanager
def _running(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "jetway", "run", "--dir", str(folder)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def _require_status(daemon: Daemon, kind: str, name: str, status: str) -> None:
    assert daemon.service(kind, name)["status"] == status


def _no_secret_in_processes(run: Run, pids: list[int]) -> None:
    for pid in pids:
        for part in ("cmdline", "environ"):
            data = Path(f"/proc/{pid}/{part}").read_bytes()
            assert data, f"{part} of {pid} is readable"
            assert run.planted.found_in(data) == set(), f"{part} of {pid}"
