"""What schemathesis is told about the API beyond its description. Loaded by schemathesis, not by pytest.

Left to itself it calls things that are not there with parents that do not exist, and learns that this is refused.
So half of what it sends as valid is turned to things that earlier answers have shown: then the calls reach what
they are for. What it sends as invalid stays as it is, and the half that is left too.
"""

from __future__ import annotations

import json
import os
import random
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import schemathesis
from schemathesis import Case, Response
from schemathesis.core.failures import Failure

from jetway.core.grants import RENEW_PREFIX
from jetway.core.heartbeat import parse_subject
from jetway.core.renewal import make_request
from jetway.edge.keys import HostKeys, make, sign_with

OWN_TOKEN = "admin"
"""The name of the token that every call here uses."""

_TOKENS = "/api/admin/api-tokens"
_PACKAGES = "/api/admin/edge-packages"
_SERVICES = "/api/admin/services/{plural}"
_ACTIONS = "/api/admin/services/actions"
_REDEEM = "/api/edge/redeem"
_RENEW = "/api/edge/renew"
_MAINTENANCE = "/api/admin/maintenance"
_BULK = "/api/admin/edge-packages/bulk"
_RUNS = "/api/admin/jobs/{name}/runs"
_PARENT = {"agent": "poller", "checker": "agent"}
_NOT_IN_A_SCHEMA = {
    "cursor",  # one that was given out for this very list
    "parent_id",  # there is such a service, of the right type
    "checker_kind",  # for a checker, and for nothing else
    "checker_config",  # likewise
    "component_id",  # may be absent where the label has something to make an id of
    "Idempotency-Key",  # not used for another body before
    "token",  # of a package of this gateway
    "root",  # there is such a service
    "selector.ids",  # not together with filters
    "expected_count",  # as many as there are; absent for ids alone
    "If-Match",  # its pattern is in the schema, and yet values beside it are taken for valid ones
    "If-None-Match",  # likewise
    "csr_pem",  # a certificate request that verifies, or nothing
    "nats_public_key",  # with its checksum, or nothing
    "subject",  # of a service, as its place in the tree spells it
    "signature",  # base64url
    "timestamp",  # RFC 3339
    "service",  # exactly one of this and the next two
    "site",
    "label",
    "since",  # before `until`
    "until",  # to come
}
"""Fields with rules that JSON Schema cannot say: a refusal of nothing but these is right."""

_NO_INTEGER = "Input should be a valid integer"

_SERVICE = "/api/admin/services/{plural}/{service_id}"
_ADOPT = ("POST", "/api/admin/quarantine/{plural}/{service_id}/adopt")

_chance = random.Random(0)
_numbers = count()
_services: dict[str, list[str]] = {"poller": [], "agent": [], "checker": []}
_packages: list[str] = []
_tokens: list[str] = []
_cursors: dict[str, list[str]] = {}
_windows: list[str] = []
_made: dict[str, HostKeys] = {}
"""Keys that were sent with a token, by the public one."""
_hosts: dict[str, HostKeys] = {}
"""Keys of the services that were redeemed with them, by the service's address: `agent.<poller>.<agent>`."""

_prepared: list[str] = json.loads(os.environ["JETWAY_TEST_PREPARED_PACKAGES"])
_waiting: list[str] = json.loads(os.environ["JETWAY_TEST_WAITING_POLLERS"])
_revoked: list[str] = json.loads(os.environ["JETWAY_TEST_REVOKED_POLLERS"])
_fit_for: dict[tuple[str, str], list[str]] = {
    _ADOPT: _waiting[0::3],
    ("POST", f"{_SERVICE}/approve"): _waiting[1::3],
    ("POST", f"{_SERVICE}/reject"): _waiting[2::3],
    ("DELETE", _SERVICE): _revoked[0::2],
    ("POST", f"{_SERVICE}/reissue"): _revoked[1::2],
}
"""Pollers for what few services allow at any moment: the first valid calls of it go to them."""
for _known, _ids in json.loads(os.environ["JETWAY_TEST_KNOWN_SERVICES"]).items():
    _services[_known] += _ids


@schemathesis.hook
def before_call(context: Any, case: Case, kwargs: dict[str, Any]) -> None:
    """Turn half of the valid calls to what exists, and keep the token alive that all calls use."""
    path = case.path_parameters
    if case.path == f"{_TOKENS}/{{name}}" and path["name"] == OWN_TOKEN:
        path["name"] = "spare"
    if not case.meta or not case.meta.generation.mode.is_positive:
        return
    fit = _fit_for.get((case.method, case.path))
    if not fit and _chance.random() < 0.5:
        return
    _drop_conditions(case)
    if fit:
        path.update(plural="pollers", service_id=fit.pop())
        if (case.method, case.path) == _ADOPT:
            case.body = {"package_id": _prepared.pop()}
    else:
        _name_what_exists(path, _kind(case))
    if isinstance(case.query, dict) and "cursor" in case.query:
        _use_a_cursor(case)
    if isinstance(case.body, dict):
        _send_what_can_be_done(case)


def _drop_conditions(case: Case) -> None:
    """Made-up versions match nothing."""
    for name in ("If-Match", "If-None-Match"):
        if case.headers and name in case.headers:
            del case.headers[name]


def _kind(case: Case) -> str:
    """The type of service that a path is about."""
    if "plural" in case.path_parameters:
        return str(case.path_parameters["plural"]).removesuffix("s")
    return "agent" if "/agents/" in case.path else "poller"


