"""A server that answers when its script says so, and writes down when it really did.

The prompt of a request is its script, as JSON: `ttft` and `gaps` in seconds, `tokens` (what the usage claims), `end`:
`done`, `cut` (the connection is closed in the middle), `open` (the stream ends without [DONE]), `error` (an error
event), `refuse` (status 503), `garbage` (no HTTP), `silent` (no answer at all). `GET /log` gives, by the script's `id`,
the moments of `perf_counter`, which all processes of a host share: `taken`, and `sent` for each event.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvloop

from benchmarks.peers.null_upstream import HEAD, Connection, answer, event

LOG: dict[str, dict[str, Any]] = {}


def whole(status: str, value: object) -> bytes:
    """A whole answer in JSON."""
    return answer(status, "application/json", json.dumps(value).encode())


class Scripted(Connection):
    """Answers as its request's script says."""

    def on_message_complete(self) -> None:
        taken = time.perf_counter()
        if self.url == b"/log":
            self.transport.write(whole("200 OK", LOG))
        elif self.url == b"/v1/models":
            self.transport.write(whole("200 OK", {"data": [{"id": "scripted"}]}))
        elif not self.url.startswith(b"/v1/"):
            self.transport.write(whole("404 Not Found", {"error": {"message": "no such route"}}))
        else:
            asked = json.loads(self.body)
            prompt = asked["prompt"] if "prompt" in asked else asked["messages"][0]["content"]
            try:
                script = json.loads(prompt)
            except ValueError:  # a prompt of words: a token a millisecond
                script = {"id": prompt, "ttft": 0.005, "gaps": [0.001] * (asked["max_tokens"] - 1)}
            self.loop.create_task(self.play(script, taken))

    async def play(self, script: dict[str, Any], taken: float) -> None:
        """Answer as written."""
        log = LOG[str(script["id"])] = {"taken": taken, "sent": []}
        end = script.get("end", "done")
        if end == "silent":
            return
        if end == "garbage":
            self.transport.write(b"this is not HTTP\r\n\r\n")
            return
        if end == "refuse":
            self.transport.write(whole("503 Service Unavailable", {"error": {"code": "overloaded", "message": "no"}}))
            return
        due = taken
        self.transport.write(HEAD)
        for wait in [script["ttft"], *script["gaps"]]:
            due += wait
            await self.until(due)
            if self.transport.is_closing():
                return
            self.transport.write(event({"choices": [{"index": 0, "text": "x"}]}))
            log["sent"].append(time.perf_counter())
        if end == "cut":
            self.transport.abort()
            return
        if end == "error":
            self.transport.write(event({"error": {"code": "engine_unavailable", "message": "it died"}}))
        if end == "done":
            tokens = script.get("tokens", 1 + len(script["gaps"]))
            usage = {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens}
            self.transport.write(event({"choices": [], "usage": usage}) + event(b"[DONE]"))
        self.transport.write(b"0\r\n\r\n")

    async def until(self, due: float) -> None:
        """Return at that moment: asleep until shortly before, awake for the rest."""
        while (left := due - time.perf_counter()) > 0:  # noqa: ASYNC110 - no event tells the time
            await asyncio.sleep(left - 0.0015 if left > 0.003 else 0)


async def main() -> None:
    """Serve until killed; the port is the first line."""
    server = await asyncio.get_running_loop().create_server(Scripted, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
