"""The state tables: every transition of the system stands here.

Theory of operation. A service is `pending` until it is heard, `active` while it is, `inactive` after long
silence, and `revoked` once its rights end; a `revoked` or `inactive` one may be `deleted`, which keeps the
record (so that nobody can slip in under its id unnoticed) until it is purged. The way back is a reissue, which
makes the service `pending` again with a new package, or a creation over a deleted id, which begins a new
incarnation. A heartbeat can activate and reactivate; it never brings back what a person took away.

`TABLE` maps (command, status) to the function that decides. A status of None means that there is no record.
A pair that is absent is illegal: it is refused and changes nothing. A function returns the next record, the
same record when there is nothing to change, or a `Refused`. Whoever calls `step` writes the new record with
compare-and-swap; losing means reading again and deciding again.
"""

from __future__ import annotations

from collections.abc import Mapping

from jetway.core import commands as c
from jetway.core.errors import Code, Refused
from jetway.core.record import (
    ServiceRecord,
    ServiceStatus,
)
from jetway.core.transitions.entering import (
    admit_known,
    admit_new,
    issue_new,
    issue_over_deleted,
    issue_over_live,
    register_new,
    register_over_deleted,
    register_over_live,
    taken,
)
from jetway.core.transitions.hearing import (
    heard_active,
    heard_deleted,
    heard_inactive,
    heard_pending,
    heard_revoked,
    heard_unknown,
)
from jetway.core.transitions.leaving import (
    close,
    delete,
    delete_package,
    finish_cascade,
    reopen,
    revoke,
    revoke_again,
    withdraw,
)
from jetway.core.transitions.overriding import override
from jetway.core.transitions.passing import archive, deactivate, expire_package, expire_pending
from jetway.core.transitions.redeeming import redeem
from jetway.core.transitions.renewing import renew, renew_gone, reseal
from jetway.core.transitions.returning import approve, reissue, reject
from jetway.core.transitions.revision import ACTIVE, DELETED, INACTIVE, PENDING, REVOKED, Decide, Outcome


def step(record: ServiceRecord | None, command: c.Command, context: c.Context) -> Outcome:
    """What becomes of `record` when `command` is given: the next record, the same one, or a refusal."""
    status = record.status if record else None
    decide = TABLE.get(type(command), {}).get(status)
    if decide is None:
        return _illegal(record, command)
    return decide(record, command, context)


def _illegal(record: ServiceRecord | None, command: c.Command) -> Refused:
    if record is None:
        return Refused(Code.NOT_FOUND, "there is no such service")
    if record.status is DELETED:
        why = f"{record.service_type.value} {record.service_id!r} was deleted: create it anew to use the id again"
        return Refused(Code.ILLEGAL_TRANSITION, why)
    doing = _VERBS.get(type(command), type(command).__name__.lower())
    name = f"{record.service_type.value} {record.service_id!r}"
    return Refused(Code.ILLEGAL_TRANSITION, f"{name} is {record.status.value} and cannot be {doing}")


_VERBS: Mapping[type, str] = {
    c.Revoke: "revoked",
    c.Reissue: "reissued: revoke it first, or set it inactive",
    c.Approve: "approved",
    c.Reject: "rejected",
    c.Override: "set by hand: only a reissue brings it back",
    c.Delete: "deleted: revoke it first",
    c.Deactivate: "marked inactive",
    c.Archive: "archived",
    c.Close: "closed to children",
}


def _for(decide: Decide, *statuses: ServiceStatus) -> dict[ServiceStatus | None, Decide]:
    return dict.fromkeys(statuses, decide)


TABLE: Mapping[type, Mapping[ServiceStatus | None, Decide]] = {
    c.Issue: {
        None: issue_new,
        DELETED: issue_over_deleted,
        **_for(issue_over_live, PENDING, ACTIVE, INACTIVE, REVOKED),
    },
    c.Register: {
        None: register_new,
        DELETED: register_over_deleted,
        **_for(register_over_live, PENDING, ACTIVE, INACTIVE),
        REVOKED: lambda record, _command, _context: taken(record),
    },
    c.Admit: {None: admit_new, **_for(admit_known, *ServiceStatus)},
    c.Redeem: _for(redeem, *ServiceStatus),
    c.Renew: {**_for(renew, PENDING, ACTIVE, INACTIVE), **_for(renew_gone, REVOKED, DELETED)},
    c.Reseal: _for(reseal, *ServiceStatus),
    c.Heartbeat: {
        None: heard_unknown,
        PENDING: heard_pending,
        ACTIVE: heard_active,
        INACTIVE: heard_inactive,
        REVOKED: heard_revoked,
        DELETED: heard_deleted,
    },
    c.Deactivate: {ACTIVE: deactivate},
    c.ExpirePackage: _for(expire_package, *ServiceStatus),
    c.ExpirePending: {PENDING: expire_pending},
    c.Archive: {INACTIVE: archive},
    c.Revoke: {**_for(revoke, PENDING, ACTIVE, INACTIVE), REVOKED: revoke_again},
    c.FinishCascade: _for(finish_cascade, REVOKED, DELETED),
    c.Close: _for(close, PENDING, ACTIVE, INACTIVE),
    c.Reopen: _for(reopen, *ServiceStatus),
    c.Reissue: _for(reissue, PENDING, INACTIVE, REVOKED),
    c.Approve: {PENDING: approve},
    c.Reject: {PENDING: reject},
    c.Override: _for(override, PENDING, ACTIVE, INACTIVE, REVOKED),
    c.Delete: _for(delete, REVOKED, INACTIVE),
    c.DeletePackage: _for(delete_package, *ServiceStatus),
    c.Withdraw: _for(withdraw, PENDING),
}