def _name_what_exists(path: dict[str, Any], kind: str) -> None:
    if "service_id" in path and _services.get(kind) and path["service_id"] not in _services[kind]:
        path["service_id"] = _chance.choice(_services[kind])
    if "package_id" in path and _packages and path["package_id"] not in _packages:
        path["package_id"] = _chance.choice(_packages[-20:])
    if "window_id" in path and _windows:
        path["window_id"] = _windows.pop()


def _use_a_cursor(case: Case) -> None:
    known = _cursors.get(case.path)
    if known:
        case.query["cursor"] = _chance.choice(known)
    else:
        del case.query["cursor"]


def _send_what_can_be_done(case: Case) -> None:
    body = case.body
    if case.path == _ACTIONS and "action" in body:
        _ask_for_a_preview(body)
    elif case.path == _REDEEM and _tokens:
        _redeem_as_a_host(case)
    elif case.path == _RENEW and _hosts:
        address = _chance.choice(sorted(_hosts))
        case.body = json.loads(_signed_renewal(address, _hosts[address]))
    elif case.path == _MAINTENANCE:
        until = datetime.now(UTC) + timedelta(hours=1)
        body.update(service="", site="a-site", label="", since=None, until=until.isoformat())
    elif case.method == "POST" and case.path in (_PACKAGES, _SERVICES):
        packaged = case.path == _PACKAGES
        kind = str(body["component_type"]) if packaged else _kind(case)
        body["component_id" if packaged else "service_id"] = f"new-{next(_numbers)}"
        body["parent_id"] = _chance.choice(_services[_PARENT[kind]]) if kind in _PARENT else ""
        body["checker_kind"] = "icmp" if kind == "checker" else ""
        body["checker_config"] = None
        if "Idempotency-Key" in case.headers:
            case.headers["Idempotency-Key"] = f"key-{next(_numbers)}"


def _redeem_as_a_host(case: Case) -> None:
    """With keys of its own, or with none for an archive."""
    case.body.update(token=_tokens.pop(), csr_pem="", nats_public_key="")
    if _chance.random() < 0.5:
        case.headers["Accept"] = "application/gzip"
    else:
        keys = make("", 1, "any")
        _made[keys.nats_public_key] = keys
        case.body["nats_public_key"] = keys.nats_public_key


def _signed_renewal(address: str, keys: HostKeys) -> bytes:
    return make_request(
        parse_subject(f"{RENEW_PREFIX}.{address}", RENEW_PREFIX),
        nats_public_key=keys.nats_public_key,
        now=datetime.now(UTC),
        sign=lambda message: sign_with(keys.nats_seed, message),
        csr_pem=keys.csr_pem,
    )


def _ask_for_a_preview(body: dict[str, Any]) -> None:
    """Of ids or filters, and of a status where one is set; nothing is done to all services of the others."""
    body.update(dry_run=True, expected_count=None)
    body["selector"].pop("ids", None)
    body["status"] = body.get("status") or "revoked" if body["action"] == "set-status" else None


@schemathesis.hook
def after_call(context: Any, case: Case, response: Response) -> None:
    """Remember what answers show."""
    answer = _json_of(response)
    if response.status_code not in (200, 201):
        return
    if answer.get("next_cursor"):
        _cursors.setdefault(case.path, []).append(answer["next_cursor"])
    if case.path == _REDEEM and response.status_code == 200 and answer:
        if keys := _made.get(case.body.get("nats_public_key", "")):
            _hosts[answer["heartbeat"]["subject"].removeprefix("edge.heartbeat.")] = keys
    elif case.path == _MAINTENANCE and response.status_code == 201:
        _windows.append(answer["window_id"])
    elif response.status_code == 201 and case.path != _TOKENS:
        service = answer.get("service", answer)
        _services[service["service_type"]].append(service["service_id"])
        if "package" in answer:
            _packages.append(answer["package"]["package_id"])
            _tokens.append(answer["token"])


def _json_of(response: Response) -> dict[str, Any]:
    """Empty for what is no JSON, or many values of it."""
    kind = response.headers.get("content-type", [""])[0].partition(";")[0]
    if kind not in ("application/json", "application/problem+json"):
        return {}
    answer: dict[str, Any] = json.loads(response.content)
    return answer


@schemathesis.hook
def filter_failure(context: Any, failure: Failure, case: Case, response: Response) -> bool:
    """Let pass what is right and looks wrong."""
    answer = _json_of(response)
    match type(failure).__name__:
        case "RejectedPositiveData":
            if response.status_code in (410, 412):  # it is over, or another version: as right as 404 and 409
                return False
            # To JSON Schema 30.0 is an integer, to the API it is none.
            named = {error["field"] for error in answer["errors"] if error["message"] != _NO_INTEGER}
            if answer["errors"] and not named:
                return False
            if case.media_type == "text/csv":
                return False  # described as text: which columns there are is told in words
            if case.path == _BULK and isinstance(case.body, dict):
                return "rows" in named  # its schema forbids all else, and yet some is sent as valid
            if case.path == _ACTIONS:
                named.discard("status")  # it goes with one of the actions alone
                return not named <= _NOT_IN_A_SCHEMA
            return not named or not named <= _NOT_IN_A_SCHEMA
        case "ServerError":
            return response.status_code != 503  # a ledger that does not answer in time: declared everywhere
        case "ResponseTimeExceeded":
            return case.path != _RUNS  # answered when the job has ended
        case "UseAfterFree":
            # A deleted service is shown as deleted until it is purged; its history outlives it.
            return answer.get("status") != "deleted" and not case.path.endswith("/events")
    return True
