"""From the client's bytes to one parsed value, and from that value to the only bytes that go further.

JSON leaves room for two readers to see two things in one body: duplicate keys, a byte-order mark, lone surrogates,
NaN, integers beyond 64 bits. None of that passes here, and what the engine receives is `serialise` of the value that
was checked, never the client's bytes; so what was checked is what is sent.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, NoReturn

from serving.errors import InvalidRequest, RequestTooLarge
from serving.openai.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1
_SHOWN_CHARS: Final = 64
_DIGITS: Final = bytes.maketrans(b"123456789E", b"000000000e")
_DOUBTFUL: Final = (b"0" * 19, b"0e000", b"0e+000")
"""Without any of these, all digits read as 0, no number is beyond 64 bits, and none is infinite."""
# Possessive, and content with a missing end: whatever the bytes, no place is looked at twice.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


class _Duplicated(dict[str, object]):
    """Marks, inside the parsed value, the object in which a key came twice, so that its path can be told."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key


def shown(name: str) -> str:
    """A client's own word, cut and made printable, for an error that is sent back to that client."""
    text = name if len(name) <= _SHOWN_CHARS else name[:_SHOWN_CHARS] + "…"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def check_headers(content_type: str | None, content_encoding: str | None) -> None:
    """Refuse a body that is not plain JSON.

    Compressed bodies are refused because a bound on the bytes read is then no bound on the bytes parsed.
    """
    if content_encoding is not None and content_encoding.strip().lower() not in {"", "identity"}:
        raise InvalidRequest(
            f"content-encoding `{shown(content_encoding)}` is not accepted", hint="send the body uncompressed"
        )
    if content_type is None:
        raise InvalidRequest("the content-type header is missing", hint="send `content-type: application/json`")
    kind, _, parameters = content_type.partition(";")
    if kind.strip().lower() != "application/json":
        raise InvalidRequest(
            f"content-type `{shown(content_type)}` is not accepted", hint="send `content-type: application/json`"
        )
    for parameter in parameters.split(";"):
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "charset" and value.strip().strip('"').lower() not in {"utf-8", "utf8"}:
            raise InvalidRequest(f"charset `{shown(value.strip())}` is not accepted", hint="JSON is sent as UTF-8")


def parse_body(
    raw: bytes,
    limits: Limits = DEFAULT_LIMITS,
    *,
    content_type: str | None = "application/json",
    content_encoding: str | None = None,
) -> dict[str, object]:
    """The JSON object in `raw`, which every strict reader would read the same way.

    Raises RequestTooLarge beyond `limits.body_bytes`, InvalidRequest for everything else that is wrong, with the path
    of the value at fault where there is one.
    """
    if len(raw) > limits.body_bytes:
        raise RequestTooLarge(f"the body has {len(raw)} bytes, at most {limits.body_bytes} are accepted")
    check_headers(content_type, content_encoding)
    value = _parse(raw, limits)
    if not isinstance(value, dict):
        raise InvalidRequest("the body must be a JSON object")
    return value


def parse_text(text: str, limits: Limits = DEFAULT_LIMITS) -> object:
    """JSON that a client sent as a string inside its body, under the same rules. Raises InvalidRequest."""
    return _parse(text.encode("utf-8", "surrogatepass"), limits)


def serialise(value: object) -> bytes:
    """`value` as compact UTF-8 JSON: the re-serialisation that every later step, engine and destination receives.

    Raises ValueError for what JSON cannot carry (NaN, infinities, lone surrogates).
    """
    return _encode(value).encode("utf-8")


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode


def _parse(raw: bytes, limits: Limits) -> object:
    text = _decode(raw)
    brackets = raw.count(b"[") + raw.count(b"{")
    if brackets > limits.containers:
        bare = _STRING.sub(b"", raw)
        if bare.count(b"[") + bare.count(b"{") > limits.containers:
            raise InvalidRequest(f"the body holds more than {limits.containers} arrays and objects")
    digits = raw.translate(_DIGITS)  # and a search for what stands still: a pattern takes ten times as long
    value, seen = _load(text, limits.depth, doubtful=any(each in digits for each in _DOUBTFUL))
    # Fewer brackets than levels allowed cannot nest too deep; only then is the depth worth counting.
    if brackets > limits.depth and _too_deep(value, limits.depth):
        raise InvalidRequest(f"the body nests deeper than {limits.depth} levels")
    if seen.duplicates:
        _refuse_duplicate(value)
    if seen.numbers:
        _refuse_numbers(value)
    # Only an escape can smuggle in a surrogate, and only this range of them are any.
    if b"\\ud" in raw or b"\\uD" in raw:
        try:
            serialise(value)
        except UnicodeEncodeError:
            _refuse_surrogate(value)
    return value


