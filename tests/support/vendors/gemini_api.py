"""Google's Gemini Developer API: generateContent, streamGenerateContent, batchEmbedContents."""

from __future__ import annotations

import re
from functools import cache

import pydantic
from google.genai import types

from tests.support.vendors.schema import Published
from tests.support.vendors.server import KEY, Emulator, Fail, Received, Refuse, Say, body_of, sse, tokens_in

_PATH = re.compile(r"/(?:v1|v1beta)/models/([^/:]+):(generateContent|streamGenerateContent|batchEmbedContents)")
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
_STATUS = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED", 529: "UNAVAILABLE",
}  # fmt: skip
_ELSEWHERE = frozenset({"partialArgs", "willContinue", "audioTimestamp", "routingConfig", "modelSelectionConfig",
                        "streamFunctionCallArguments"})  # fmt: skip
"""What the client's converters refuse for this API: another service of the vendor's has it."""


class _Wire(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class Generate(_Wire):
    """The body of generateContent, as the client's converters put it together."""

    contents: list[types.Content]
    systemInstruction: types.Content | None = None  # noqa: N815 - the wire's names
    tools: list[types.Tool] | None = None
    toolConfig: types.ToolConfig | None = None  # noqa: N815
    safetySettings: list[types.SafetySetting] | None = None  # noqa: N815
    generationConfig: types.GenerationConfig | None = None  # noqa: N815
    cachedContent: str | None = None  # noqa: N815
    serviceTier: str | None = None  # noqa: N815
    store: bool | None = None


class Embed(_Wire):
    """One text to embed."""

    model: str
    content: types.Content
    taskType: str | None = None  # noqa: N815
    title: str | None = None
    outputDimensionality: int | None = None  # noqa: N815


class EmbedAll(_Wire):
    """The body of batchEmbedContents."""

    requests: list[Embed]


@cache
def published(method: str) -> Published:
    """The closed schema of a method."""
    kind = EmbedAll if method == "batchEmbedContents" else Generate
    return Published(kind, without=_ELSEWHERE, is_proto=True)


class GeminiServer(Emulator):
    """generativelanguage.googleapis.com with one model."""

    def __init__(self, model: str = "gemini-test-4") -> None:
        super().__init__()
        self.model = model

    def fail(self, request: Received, fail: Fail) -> Refuse:
        message = fail.message or f"refused: {request.body.decode()}"
        details = []
        if fail.status == 429:
            details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "12.5s"}]
        if fail.code == "API_KEY_INVALID":
            details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
        return self._refuse(message, fail.status, details)

    def _refuse(self, message: str, status: int = 400, details: list | None = None) -> Refuse:
        error = {"code": status, "message": message, "status": _STATUS.get(status, "UNKNOWN"), "details": details or []}
        return Refuse(status, {"error": error})

    def is_stream(self, request: Received) -> bool:
        return request.path.endswith(":streamGenerateContent")

    def check(self, request: Received) -> None:
        if request.headers.get("x-goog-api-key") != KEY:
            details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
            raise self._refuse("API key not valid. Please pass a valid API key.", 400, details)
        found = _PATH.fullmatch(request.path)
        if request.method != "POST" or found is None or found[1] != self.model:
            raise self._refuse("models/… is not found for API version v1beta", 404)
        if self.is_stream(request) and request.query.get("alt") != "sse":
            raise self._refuse("only alt=sse is served here", 501)
        body = body_of(request, self._refuse)
        wrong = published(found[2]).wrong(body)
        if wrong is not None:
            raise self._refuse(f"Invalid JSON payload received at '{wrong.path}': {wrong.why}")
        if found[2] == "batchEmbedContents":
            if any(one["model"] != f"models/{self.model}" for one in body["requests"]):
                raise self._refuse("BatchEmbedContentsRequest.requests.model: does not match")
            return
        self._check_config(body)
        self._check_contents(body)

    def _check_config(self, body: dict) -> None:
        config = body.get("generationConfig", {})
        bounds = {"temperature": (0, 2), "topP": (0, 1), "candidateCount": (1, 8), "seed": (-(1 << 31), (1 << 31) - 1),
                  "maxOutputTokens": (1, 1 << 31), "topK": (1, 1 << 31)}  # fmt: skip
        for name, (least, most) in bounds.items():
            if config.get(name) is not None and not least <= config[name] <= most:
                raise self._refuse(f"GenerateContentRequest.generation_config.{name}: out of range")
        if len(config.get("stopSequences", ())) > 5:
            raise self._refuse("GenerateContentRequest.generation_config.stop_sequences: at most 5")
        has_schema = "responseSchema" in config or "responseJsonSchema" in config
        if has_schema and config.get("responseMimeType") != "application/json":
            raise self._refuse("a response schema needs responseMimeType application/json")
        declared = [one for tool in body.get("tools", ()) for one in tool.get("functionDeclarations", ())]
        for one in declared:
            if not _NAME.fullmatch(one.get("name", "")):
                raise self._refuse("Invalid function name. Must start with a letter or an underscore.")
        calling = body.get("toolConfig", {}).get("functionCallingConfig", {})
        allowed = calling.get("allowedFunctionNames", [])
        if allowed and (
            calling.get("mode") not in {"ANY", "VALIDATED"} or set(allowed) - {one["name"] for one in declared}
        ):
            raise self._refuse("allowed_function_names: only with mode ANY, and only declared functions")

    def _check_contents(self, body: dict) -> None:
        contents = body["contents"]
        if not contents or contents[0].get("role", "user") != "user":
            raise self._refuse("contents: must begin with the user's turn")
        for part in body.get("systemInstruction", {}).get("parts", ()):
            if "text" not in part:
                raise self._refuse("system_instruction: only text")
        waiting: list[tuple[str | None, str]] = []
        for index, content in enumerate(contents):
            parts = content.get("parts") or []
            if content.get("role", "user") not in {"user", "model"} or not parts:
                raise self._refuse(f"contents[{index}]: a role is 'user' or 'model', and has parts")
            for part in parts:
                if len(set(part) & {"text", "functionCall", "functionResponse", "inlineData"}) != 1:
                    raise self._refuse(f"contents[{index}].parts: exactly one kind of data")
            answers = [part["functionResponse"] for part in parts if "functionResponse" in part]
            if [(one.get("id"), one["name"]) for one in answers] != waiting:
                raise self._refuse("the number of function response parts must equal that of function call parts")
            calls = [part for part in parts if "functionCall" in part]
            if calls and "thoughtSignature" not in calls[0]:
                raise self._refuse("Function call is missing a thought_signature in functionCall parts.")
            waiting = [(part["functionCall"].get("id"), part["functionCall"]["name"]) for part in calls]
        if waiting:
            raise self._refuse("function calls without responses")

    # Answers.

    def usage(self, request: Received, say: Say) -> dict:
        prompt, output = tokens_in(request.json), len(say.pieces) + 5 * len(say.calls)
        return {
            "promptTokenCount": prompt,
            "cachedContentTokenCount": say.cached,
            "candidatesTokenCount": output,
            "thoughtsTokenCount": len(say.thoughts),
            "totalTokenCount": prompt + output + len(say.thoughts),
        }

    def _parts(self, say: Say) -> list[list[dict]]:
        thoughts = [[{"text": thought, "thought": True}] for thought in say.thoughts]
        texts = [[{"text": piece}] for piece in say.pieces if piece]
        calls = [{"functionCall": {"name": name, "args": arguments}} for name, arguments in say.calls]
        if calls:
            calls[0]["thoughtSignature"] = "c2lnbmF0dXJl"
        return [*thoughts, *texts, *([call] for call in calls)]

    def _answer(self, candidates: list[dict], usage: dict) -> dict:
        return {
            "candidates": candidates, "usageMetadata": usage, "modelVersion": self.model, "responseId": "resp-AbC",
        }  # fmt: skip

    def whole(self, request: Received, say: Say) -> object:
        body = request.json
        if request.path.endswith(":batchEmbedContents"):
            size = body["requests"][0].get("outputDimensionality") or 4
            return {"embeddings": [{"values": [index + 0.5] * size} for index, _ in enumerate(body["requests"])]}
        if say.reason == "BLOCKED":
            return {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": self.usage(request, say)}
        parts = [part for some in self._parts(say) for part in some]
        count = body.get("generationConfig", {}).get("candidateCount", 1)
        candidates = [
            {"content": {"role": "model", "parts": parts}, "finishReason": say.reason or "STOP", "index": index}
            for index in range(count)
        ]
        return self._answer(candidates, self.usage(request, say))

    def events(self, request: Received, say: Say) -> tuple[list[bytes], list[list[bytes]], list[bytes]]:
        usage = self.usage(request, say)
        if say.reason == "BLOCKED":
            return [], [], [sse({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": usage})]
        count = request.json.get("generationConfig", {}).get("candidateCount", 1)

        def chunk(parts: list[dict], reason: str | None = None) -> list[bytes]:
            ended = {"finishReason": reason} if reason else {}
            candidates = [
                {"content": {"role": "model", "parts": parts}, "index": index, **ended} for index in range(count)
            ]
            return [sse(self._answer([candidate], usage)) for candidate in candidates]

        pieces = [chunk(parts) for parts in self._parts(say)]
        return [], pieces, chunk([{"text": ""}], say.reason or "STOP")

    def broken_event(self, request: Received, say: Say) -> bytes:
        error = {
            "code": 503,
            "message": f"overloaded: {request.body.decode()}",
            "status": say.break_code or "UNAVAILABLE",
        }
        return sse({"error": error})
