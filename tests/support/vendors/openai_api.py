"""OpenAI's API, and Azure's, as far as text goes: chats, completions, embeddings."""

from __future__ import annotations

import base64
import json
import re
import struct
from functools import cache

from openai.types.chat.completion_create_params import CompletionCreateParams as ChatParams
from openai.types.completion_create_params import CompletionCreateParams
from openai.types.embedding_create_params import EmbeddingCreateParams

from tests.support.vendors.schema import Published
from tests.support.vendors.server import KEY, Emulator, Fail, Received, Refuse, Say, body_of, sse, tokens_in

_TOOL = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_TYPES = {
    401: "invalid_request_error", 403: "invalid_request_error", 404: "invalid_request_error",
    429: "rate_limit_error", 400: "invalid_request_error",
}  # fmt: skip
ROUTES = {"/chat/completions": ChatParams, "/completions": CompletionCreateParams, "/embeddings": EmbeddingCreateParams}


@cache
def published(route: str) -> Published:
    """The closed schema of a route."""
    return Published(ROUTES[route])


class OpenAIServer(Emulator):
    """api.openai.com."""

    model = "gpt-test-2026-01-01"

    def fail(self, request: Received, fail: Fail) -> Refuse:
        message = fail.message or f"refused: {request.body.decode()}"
        error = {"message": message, "type": _TYPES.get(fail.status, "server_error"), "param": None, "code": fail.code}
        return Refuse(fail.status, {"error": error})

    def _refuse(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> Refuse:
        kind = _TYPES.get(status, "invalid_request_error")
        return Refuse(status, {"error": {"message": message, "type": kind, "param": param, "code": code}})

    def route(self, request: Received) -> str:
        return request.path.removeprefix("/v1")

    def _let_in(self, request: Received) -> None:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            raise self._refuse("Incorrect API key provided", code="invalid_api_key", status=401)

    def check(self, request: Received) -> None:
        self._let_in(request)
        route = self.route(request)
        if request.method != "POST" or route not in ROUTES:
            raise self._refuse(f"Invalid URL ({request.method} {request.path})", status=404)
        body = body_of(request, self._refuse)
        wrong = published(route).wrong(body)
        if wrong is not None:
            raise self._refuse(f"Invalid value at '{wrong.path}': {wrong.why}", wrong.path, "invalid_value")
        if route != "/embeddings":
            self._check_generation(body)
        if route == "/chat/completions":
            self._check_chat(body)

    def _check_generation(self, body: dict) -> None:
        bounds = {
            "temperature": (0, 2), "top_p": (0, 1), "frequency_penalty": (-2, 2), "presence_penalty": (-2, 2),
            "n": (1, 128), "max_tokens": (1, 1 << 31), "max_completion_tokens": (1, 1 << 31),
            "seed": (-(1 << 63), (1 << 63) - 1),
        }  # fmt: skip
        for name, (least, most) in bounds.items():
            if body.get(name) is not None and not least <= body[name] <= most:
                raise self._refuse(f"Invalid '{name}'", name, "invalid_value")
        stop = body.get("stop")
        if isinstance(stop, list) and not 1 <= len(stop) <= 4:
            raise self._refuse("Invalid 'stop'", "stop", "array_above_max_length")
        if body.get("stream_options") and body.get("stream") is not True:
            raise self._refuse("'stream_options' is only allowed with 'stream'", "stream_options")
        if any(not -100 <= bias <= 100 for bias in (body.get("logit_bias") or {}).values()):
            raise self._refuse("Invalid 'logit_bias'", "logit_bias", "invalid_value")

    def _check_chat(self, body: dict) -> None:
        if not body["messages"]:
            raise self._refuse("Invalid 'messages': empty array", "messages", "empty_array")
        tools = body.get("tools")
        if tools is None and ("parallel_tool_calls" in body or body.get("tool_choice") not in (None, "none", "auto")):
            raise self._refuse("only allowed when 'tools' are specified", "tools")
        if tools is not None and not 1 <= len(tools) <= 128:
            raise self._refuse("Invalid 'tools'", "tools", "array_above_max_length")
        for index, tool in enumerate(tools or []):
            if not _TOOL.fullmatch(tool["function"]["name"]):
                raise self._refuse("Invalid name", f"tools[{index}].function.name", "invalid_value")
        if body.get("top_logprobs") is not None and body.get("logprobs") is not True:
            raise self._refuse("'top_logprobs' needs 'logprobs'", "top_logprobs")
        if "max_tokens" in body and "max_completion_tokens" in body:
            raise self._refuse("both limits are set", "max_tokens")
        waiting: set[str] = set()
        for index, message in enumerate(body["messages"]):
            where = f"messages.[{index}]"
            if message["role"] == "tool":
                if message["tool_call_id"] not in waiting:
                    raise self._refuse("messages with role 'tool' must answer a call", where)
                waiting.remove(message["tool_call_id"])
                continue
            if waiting:
                raise self._refuse("tool calls must be followed by tool messages", where)
            if message.get("tool_calls") == []:
                raise self._refuse("empty array", f"{where}.tool_calls", "empty_array")
            waiting = {call["id"] for call in message.get("tool_calls") or []}
        if waiting:
            raise self._refuse("tool calls must be followed by tool messages", "messages")

    # Answers.

    def usage(self, request: Received, say: Say) -> dict:
        prompt, output = tokens_in(request.json), len(say.pieces) + len(say.thoughts) + 5 * len(say.calls)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": say.cached, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": len(say.thoughts), "audio_tokens": 0},
        }

    def _reason(self, say: Say) -> str:
        return say.reason or ("tool_calls" if say.calls else "stop")

    def whole(self, request: Received, say: Say) -> object:
        route, body = self.route(request), request.json
        if route == "/embeddings":
            return self._embeddings(body)
        n = body.get("n") or 1
        if route == "/completions":
            choices = [
                {"index": i, "text": say.text, "logprobs": None, "finish_reason": self._reason(say)} for i in range(n)
            ]
            kind = "text_completion"
        else:
            message = {"role": "assistant", "content": say.text or None, "refusal": None, "annotations": []}
            if say.calls:
                message["tool_calls"] = _calls(say)
            choices = [
                {"index": i, "message": message, "logprobs": None, "finish_reason": self._reason(say)} for i in range(n)
            ]
            kind = "chat.completion"
        return {**self._head(kind), "choices": choices, "usage": self.usage(request, say), "service_tier": "default"}

    def _head(self, kind: str) -> dict:
        return {"id": "chatcmpl-AbC123", "object": kind, "created": 1780000000, "model": self.model}

    def _embeddings(self, body: dict) -> object:
        given = body["input"]
        many = given if isinstance(given, list) and given and isinstance(given[0], str | list) else [given]
        data = []
        for index, _ in enumerate(many):
            vector = [index + 0.5] * (body.get("dimensions") or 4)
            if body.get("encoding_format") == "base64":
                vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
            data.append({"object": "embedding", "index": index, "embedding": vector})
        tokens = tokens_in(given)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": self.model, "usage": usage}

    def events(self, request: Received, say: Say) -> tuple[list[bytes], list[list[bytes]], list[bytes]]:
        is_chat = self.route(request) == "/chat/completions"
        wants_usage = (request.json.get("stream_options") or {}).get("include_usage")
        head = self._head("chat.completion.chunk" if is_chat else "text_completion")
        tail = {"usage": None} if wants_usage else {}

        def chunk(delta: dict, reason: str | None = None) -> bytes:
            said = {"delta": delta} if is_chat else {"text": delta.get("content", "")}
            choice = {"index": 0, **said, "logprobs": None, "finish_reason": reason}
            return sse({**head, "choices": [choice], **tail})

        before = [chunk({"role": "assistant", "content": "", "refusal": None})] if is_chat else []
        pieces = [[chunk({"content": piece})] for piece in say.pieces]
        for index, call in enumerate(_calls(say)):
            function = call["function"]
            first = {"index": index, **call, "function": {"name": function["name"], "arguments": ""}}
            half = len(function["arguments"]) // 2
            halves = function["arguments"][:half], function["arguments"][half:]
            more = [chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]}) for part in halves]
            pieces.append([chunk({"tool_calls": [first]}), *more])
        behind = [chunk({}, self._reason(say))]
        if wants_usage:
            behind.append(sse({**head, "choices": [], "usage": self.usage(request, say)}))
        return before, pieces, [*behind, sse("[DONE]")]

    def broken_event(self, request: Received, say: Say) -> bytes:
        message = f"The server had an error processing {request.body.decode()}"
        return sse(
            {"error": {"message": message, "type": "server_error", "param": None, "code": say.break_code or None}}
        )


