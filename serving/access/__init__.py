"""Who may call, and how much: keys, quotas, the ledger, and their administration (docs/access.md)."""

from serving.access.directory import access_directory
from serving.access.door import Access
from serving.access.entrance import Failure
from serving.access.keys import SCOPES, Denied, Key, Principal, Scope
from serving.access.ledger import Ledger, Reservation
from serving.access.others import also_taken
from serving.access.own import OwnKey, own_key
from serving.access.prices import PriceBook, Tokens, load_prices
from serving.access.quota import Limits
from serving.access.reading import KeyReader

__all__ = [
    "SCOPES",
    "Access",
    "Denied",
    "Failure",
    "Key",
    "KeyReader",
    "Ledger",
    "Limits",
    "OwnKey",
    "PriceBook",
    "Principal",
    "Reservation",
    "Scope",
    "Tokens",
    "access_directory",
    "also_taken",
    "load_prices",
    "own_key",
]
