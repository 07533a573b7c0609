"""The record that can be proven: append-only, chained by hashes, signed, and compared with what left the host.

`Audit.open(…)` is what a server needs; `verify_log` is what an auditor needs, with the public key alone. docs/audit.md
says what is recorded, what a check proves and what it cannot.
"""

from serving.audit.book import Limits
from serving.audit.log import Audit, Places
from serving.audit.remote import Patience
from serving.audit.segments import Retention
from serving.audit.writer import Failure

__all__ = ["Audit", "Failure", "Limits", "Patience", "Places", "Retention"]
