"""Administration: over a Unix socket that only this user and root can use, or on the database where nothing runs.

Both ways lead to the same operations with the same bodies, so that `serve keys` says the same whichever it took.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from serving import desk
from serving.access.directory import access_directory
from serving.access.door import Access
from serving.access.keys import Key, Scope
from serving.access.quota import Limits
from serving.audit.records import Record
from serving.desk import Body, Caller, Operation
from serving.settings import Access as AccessSettings

SOCKET: Final = "admin.sock"
_NAME: Final = r"^[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]{0,126}$"
Name = Annotated[str, Field(pattern=_NAME)]
Id = Annotated[str, Field(pattern=r"^[0-9A-Za-z]{1,32}$")]
Count = Annotated[int, Field(ge=0, le=10**15)]
Second = Annotated[int, Field(ge=0, le=10**11)]


def _network(text: str) -> str:
    return str(ip_network(text))


Words = Annotated[list[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]], Field(max_length=64)]
"""Names out of a policy."""


class LimitsBody(Body):
    """As `quota.Limits`; money in micro-units."""

    requests_per_minute: Count | None = None
    requests_per_day: Count | None = None
    tokens_per_minute: Count | None = None
    tokens_per_day: Count | None = None
    concurrency: Count | None = None
    cost_per_day: Count | None = None
    cost_per_month: Count | None = None
    cost_in_all: Count | None = None


class Create(Body):
    """A key that is wanted."""

    owner: Name
    name: Name
    expires: Second | None = None
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=8)] = Field(default=["inference"])
    models: Annotated[list[Name], Field(min_length=1, max_length=256)] | None = None
    networks: Annotated[list[Annotated[str, AfterValidator(_network)]], Field(max_length=256)] = Field(default=[])
    cache_domain: Name | None = None
    limits: LimitsBody = LimitsBody()
    record_content: bool = False
    classes: Words = Field(default=[])
    residency: Words = Field(default=[])


class Rotate(Body):
    """A key that is to be replaced."""

    id: Id
    grace_s: Annotated[int, Field(ge=0, le=366 * 86_400)] = 86_400
    expires: Second | None = None


class Change(Body):
    """What is to be otherwise with a key. What is not given stays; None, or an empty list of networks, is no limit."""

    id: Id
    expires: Second | None = None
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=8)] = Field(default=["inference"])
    models: Annotated[list[Name], Field(min_length=1, max_length=256)] | None = None
    networks: Annotated[list[Annotated[str, AfterValidator(_network)]], Field(max_length=256)] = Field(default=[])
    limits: LimitsBody = LimitsBody()
    classes: Words = Field(default=[])
    residency: Words = Field(default=[])


class Revoke(Body):
    """A key that is to end."""

    id: Id


class List(Body):
    """Which keys there are."""


class UsageOf(Body):
    """What was used, by whom, when: from `since`, before `before`; unset: this month so far."""

    id: Annotated[str, Field(pattern=r"^(oidc:[a-z2-7]{26}|[0-9A-Za-z]{1,32})$")] | None = None
    since: Second | None = None
    before: Second | None = None
    by_hour: bool = False
    """And what all used by the hour."""


def create(access: Access, body: Create, caller: Caller) -> dict[str, object]:
    """The new key, and its text."""
    wanted = Key(
        id="",
        owner=body.owner,
        name=body.name,
        digest=b"",
        created=0,
        expires=body.expires,
        scopes=frozenset(body.scopes),
        models=None if body.models is None else frozenset(body.models),
        networks=tuple(ip_network(each) for each in body.networks),
        cache_domain=body.cache_domain or "",
        limits=Limits(**body.limits.model_dump()),
        record_content=body.record_content,
        classes=frozenset(body.classes),
        residency=frozenset(body.residency),
    )
    key, text = access.create(wanted, str(caller))
    return {"key": text, **told(access, key)}


def rotate(access: Access, body: Rotate, caller: Caller) -> dict[str, object]:
    """The key that takes the other's place, and its text."""
    key, text = access.rotate(body.id, body.grace_s, body.expires, str(caller))
    return {"key": text, **told(access, key), "instead_of": told(access, access.find(body.id))}


