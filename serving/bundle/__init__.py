"""Models, wheels and papers for a host without a network, in one signed file.

`create` writes one, `open_head` sees who signed it, `install` brings it in (docs/bundles.md).
"""

from serving.bundle.create import Contents, Written, create
from serving.bundle.install import Installed, Wishes, install, record
from serving.bundle.opening import Head, check_size, complete, open_head, read_through, source_of
from serving.bundle.trust import Exceptions, decide_exceptions

__all__ = [
    "Contents",
    "Exceptions",
    "Head",
    "Installed",
    "Wishes",
    "Written",
    "check_size",
    "complete",
    "create",
    "decide_exceptions",
    "install",
    "open_head",
    "read_through",
    "record",
    "source_of",
]
