"""Who may have files of the mirror, and the record of who had which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from serving.audit.records import Downloaded
from serving.errors import Overloaded, WrongHost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serving.access import Failure, KeyReader, Principal
    from serving.audit import Audit
    from serving.mirror.hub import Part

_SCOPE: Final = "mirror"
"""Of keys that let in here."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    principal: Principal | None = None
    """None where no key is asked for."""
    source: str | None = None
    """The other end of the connection."""

    @property
    def key_id(self) -> str | None:
        """Id of the key."""
        return None if self.principal is None else self.principal.key_id


NOBODY: Final = Caller()


class Door:
    """Asks for a key with the scope `mirror`, or for none; says who was turned away, and who had what."""

    def __init__(
        self, keys: KeyReader | None = None, audit: Audit | None = None, is_ours: Callable[[bytes], bool] | None = None
    ) -> None:
        """`keys`: None asks nobody, and then `is_ours` says whether a `Host` header names this server."""
        self._keys = keys
        self._audit = audit
        self._is_ours = is_ours
        if keys is not None and audit is not None:
            keys.on_failed(self._on_failed)

    @property
    def asks_keys(self) -> bool:
        """Whether a caller has to show a key."""
        return self._keys is not None

    @property
    def lacks_keys(self) -> bool:
        """A key is asked for, and there is none that would do."""
        return self._keys is not None and not self._keys.has_key_for(_SCOPE)

    def look(self) -> None:
        """See which keys there are now; for a thread, and one at a time."""
        if self._keys is not None:
            self._keys.look()

    def admit(self, scope: Mapping[str, Any]) -> Caller:
        """Who asks.

        Raises Unauthenticated, PermissionDenied, RateLimited; Overloaded where keys cannot be read, or the record not
        be written; WrongHost where a page from elsewhere may have had a browser on this host ask.
        """
        client = scope.get("client")
        peer = client[0] if client else None
        if self._keys is None:
            hosts = [value for name, value in scope["headers"] if name == b"host"]
            if self._is_ours is not None and not all(map(self._is_ours, hosts)):
                raise WrongHost("this mirror is not called that, and asks nobody for a key")
            return Caller(None, peer)
        principal = self._keys.admit(scope["headers"], peer, _SCOPE)
        if self._audit is not None and self._audit.refuses and self._audit.failure is not None:
            raise Overloaded("the record of who has what cannot be written", retry_after_s=10, hint="its log says why")
        return Caller(principal, self._keys.source(scope["headers"], peer))

    def is_valid(self, caller: Caller) -> bool:
        """Whether their key has not ended since."""
        return self._keys is None or caller.principal is None or self._keys.is_valid(caller.principal, _SCOPE)

    def record(self, caller: Caller, part: Part, sent: int, outcome: str) -> None:
        """Put on record what they had. Nobody waits for the disk."""
        if self._audit is None:
            return
        self._audit.event(
            Downloaded(
                principal="anybody" if caller.principal is None else caller.principal.owner,
                key=caller.key_id,
                source=caller.source,
                repository=part.repository,
                commit=part.commit,
                file=part.file.name,
                sha256=part.file.sha256,
                start=part.start,
                sent_bytes=sent,
                outcome=outcome,
            )
        )

    def _on_failed(self, failure: Failure) -> None:
        if self._audit is not None:
            self._audit.authentication_failed("unknown" if failure.source is None else str(failure.source))
