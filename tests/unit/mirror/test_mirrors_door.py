"""Who is let in to a mirror whose record cannot be written."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from pathlib import Path

import pytest

from serving.access import Access, Key, KeyReader
from serving.audit import Audit
from serving.audit.log import places_of
from serving.errors import Overloaded
from serving.mirror.door import Door
from serving.settings import Access as AccessSettings
from serving.settings.model import Audit as AuditSettings
from tests.support.harness import wait_until


@pytest.mark.parametrize("on_failure", ["refuse", "serve"])
def test_without_a_record_nothing_is_handed_on_unless_the_site_says_so(tmp_path: Path, on_failure: str) -> None:
    """503 to who has a right key, and 401 to who has none; or served."""
    settings = AccessSettings(directory=tmp_path / "access")
    with closing(Access.open(settings, {})) as access:
        _, text = access.create(Key("", "ward 7", "hosts", b"", 0, scopes=frozenset({"mirror"})))
    kept = AuditSettings(
        directory=tmp_path / "log",
        signing_key=tmp_path / "s.key",
        fingerprint_key=tmp_path / "f.key",
        on_failure=on_failure,
    )
    audit = Audit.of_site(places_of(kept, {}), kept, version="1")
    scope = {"client": ("192.0.2.1", 1), "headers": [(b"authorization", f"Bearer {text}".encode())]}
    with closing(KeyReader(settings, {})) as keys, closing(audit):
        door = Door(keys, audit)
        caller = door.admit(scope)
        assert (caller.source, caller.key_id) == ("192.0.2.1", text.split("_")[1])
        (tmp_path / "log").rename(tmp_path / "moved")
        (tmp_path / "log").touch()
        os.kill(audit.writer_pid, signal.SIGKILL)
        wait_until(lambda: audit.failure is not None, "the writer is missed")
        if on_failure == "serve":
            assert door.admit(scope) == caller
        else:
            with pytest.raises(Overloaded, match="cannot be written"):
                door.admit(scope)
