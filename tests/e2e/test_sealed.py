"""`serve` with its engines behind walls, as it is by default."""

from __future__ import annotations

import json
import urllib.request

import pytest

from serving.access import own_key
from tests.e2e.stack import Stack, serve


def told(stack: Stack) -> tuple[dict[str, object], dict[object, object]]:
    """What the start said of the walls: the line of all of them, and the missing ones with their reasons."""
    (line,) = [entry for entry in stack.log if entry.get("event") == "sealed"]
    return line, {entry["layer"]: entry["why"] for entry in stack.log if entry.get("event") == "layer missing"}


def test_a_start_says_which_walls_there_are() -> None:
    """Every layer is either active or missing with a reason; what `require` then does follows from that."""
    with serve() as stack:
        line, missing = told(stack)
        assert line["mode"] == "best-effort"
        active = str(line["active"]).split(", ")
        assert {"environment", "rights", "peers", "cores"} <= set(active)
        assert not set(active) & set(missing)
        assert len(active) + len(missing) == 13
    if missing:
        pytest.skip(f"this host lacks {', '.join(map(str, missing))}")
    with (
        own_key() as key,
        serve("--sealed", "require", is_open=False, environment=key.environment) as stack,
    ):
        assert told(stack) == ({**line, "time": told(stack)[0]["time"], "mode": "require"}, {})
        body = json.dumps({"model": "demo", "prompt": "a", "max_tokens": 4}).encode()
        request = urllib.request.Request(
            f"{stack.url}/v1/completions",
            body,
            headers={"content-type": "application/json", "authorization": f"Bearer {key.text}"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            assert json.loads(response.read())["usage"]["completion_tokens"] == 4


def test_without_walls_it_says_so() -> None:
    """`off` is a wish like another, and stands in the log."""
    with serve("--sealed", "off") as stack:
        line, missing = told(stack)
        assert (line["mode"], line["active"], missing) == ("off", "", {})
