"""Anthropic's Messages API."""

from __future__ import annotations

import json
import re
from functools import cache

from anthropic.types.message_create_params import MessageCreateParams

from tests.support.vendors.schema import Published
from tests.support.vendors.server import KEY, Emulator, Fail, Received, Refuse, Say, body_of, sse, tokens_in

_ID = re.compile(r"[a-zA-Z0-9_-]+")
_TOOL = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 408: "timeout_error", 413: "request_too_large", 429: "rate_limit_error",
    500: "api_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
_SAMPLING = {"temperature": {"type": "number"}, "top_p": {"type": "number"}, "top_k": {"type": "integer"}}
VERSIONS = ("2023-06-01", "2026-10-21")


@cache
def published(version: str) -> Published:
    """The closed schema of a version: the older one has fields that the client's types no longer have."""
    return Published(MessageCreateParams, extra=_SAMPLING if version == "2023-06-01" else None)


class AnthropicServer(Emulator):
    """api.anthropic.com."""

    model = "claude-test-5-5"

    def fail(self, request: Received, fail: Fail) -> Refuse:
        return self._refuse(fail.message or f"refused: {request.body.decode()}", fail.status, fail.code)

    def _refuse(self, message: str, status: int = 400, code: str = "") -> Refuse:
        error: dict = {"type": _TYPES.get(status, "api_error"), "message": message}
        if code:
            error["details"] = {"error_code": code}
        return Refuse(status, {"type": "error", "error": error, "request_id": "req_011"})

    def check(self, request: Received) -> None:
        key = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
        if key != KEY:
            raise self._refuse("invalid x-api-key", 401)
        if request.method != "POST" or request.path != "/v1/messages":
            raise self._refuse("Not Found", 404)
        version = request.headers.get("anthropic-version")
        if version not in VERSIONS:
            raise self._refuse("anthropic-version: header is required")
        body = body_of(request, self._refuse)
        wrong = published(version).wrong(body)
        if wrong is not None:
            raise self._refuse(f"{wrong.path}: {wrong.why}")
        if body["max_tokens"] < 0 or not 0 <= body.get("temperature", 1) <= 1:
            raise self._refuse("max_tokens or temperature: out of range")
        if any(not stop.strip() for stop in body.get("stop_sequences", ())):
            raise self._refuse("stop_sequences: each stop sequence must contain non-whitespace")
        self._check_tools(body)
        self._check_blocks(body.get("system", "x"), "system")
        self._check_messages(body["messages"])

    def _check_tools(self, body: dict) -> None:
        names = set()
        for index, tool in enumerate(body.get("tools", ())):
            if not _TOOL.fullmatch(tool["name"]) or tool["name"] in names:
                raise self._refuse(f"tools.{index}.custom.name: must be unique and match a pattern")
            names.add(tool["name"])
            if tool["input_schema"].get("type") != "object":
                raise self._refuse(f"tools.{index}.custom.input_schema.type: must be 'object'")
        choice = body.get("tool_choice")
        if choice and not names:
            raise self._refuse("tool_choice: may only be specified with tools")
        if choice and choice["type"] == "tool" and choice["name"] not in names:
            raise self._refuse("tool_choice.name: no such tool")

    def _check_blocks(self, content: object, where: str) -> None:
        if not content:
            raise self._refuse(f"{where}: must have non-empty content")
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if block["type"] == "text" and not block["text"].strip():
                raise self._refuse(f"{where}: text content blocks must contain non-whitespace text")
            if block["type"] == "tool_use" and not (_ID.fullmatch(block["id"]) and _TOOL.fullmatch(block["name"])):
                raise self._refuse(f"{where}: id or name does not match its pattern")
            if block["type"] == "tool_result" and block.get("content"):
                self._check_blocks(block["content"], f"{where}.content")

    def _check_messages(self, messages: list) -> None:
        if not messages or messages[0]["role"] != "user":
            raise self._refuse("messages: first message must use the user role")
        if messages[-1]["role"] == "assistant":
            raise self._refuse("This model does not support assistant message prefill.")
        used: set[str] = set()
        for index, message in enumerate(messages):
            where = f"messages.{index}"
            self._check_blocks(message["content"], where)
            blocks = [] if isinstance(message["content"], str) else message["content"]
            results = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
            if results != used:
                raise self._refuse(f"{where}: `tool_use` ids and `tool_result` blocks do not match")
            if "tool_result" in [block["type"] for block in blocks[len(results) :]]:
                raise self._refuse(f"{where}: `tool_result` blocks must come first")
            used = {block["id"] for block in blocks if block["type"] == "tool_use"}
            if message["role"] == "system":
                after = messages[index + 1]["role"] if index + 1 < len(messages) else "assistant"
                if messages[index - 1]["role"] != "user" or after != "assistant":
                    raise self._refuse(f"{where}: role 'system' is only allowed directly behind a user turn")
        if used:
            raise self._refuse("messages: `tool_use` ids were found without `tool_result` blocks")

    # Answers.

    def usage(self, request: Received, say: Say) -> dict:
        return {
            "input_tokens": tokens_in(request.json),
            "cache_creation_input_tokens": 3 if say.cached else 0,
            "cache_read_input_tokens": say.cached,
            "output_tokens": len(say.pieces) + len(say.thoughts) + 5 * len(say.calls),
            "output_tokens_details": {"thinking_tokens": len(say.thoughts)},
            "service_tier": "standard",
        }

    def _content(self, say: Say) -> list[dict]:
        content: list[dict] = []
        if say.thoughts:
            content.append({"type": "thinking", "thinking": "".join(say.thoughts), "signature": "c2lnbmF0dXJl"})
        if say.text:
            content.append({"type": "text", "text": say.text, "citations": None})
        for index, (name, arguments) in enumerate(say.calls):
            content.append({"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": arguments})
        return content

    def _reason(self, say: Say) -> str:
        return say.reason or ("tool_use" if say.calls else "end_turn")

    def _message(self, content: list, reason: str | None, usage: dict) -> dict:
        return {
            "id": "msg_01AbC", "type": "message", "role": "assistant", "model": self.model, "content": content,
            "stop_reason": reason, "stop_sequence": None, "usage": usage,
        }  # fmt: skip

    def whole(self, request: Received, say: Say) -> object:
        return self._message(self._content(say), self._reason(say), self.usage(request, say))

    def events(self, request: Received, say: Say) -> tuple[list[bytes], list[list[bytes]], list[bytes]]:
        usage = self.usage(request, say)
        start = {"type": "message_start", "message": self._message([], None, {**usage, "output_tokens": 1})}
        before = [sse(start, "message_start"), sse({"type": "ping"}, "ping")]
        pieces: list[list[bytes]] = []
        index = 0

        def block(first: dict, deltas: list[dict]) -> None:
            nonlocal index
            number, index = index, index + 1
            start = {"type": "content_block_start", "index": number, "content_block": first}
            told = [
                [sse({"type": "content_block_delta", "index": number, "delta": delta}, "content_block_delta")]
                for delta in deltas
            ] or [[]]
            told[0].insert(0, sse(start, "content_block_start"))
            told[-1].append(sse({"type": "content_block_stop", "index": number}, "content_block_stop"))
            pieces.extend(told)

        if say.thoughts:
            deltas = [{"type": "thinking_delta", "thinking": thought} for thought in say.thoughts]
            signed = {"type": "signature_delta", "signature": "c2lnbmF0dXJl"}
            block({"type": "thinking", "thinking": "", "signature": ""}, [*deltas, signed])
        if say.text:
            block({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in say.pieces])
        for number, (name, arguments) in enumerate(say.calls):
            written = json.dumps(arguments) if arguments else ""
            half = len(written) // 2
            deltas = [
                {"type": "input_json_delta", "partial_json": part} for part in ("", written[:half], written[half:])
            ]
            block({"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": {}}, deltas if written else [])
        ended = {
            "type": "message_delta",
            "delta": {"stop_reason": self._reason(say), "stop_sequence": None},
            "usage": {"output_tokens": usage["output_tokens"], "output_tokens_details": usage["output_tokens_details"]},
        }
        return before, pieces, [sse(ended, "message_delta"), sse({"type": "message_stop"}, "message_stop")]

    def broken_event(self, request: Received, say: Say) -> bytes:
        error = {"type": say.break_code or "overloaded_error", "message": f"Overloaded: {request.body.decode()}"}
        return sse({"type": "error", "error": error, "request_id": "req_011"}, "error")