def change(access: Access, body: Change, caller: Caller) -> dict[str, object]:
    """The key as it is now."""
    given = body.model_dump(exclude_unset=True)
    limits = given.get("limits", {})
    wanted: dict[str, Any] = {
        "expires": body.expires,
        "scopes": frozenset(body.scopes),
        "models": None if body.models is None else frozenset(body.models),
        "networks": tuple(ip_network(each) for each in body.networks),
        "classes": frozenset(body.classes),
        "residency": frozenset(body.residency),
    }
    named = {field: value for field, value in wanted.items() if field in given}

    def changed(key: Key) -> Key:
        return replace(key, **named, limits=replace(key.limits, **limits))

    return told(access, access.change(body.id, changed, str(caller)))


def revoke(access: Access, body: Revoke, caller: Caller) -> dict[str, object]:
    """The key as it is now."""
    return told(access, access.revoke(body.id, str(caller)))


def list_keys(access: Access, body: List, caller: Caller) -> dict[str, object]:  # noqa: ARG001 - all operations are called alike
    """All keys, none of which can be read again."""
    return {"currency": access.prices.currency, "keys": [told(access, key) for key in access.all_keys()]}


def usage(access: Access, body: UsageOf, caller: Caller) -> dict[str, object]:  # noqa: ARG001 - as above
    """What was settled; `complete_from` is the second before which lines were removed, None where none were."""
    now = datetime.now(UTC)
    month = int(now.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp())
    since = month if body.since is None else body.since
    before = int((now + timedelta(seconds=1)).timestamp()) if body.before is None else body.before
    totals = [asdict(total) for total in access.totals(body.id, since, before)]
    about = {"since": since, "before": before, "complete_from": access.usage_from, "currency": access.prices.currency}
    by_hour = {"hours": [asdict(hour) for hour in access.hours(since, before)]} if body.by_hour else {}
    return {**about, "usage": totals, **by_hour}


OPERATIONS: Final[Mapping[str, tuple[type[Body], Callable[[Access, Any, Caller], dict[str, object]]]]] = {
    "create": (Create, create),
    "list": (List, list_keys),
    "rotate": (Rotate, rotate),
    "change": (Change, change),
    "revoke": (Revoke, revoke),
    "usage": (UsageOf, usage),
}


def told(access: Access, key: Key) -> dict[str, object]:
    """What may be told of a key: all but its digest."""
    used = access.usage(key)
    return {
        "id": key.id,
        "owner": key.owner,
        "name": key.name,
        "created": key.created,
        "expires": key.expires,
        "revoked": key.revoked,
        "rotated_to": key.rotated_to,
        "grace_until": key.grace_until,
        "scopes": sorted(key.scopes),
        "models": None if key.models is None else sorted(key.models),
        "networks": [str(network) for network in key.networks],
        "cache_domain": key.cache_domain or key.owner,
        "account": key.counted_at,
        "limits": asdict(key.limits),
        "record_content": key.record_content,
        "classes": sorted(key.classes),
        "residency": sorted(key.residency),
        "used": {
            "requests": used.all_requests,
            "tokens": used.all_tokens,
            "cost": used.all_cost,
            "running": used.running,
        },
    }


def operations_on(access: Access) -> dict[str, Operation]:
    """The operations, on these keys."""

    def on_access(
        function: Callable[[Access, Any, Caller], dict[str, object]],
    ) -> Callable[[Any, Caller], dict[str, Any]]:
        return lambda body, caller: function(access, body, caller)

    return {name: (form, on_access(function)) for name, (form, function) in OPERATIONS.items()}


@contextlib.asynccontextmanager
async def administered(access: Access, directory: Path) -> AsyncIterator[Path]:
    """Serve the administration in this directory, which is locked, to this user and root. Raises AddressUnavailable."""
    path = directory / SOCKET
    async with desk.served(operations_on(access), path, "access.directory"):
        yield path


def ask(
    settings: AccessSettings,
    environment: Mapping[str, str],
    operation: str,
    body: Mapping[str, object],
    *,
    keeps_content: bool = False,
    on_act: Callable[[Record], None] = lambda _: None,
) -> dict[str, Any]:
    """One operation by the server that runs, or on the database under its lock where none does. Raises ServingError.

    `keeps_content`: the settings name a place for what keys with `record_content` say and hear. `on_act` is called with
    the record of what is about to be done where no server does it.
    """
    path = access_directory(settings.directory, environment) / SOCKET
    answer = desk.ask(path, operation, body)
    if answer is not None:
        return answer
    access = Access.open(settings, environment)
    access.keeps_content = keeps_content
    access.on_act(on_act)
    try:
        return desk.perform(operations_on(access), operation, body)
    finally:
        access.close()
