"""NATS keys, JWTs and the authority that issues them: against the reference implementation where there is one."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nkeys
import pytest

from jetway.adapters.authority import nats_accounts as accounts
from jetway.adapters.authority.nats_jwt import read, sign
from jetway.adapters.authority.nats_keys import NATS_FILE, load_or_create_nats_keys, read_signing_key
from jetway.adapters.authority.nats_users import GivenSigner, NatsUsers, OwnSigner
from jetway.adapters.authority.nkeys import Kind, NatsKey, read_public, verify
from jetway.adapters.nats.storedir import OPEN_ACCOUNT, move_to_account
from jetway.core.errors import PortError, RefusedError, StartupError
from jetway.core.grants import Grant, GrantNames, grant, tags, template
from jetway.core.ids import Lineage, ServiceType

NOW = datetime(2026, 11, 24, 12, 0, 0, 700_000, UTC)
AGENT = Lineage(ServiceType.AGENT, "p1", "a1")
CHECKER = Lineage(ServiceType.CHECKER, "p1", "a1", "c1")


@pytest.mark.parametrize("kind", Kind)
def test_keys_are_those_of_the_reference(kind: Kind) -> None:
    key = NatsKey.generate(kind)
    reference = nkeys.from_seed(key.seed.encode())
    assert reference.public_key.decode() == key.public
    assert key.public[0] == key.seed[1] == kind.letter
    assert reference.sign(b"message") == key.sign(b"message")
    assert NatsKey.from_seed(key.seed, kind).public == key.public
    assert verify(key.public, kind, b"message", reference.sign(b"message"))
    assert not verify(key.public, kind, b"massage", reference.sign(b"message"))


def test_a_key_shows_its_seed_nowhere() -> None:
    key = NatsKey.generate(Kind.USER)
    assert key.seed not in repr(key)
    with pytest.raises(ValueError) as caught:
        NatsKey.from_seed(key.seed[:-1] + ("A" if key.seed[-1] != "A" else "B"), Kind.USER)
    assert key.seed[:20] not in str(caught.value)


def test_only_the_right_kind_and_spelling_of_a_key_is_read() -> None:
    user, account = NatsKey.generate(Kind.USER), NatsKey.generate(Kind.ACCOUNT)
    for text in (
        account.public,
        user.seed,
        user.public.lower(),
        user.public + "=",
        user.public[:-1],
        user.public[:-1] + ("A" if user.public[-1] != "A" else "B"),
        " " + user.public[1:],
        "U" * 56,
        "Ü" * 56,
        "",
    ):
        with pytest.raises(ValueError):
            read_public(text, Kind.USER)
    with pytest.raises(ValueError):
        NatsKey.from_seed(account.seed, Kind.USER)


def test_a_jwt_is_read_back_and_not_when_it_was_altered() -> None:
    issuer, user = NatsKey.generate(Kind.ACCOUNT), NatsKey.generate(Kind.USER)
    token = sign(issuer, user.public, "name", {"type": "user"}, NOW, NOW + timedelta(days=30))
    claims = read(token)
    assert (claims["iss"], claims["sub"], claims["iat"]) == (issuer.public, user.public, 1_795_521_600)
    assert claims["exp"] - claims["iat"] == 30 * 86_400
    assert claims["nats"] == {"type": "user", "version": 2}
    assert token == sign(issuer, user.public, "name", {"type": "user"}, NOW, NOW + timedelta(days=30))
    header, payload, signature = token.split(".")
    other = sign(issuer, user.public, "other", {"type": "user"}, NOW).split(".")[1]
    for bad in (
        f"{header}.{other}.{signature}",
        f"{header}.{payload}.{signature[:-4]}",
        f"{header}.{payload}",
        f"{payload}.{payload}.{signature}",
        "..",
        "",
    ):
        with pytest.raises(ValueError):
            read(bad)


def test_too_long_a_jwt_is_not_looked_at() -> None:
    with pytest.raises(ValueError, match="too long"):
        read("." * (9 * 1024 * 1024))


def test_a_template_filled_in_is_the_grant() -> None:
    for lineage in (Lineage(ServiceType.POLLER, "p1"), AGENT, CHECKER):
        for watch in (False, True):
            made = template(GrantNames(), lineage.service_type, watch=watch)
            assert filled(made, lineage) == grant(GrantNames(), lineage, watch=watch)
            assert "{{" not in str(filled(made, lineage))


def filled(made: Grant, lineage: Lineage) -> Grant:
    def fill(subject: str) -> str:
        for tag in tags(lineage):
            name, _, value = tag.partition(":")
            subject = subject.replace(f"{{{{tag({name})}}}}", value)
        return subject

    return Grant(tuple(map(fill, made.publish)), tuple(map(fill, made.subscribe)))


def test_grants_follow_the_settings() -> None:
    names = GrantNames(
        heartbeat_prefix="x.beat",
        live_prefix="gw_edge.config",
        watch_bucket="gw_c_watch",
        js_api="$JS.hub.API",
    )
    made = grant(names, CHECKER)
    assert made.publish == (
        "x.beat.checker.p1.a1.c1",
        "jetway.renew.checker.p1.a1.c1",
        "$JS.hub.API.DIRECT.GET.KV_gw_c_watch.$KV.gw_c_watch.config.agents.a1.checkers.c1",
    )
    assert made.subscribe == ("_INBOX_checker_p1_a1_c1.>", "gw_edge.config.agents.a1.checkers.c1")


def test_keys_are_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    keys = load_or_create_nats_keys(tmp_path / "keys", first_time=True)
    file = tmp_path / "keys" / NATS_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    for first_time in (True, False):
        again = load_or_create_nats_keys(tmp_path / "keys", first_time=first_time)
        assert {name: key.seed for name, key in again.by_name.items()} == {
            name: key.seed for name, key in keys.by_name.items()
        }
    assert len({key.public for key in keys.by_name.values()}) == len(keys.by_name) == 8
    assert all(key.seed not in repr(keys) for key in keys.by_name.values())


def test_lost_open_or_damaged_keys_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"nats\.json is missing"):
        load_or_create_nats_keys(tmp_path, first_time=False)
    load_or_create_nats_keys(tmp_path, first_time=True)
    file = tmp_path / NATS_FILE
    file.chmod(0o640)
    with pytest.raises(StartupError, match="chmod 600"):
        load_or_create_nats_keys(tmp_path, first_time=True)
    file.chmod(0o600)
    seeds = json.loads(file.read_text())
    operator = seeds["operator"]
    for damaged in ("", "[]", json.dumps({**seeds, "gateway": operator}), json.dumps({"operator": operator})):
        file.write_text(damaged)
        with pytest.raises(StartupError, match="is damaged") as caught:
            load_or_create_nats_keys(tmp_path, first_time=True)
        assert operator[:20] not in str(caught.value)


def test_a_given_signing_key_is_checked(tmp_path: Path) -> None:
    account = NatsKey.generate(Kind.ACCOUNT)
    file = tmp_path / "account.nk"
    with pytest.raises(StartupError, match=r"account\.nk is missing"):
        read_signing_key(file)
    file.touch(0o600)
    file.write_text(f"{account.seed}\n")
    file.chmod(0o600)
    assert read_signing_key(file).public == account.public
    file.write_text(NatsKey.generate(Kind.USER).seed)
    with pytest.raises(StartupError, match="is not the seed of a NATS account key"):
        read_signing_key(file)


def test_own_credentials_leave_the_rights_to_the_signing_key(tmp_path: Path) -> None:
    keys = load_or_create_nats_keys(tmp_path, first_time=True)
    users = NatsUsers(OwnSigner(keys))
    public, seed = users.new_user()
    claims = read(issue(users, public, AGENT))
    assert claims["iss"] == keys.signing(ServiceType.AGENT).public
    assert claims["nats"] == {
        "type": "user",
        "version": 2,
        "issuer_account": keys.edge.public,
        "tags": ["poller:p1", "agent:a1"],
    }
    assert claims["exp"] == claims["iat"] + 3600
    message = b"renew me"
    assert users.verify(public, message, NatsKey.from_seed(seed, Kind.USER).sign(message))
    assert not users.verify(public, message, b"")
    assert not users.verify("nonsense", message, b"")


def test_credentials_by_a_given_key_say_every_right() -> None:
    key, account = NatsKey.generate(Kind.ACCOUNT), NatsKey.generate(Kind.ACCOUNT)
    users = NatsUsers(GivenSigner(key, account.public, GrantNames()))
    nats = read(issue(users, users.new_user()[0], CHECKER))["nats"]
    assert nats["issuer_account"] == account.public
    assert nats["pub"] == {"allow": list(grant(GrantNames(), CHECKER).publish)}
    assert nats["sub"] == {"allow": list(grant(GrantNames(), CHECKER).subscribe)}
    assert nats["subs"] > 0 and nats["payload"] > 0
    assert nats["allowed_connection_types"] == ["STANDARD", "WEBSOCKET"], "public_urls may be wss://"


def test_an_authority_without_a_key_issues_nothing_and_says_why() -> None:
    users = NatsUsers(None, "no key was given")
    assert not users.issues
    with pytest.raises(PortError, match="no key was given"):
        issue(users, users.new_user()[0], AGENT)
    with pytest.raises(RefusedError) as caught:
        users.check_key("nonsense")
    assert caught.value.refused.field == "nats_public_key"


def issue(users: NatsUsers, public: str, lineage: Lineage) -> str:
    lifetime = timedelta(hours=1)
    return users.issue(public_key=public, lineage=lineage, watch=False, now=NOW, lifetime=lifetime)


def test_the_edge_account_has_no_jetstream_and_denies_by_default(tmp_path: Path) -> None:
    keys = load_or_create_nats_keys(tmp_path, first_time=True)
    edge = read(accounts.edge_jwt(keys, GrantNames(), {"U": 5}, NOW))["nats"]
    assert "disk_storage" not in edge["limits"]
    assert edge["default_permissions"] == {"pub": {"deny": [">"]}, "sub": {"deny": [">"]}}
    assert edge["revocations"] == {"U": 5}
    assert {scope["role"] for scope in edge["signing_keys"]} == {"poller", "agent", "checker"}
    gateway = read(accounts.gateway_jwt(keys, GrantNames(), NOW, NOW))["nats"]
    assert gateway["limits"]["disk_storage"] == -1
    assert {one["subject"] for one in gateway["exports"]} == {one["subject"] for one in edge["imports"]}


def test_data_move_only_from_one_account_to_an_empty_one(tmp_path: Path) -> None:
    move_to_account(tmp_path / "none", "A")
    (tmp_path / OPEN_ACCOUNT / "streams" / "KV_x").mkdir(parents=True)
    (tmp_path / "A" / "streams").mkdir(parents=True)
    move_to_account(tmp_path, "A")
    assert [path.name for path in tmp_path.iterdir()] == ["A"]
    move_to_account(tmp_path, "A")
    move_to_account(tmp_path, OPEN_ACCOUNT)
    assert (tmp_path / OPEN_ACCOUNT / "streams" / "KV_x").is_dir()