class AzureServer(OpenAIServer):
    """A resource of Azure OpenAI with one deployment."""

    def __init__(self, deployment: str = "our-gpt", version: str = "2024-10-21") -> None:
        super().__init__()
        self.deployment = deployment
        self.version = version

    def route(self, request: Received) -> str:
        return request.path.removeprefix(f"/openai/deployments/{self.deployment}")

    def _let_in(self, request: Received) -> None:
        if request.headers.get("api-key") != KEY:
            raise Refuse(401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key."}})
        if request.query.get("api-version") != self.version:
            raise Refuse(404, {"error": {"code": "404", "message": "Resource not found"}})
        if not request.path.startswith(f"/openai/deployments/{self.deployment}/"):
            error = {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}
            raise Refuse(404, {"error": error})

    def whole(self, request: Received, say: Say) -> object:
        made = super().whole(request, say)
        if "choices" in made:
            made["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": {}}]
        return made

    def events(self, request: Received, say: Say) -> tuple[list[bytes], list[list[bytes]], list[bytes]]:
        before, pieces, behind = super().events(request, say)
        judged = {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]}
        first = {"choices": [], "created": 0, "id": "", "model": "", "object": "", **judged}
        return [sse(first), *before], pieces, behind


def _calls(say: Say) -> list[dict]:
    return [
        {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for index, (name, arguments) in enumerate(say.calls)
    ]