class _Hooks:
    """What the parser calls. Hooks know no paths: they raise a flag, and the value is walked to find where."""

    __slots__ = ("duplicates", "numbers")

    def __init__(self) -> None:
        self.duplicates = False
        """An object has a key twice; `_Duplicated` stands in its place."""
        self.numbers = False
        """A number is beyond 64 bits, or is not finite."""

    def build(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        built = dict(pairs)
        if len(built) == len(pairs):
            return built
        self.duplicates = True
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                return _Duplicated(key)
            seen.add(key)
        return built

    def integer(self, digits: str) -> int:
        value = int(digits)
        self.numbers |= not _INT64_MIN <= value <= _INT64_MAX
        return value

    def number(self, digits: str) -> float:
        value = float(digits)
        if value - value != 0.0:
            self.numbers = True
        return value


def _decode(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8 (byte {error.start})") from None
    if text.startswith("\ufeff"):
        raise InvalidRequest("the body starts with a byte-order mark", hint="send plain UTF-8")
    return text


def _load(text: str, depth: int, *, doubtful: bool) -> tuple[object, _Hooks]:
    hooks = _Hooks()
    try:
        # A call for each number is what costs; without a doubtful one the parser's own are as good.
        value: object = json.loads(
            text,
            object_pairs_hook=hooks.build,
            parse_int=hooks.integer if doubtful else None,
            parse_float=hooks.number if doubtful else None,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest(f"the body is not JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise InvalidRequest(f"the body nests deeper than {depth} levels") from None
    except ValueError:
        # Beyond sys.get_int_max_str_digits() Python refuses the conversion, which is quadratic.
        raise InvalidRequest("the body holds a number beyond 64 bits") from None
    return value, hooks


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidRequest(f"the body holds `{name}`, which is not JSON")


def _too_deep(value: object, depth: int) -> bool:
    level: list[object] = [value]
    while level:
        if depth == 0 and any(isinstance(item, dict | list) for item in level):
            return True
        depth -= 1
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, dict | list)
        ]
    return False


def _walk(value: object) -> Iterator[tuple[str, object]]:
    """Every value with its path, keys included as values of their own. Slow: only run when an error is certain."""
    pending: list[tuple[str, object]] = [("", value)]
    while pending:
        path, item = pending.pop()
        yield path, item
        if isinstance(item, dict):
            for key, child in item.items():
                yield path, key
                pending.append((f"{path}.{shown(key)}" if path else shown(key), child))
        elif isinstance(item, list):
            pending.extend((f"{path}.{index}" if path else str(index), child) for index, child in enumerate(item))


def _refuse_duplicate(value: object) -> NoReturn:
    for path, item in _walk(value):
        if isinstance(item, _Duplicated):
            name = shown(item.key)
            raise InvalidRequest(
                f"the key `{name}` comes twice in one object", param=f"{path}.{name}" if path else name
            )
    # The object was itself inside a duplicated one, which `_walk` met first; unreachable, and refused all the same.
    raise InvalidRequest("a key comes twice in one object")


def _refuse_numbers(value: object) -> None:
    for path, item in _walk(value):
        if isinstance(item, int) and not _INT64_MIN <= item <= _INT64_MAX:
            raise InvalidRequest(f"the number at `{path}` does not fit 64 bits", param=path or None)
        if isinstance(item, float) and item - item != 0.0:
            raise InvalidRequest(f"the number at `{path}` is not finite", param=path or None)


def _refuse_surrogate(value: object) -> NoReturn:
    for path, item in _walk(value):
        if isinstance(item, str):
            try:
                item.encode("utf-8")
            except UnicodeEncodeError:
                raise InvalidRequest(f"the text at `{path}` holds a lone surrogate", param=path or None) from None
    raise InvalidRequest("the body holds a lone surrogate")
