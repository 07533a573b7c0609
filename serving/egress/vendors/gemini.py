"""Google's Gemini API (generateContent): an OpenAI chat, or texts to embed, in its words.

Source: the types and converters of Google's own Python client (google-genai 3.x) for the Gemini Developer API.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from serving.egress.vendors.calls import (
    CHAT,
    EMBEDDINGS,
    Answered,
    OutCall,
    StreamTranslator,
    Vendor,
    VendorRequest,
    broken,
    credential,
    failed,
    post,
)
from serving.egress.vendors.conversation import Call, Turn, conversation
from serving.egress.vendors.events import read_object
from serving.egress.vendors.fields import Fields, unsupported
from serving.egress.vendors.gemini_answers import ContentStream, completion_of, embeddings_of, refusal_of
from serving.egress.vendors.offers import chosen_name, function_of, labelled
from serving.egress.vendors.refusals import error_of
from serving.errors import ServingError
from serving.openai import serialise
from serving.openai.rules import wrong_type

_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
_MOST_STOPS: Final = 5
_MOST_CHOICES: Final = 8
_INT32: Final = 2**31
_EFFORT: Final = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "XHIGH"}
_FOREIGN_CALL: Final = "skip_thought_signature_validator"
"""What Google names for a call in the conversation that carries no signature of its own: newer models ask for one, and
OpenAI's protocol has no place in which it could have been kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemini(Vendor):
    """The Gemini Developer API. `OutCall.model` without `models/` before it."""

    prefix: str = "/v1"
    """The stable version, which the vendor's client uses; `/v1beta` for models that are not in it yet."""
    thoughts: bool = False
    """Ask for a summary of what the model thought; models that do not think refuse it."""
    call_signature: str | None = _FOREIGN_CALL
    """What stands as `thoughtSignature` of calls that were made earlier; None leaves it out, for models before 3."""

    def request(self, call: OutCall) -> VendorRequest:
        """As `Vendor.request`."""
        model = quote(call.model, safe="")
        if call.route == EMBEDDINGS:
            return post(f"{self._at(model)}:batchEmbedContents", serialise(self._texts(call)), stream=False)
        method = "streamGenerateContent?alt=sse" if call.stream else "generateContent"
        return post(f"{self._at(model)}:{method}", serialise(self._body(call)), stream=call.stream)

    def auth(self, secret: str) -> tuple[tuple[str, str], ...]:
        """As `Vendor.auth`."""
        return (("x-goog-api-key", credential(self.name, secret)),)

    def answer(self, call: OutCall, status: int, headers: Mapping[str, str], body: bytes) -> Answered:
        """As `Vendor.answer`."""
        value = read_object(body)
        if status != 200:
            return failed(error_of(self.name, status, refusal_of(value, headers)))
        if value is None or "error" in value:
            return failed(broken(self.name, "sent what is no answer"))
        try:
            if call.route == EMBEDDINGS:
                return embeddings_of(self.name, call, value)
            return completion_of(self.name, call, value)
        except ServingError as error:
            return failed(error)

    def stream(self, call: OutCall) -> StreamTranslator:
        """As `Vendor.stream`."""
        return ContentStream(self.name, call)

    def _at(self, model: str) -> str:
        return f"{self.prefix}/models/{model}"

    def _body(self, call: OutCall) -> dict[str, object]:
        fields = Fields(self.name, call.body)
        if call.route != CHAT:
            fields.refuse("model", f"it is not asked at `{call.route}`")
        fields.take("model")
        talk = conversation(self.name, fields.array("messages"))
        body: dict[str, object] = {}
        if talk.system:
            body["systemInstruction"] = {"parts": [{"text": text} for text in talk.system]}
        body["contents"] = [content for turn in talk.turns for content in self._contents(turn)]
        self._tools(fields, body)
        config = self._sampling(fields) | self._output(fields)
        if config:
            body["generationConfig"] = config
        body["store"] = False
        fields.take("stream")
        options = Fields(self.name, fields.mapping("stream_options") or {}, "stream_options")
        options.take("include_usage")
        options.end()
        fields.end()
        return body

    def _contents(self, turn: Turn) -> list[dict[str, object]]:
        if turn.role == "system":
            unsupported(self.name, f"{turn.path}.role", "it takes instructions only before the conversation")
        texts: list[dict[str, object]] = [{"text": text} for text in turn.texts]
        if turn.role == "assistant":
            calls = [self._call(call, is_first=index == 0) for index, call in enumerate(turn.calls)]
            return [{"role": "model", "parts": texts + calls}]
        given = []
        for result in turn.results:
            # two texts of one result stay two: a border is part of what was said
            output: object = result.texts[0] if len(result.texts) == 1 else list(result.texts)
            response = {"id": result.call.id, "name": result.call.name, "response": {"output": output or ""}}
            given.append({"functionResponse": response})
        return [{"role": "user", "parts": parts} for parts in (given, texts) if parts]

    def _call(self, call: Call, *, is_first: bool) -> dict[str, object]:
        name = self._named(call.name, f"{call.path}.function.name")
        made: dict[str, object] = {"functionCall": {"id": call.id, "name": name, "args": call.arguments}}
        if is_first and self.call_signature is not None:
            made["thoughtSignature"] = self.call_signature
        return made

    def _named(self, name: str | None, path: str) -> str:
        if name is None or _NAME.fullmatch(name) is None:
            unsupported(self.name, path, "the name of a function begins with a letter or an underscore")
        return name

    def _sampling(self, fields: Fields) -> dict[str, object]:
        top_k, seed, choices = fields.integer("top_k"), fields.integer("seed"), fields.integer("n")
        stops = fields.strings("stop")
        if len(stops) > _MOST_STOPS:
            fields.refuse("stop", f"it takes {_MOST_STOPS} strings at most")
        if seed is not None and not -_INT32 <= seed < _INT32:
            fields.refuse("seed", "it takes 32 bits")
        if choices is not None and choices > _MOST_CHOICES:
            fields.refuse("n", f"it gives {_MOST_CHOICES} answers at most")
        fields.neutral("min_p", 0)
        fields.neutral("repetition_penalty", 1)
        fields.neutral("stop_token_ids", [])
        fields.neutral("ignore_eos", False)  # noqa: FBT003 - a value that a field may have
        fields.neutral("min_tokens", 0)
        fields.neutral("logit_bias", {})
        fields.neutral("logprobs", False, why="its log-probabilities are not translated")  # noqa: FBT003
        fields.neutral("top_logprobs", 0)
        given = {
            "temperature": fields.number("temperature"),
            "topP": fields.number("top_p"),
            "topK": top_k if top_k and top_k > 0 else None,
            "candidateCount": choices if choices != 1 else None,
            "maxOutputTokens": fields.longest(),
            "stopSequences": stops or None,
            "presencePenalty": fields.number("presence_penalty"),
            "frequencyPenalty": fields.number("frequency_penalty"),
            "seed": seed,
        }
        return {name: value for name, value in given.items() if value is not None}

    def _output(self, fields: Fields) -> dict[str, object]:
        config: dict[str, object] = {}
        wanted = Fields(self.name, fields.mapping("response_format") or {"type": "text"}, "response_format")
        kind = wanted.text("type")
        if kind in {"json_object", "json_schema"}:
            config["responseMimeType"] = "application/json"
        elif kind != "text":
            wanted.refuse("type", "it has no such format")
        if kind == "json_schema":
            given = Fields(self.name, wanted.mapping("json_schema") or {}, wanted.at("json_schema"))
            name, described, schema = given.text("name"), given.text("description"), given.mapping("schema")
            given.flag("strict")  # it always is
            given.end()
            config["responseJsonSchema"] = labelled(given, schema or {"type": "object"}, name, described)
        wanted.end()
        thinking: dict[str, object] = {"includeThoughts": True} if self.thoughts else {}
        effort = fields.text("reasoning_effort")
        if effort == "none":
            thinking["thinkingBudget"] = 0
        elif effort is not None:
            if effort not in _EFFORT:
                fields.refuse("reasoning_effort", f"it takes {', '.join(_EFFORT)}")
            thinking["thinkingLevel"] = _EFFORT[effort]
        if thinking:
            config["thinkingConfig"] = thinking
        return config

    def _tools(self, fields: Fields, body: dict[str, object]) -> None:
        tools = fields.array("tools")
        choice = fields.take("tool_choice")
        if not tools:
            fields.take("parallel_tool_calls")  # says nothing where nothing can be called
            if choice not in (None, "auto", "none"):
                fields.refuse("tool_choice", "there are no `tools`")
            return
        fields.neutral("parallel_tool_calls", True, why="it cannot be kept from calling several")  # noqa: FBT003
        made, is_strict = [], False
        for index, tool in enumerate(tools):
            function = function_of(self.name, tool, f"tools.{index}")
            made.append(self._function(function))
            is_strict |= function.flag("strict") is True
            function.end()
        body["tools"] = [{"functionDeclarations": made}]
        config: dict[str, object] = {"mode": "VALIDATED" if is_strict else "AUTO"}
        if choice == "none":
            config["mode"] = "NONE"
        elif choice not in (None, "auto"):
            config["mode"] = "ANY"
            if choice != "required":
                config["allowedFunctionNames"] = [chosen_name(self.name, choice)]
        if config["mode"] != "AUTO":
            body["toolConfig"] = {"functionCallingConfig": config}

    def _function(self, function: Fields) -> dict[str, object]:
        made: dict[str, object] = {"name": self._named(function.text("name"), function.at("name"))}
        described, schema = function.text("description"), function.mapping("parameters")
        if described is not None:
            made["description"] = described
        if schema:
            made["parametersJsonSchema"] = schema
        return made

    def _texts(self, call: OutCall) -> dict[str, object]:
        fields = Fields(self.name, call.body)
        given = fields.take("input")
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list):
            wrong_type("input", given, "a string or an array")
        if not all(isinstance(text, str) for text in texts):
            fields.refuse("input", "it takes texts, not token ids")
        dimensions = fields.integer("dimensions")
        fields.take("model")
        fields.take("encoding_format")  # the numbers are encoded here
        fields.end()
        one = {"outputDimensionality": dimensions} if dimensions is not None else {}
        model = f"models/{call.model}"
        return {"requests": [{"model": model, "content": {"parts": [{"text": text}]}, **one} for text in texts]}
