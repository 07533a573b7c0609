"""The messages and tools of a chat: their rules, and the views that a chat template is rendered from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from serving.errors import InvalidRequest, UnsupportedFeature
from serving.openai.references import schema_rule
from serving.openai.rules import (
    NEVER,
    AnyObject,
    Array,
    ByType,
    Closed,
    Custom,
    Discarded,
    Field,
    Flag,
    OneOf,
    Refused,
    Rule,
    Tagged,
    Text,
)
from serving.openai.strict import parse_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serving.openai.limits import Limits, Serves

_TOOL_NAME: Final = "[a-zA-Z0-9_-]{1,64}"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the assistant made earlier in the conversation."""

    id: str
    name: str
    arguments: str
    """JSON text as the model wrote it; it need not be valid."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. Content parts are joined with newlines, as vLLM does for templates that take a string."""

    role: str
    content: str | None
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    def __repr__(self) -> str:
        size = None if self.content is None else len(self.content)
        return f"Message(role={self.role!r}, chars={size}, tool_calls={len(self.tool_calls)})"

    def for_template(self) -> dict[str, object]:
        """The message as chat templates expect it: arguments as an object where they are one, `developer` as system."""
        shaped: dict[str, object] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": self.content if self.content is not None else "",
        }
        if self.name is not None:
            shaped["name"] = self.name
        if self.tool_call_id is not None:
            shaped["tool_call_id"] = self.tool_call_id
        if self.tool_calls:
            shaped["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": _arguments(call.arguments)},
                }
                for call in self.tool_calls
            ]
        return shaped


def _arguments(text: str) -> object:
    try:
        value = parse_text(text)
    except InvalidRequest:
        return text
    return value if isinstance(value, dict) else text


def message_of(checked: Mapping[str, object]) -> Message:
    """The view of a message that passed its rule."""
    content = checked.get("content")
    if isinstance(content, list):
        content = "\n".join(str(part.get("text", part.get("refusal", ""))) for part in content)
    calls = cast("list[dict[str, object]]", checked.get("tool_calls", ()))
    return Message(
        role=cast("str", checked["role"]),
        content=cast("str | None", content),
        name=cast("str | None", checked.get("name")),
        tool_calls=tuple(_tool_call_of(call) for call in calls),
        tool_call_id=cast("str | None", checked.get("tool_call_id")),
    )


def _tool_call_of(call: Mapping[str, object]) -> ToolCall:
    function = cast("dict[str, str]", call["function"])
    return ToolCall(cast("str", call["id"]), function["name"], function["arguments"])


def message_rule(limits: Limits, serves: Serves) -> Rule:
    """A message of any role."""
    ignore = limits.unknown_fields == "ignore"
    text_part = _closed({"text": Field(Text(), required=True)}, ignore, part="text")
    refusal_part = _closed({"refusal": Field(Text(), required=True)}, ignore, part="refusal")
    only_text = ByType(text=Text(), array=Array(Tagged("type", {"text": text_part}), limits.parts, 1))
    user_parts = Tagged("type", {"text": text_part, **_media_parts(limits, serves)})
    from_user = ByType(text=Text(), array=Array(user_parts, limits.parts, 1))
    from_assistant = ByType(
        text=Text(), array=Array(Tagged("type", {"text": text_part, "refusal": refusal_part}), limits.parts, 1)
    )
    name = Field(Text(limits.name_chars))
    content = Field(only_text, required=True)

    def role(word: str, fields: dict[str, Field]) -> Closed:
        finish = _assistant_says_something if word == "assistant" else None
        return Closed({"role": Field(OneOf((word,)), required=True), **fields}, ignore, finish)

    return Tagged(
        "role",
        {
            "system": role("system", {"content": content, "name": name}),
            "developer": role("developer", {"content": content, "name": name}),
            "user": role("user", {"content": Field(from_user, required=True), "name": name}),
            "assistant": role(
                "assistant",
                {
                    "content": Field(from_assistant),
                    "name": name,
                    "refusal": Field(Text()),
                    "tool_calls": Field(Array(_tool_call_rule(limits, ignore=ignore), limits.tool_calls)),
                    "audio": Field(Refused("spoken answers are not served; send their text")),
                    "function_call": Field(Refused("send `tool_calls`, which replaced it")),
                    "annotations": Field(Discarded(Array(AnyObject(), limits.parts)), "Accepted and dropped."),
                },
            ),
            "tool": role(
                "tool",
                {"content": content, "tool_call_id": Field(Text(limits.name_chars), required=True)},
            ),
            "function": _never("`messages` of role `function` are not served", "send role `tool` instead", "role"),
        },
    )


def _assistant_says_something(checked: dict[str, object], path: str) -> None:
    if not {"content", "tool_calls", "refusal"} & checked.keys():
        where = f"{path}.content"
        raise InvalidRequest(f"`{where}` is missing, and there are no `tool_calls`", param=where)
    # A refusal is what the assistant said; a template knows only content.
    if "content" not in checked and "refusal" in checked and "tool_calls" not in checked:
        checked["content"] = checked["refusal"]
    checked.pop("refusal", None)


def _closed(fields: dict[str, Field], ignore: bool, *, part: str) -> Closed:  # noqa: FBT001 - private, one caller
    return Closed(
        {
            "type": Field(OneOf((part,)), required=True),
            **fields,
            "prompt_cache_breakpoint": Field(
                Discarded(AnyObject()), "Accepted and dropped: prefixes are cached without being told."
            ),
        },
        ignore,
    )


def _never(message: str, hint: str, tag: str) -> Rule:
    def refuse(_value: object, path: str) -> object:
        raise UnsupportedFeature(message, param=f"{path}.{tag}", hint=hint)

    return Custom(refuse, NEVER)


def _media_parts(limits: Limits, serves: Serves) -> dict[str, Rule]:
    """Images, audio and files. A URL is never fetched: only `data:` is known, whatever the engine serves."""
    ignore = limits.unknown_fields == "ignore"
    url = {"url": Field(Custom(_check_data_url, {"type": "string", "pattern": "^data:"}), required=True)}
    detail = {"detail": Field(OneOf(("auto", "low", "high", "original")))}
    image = _closed({"image_url": Field(Closed({**url, **detail}, ignore), required=True)}, ignore, part="image_url")
    audio = _closed(
        {
            "input_audio": Field(
                Closed(
                    {"data": Field(Text(), required=True), "format": Field(OneOf(("wav", "mp3")), required=True)},
                    ignore,
                ),
                required=True,
            )
        },
        ignore,
        part="input_audio",
    )
    return {
        "image_url": image if serves.images else _refused_after(image, "images are not served by this engine"),
        "input_audio": audio if serves.audio else _refused_after(audio, "audio is not served by this engine"),
        "file": _never("files are not served", "send their text", "type"),
    }


def _refused_after(rule: Rule, message: str) -> Rule:
    """Refuses what passes `rule`, so that a part that is wrong in itself is told so first."""

    def refuse(value: object, path: str) -> object:
        rule.check(value, path)
        raise UnsupportedFeature(message, param=f"{path}.type", hint="send text, or serve a model that takes it")

    return Custom(refuse, NEVER)


def _check_data_url(value: object, path: str) -> object:
    Text().check(value, path)
    if not isinstance(value, str) or not value[:5].lower() == "data:":
        raise InvalidRequest(f"`{path}` must be a `data:` URL; nothing is ever fetched", param=path)
    return value


def _tool_call_rule(limits: Limits, *, ignore: bool) -> Rule:
    function = Closed(
        {
            "name": Field(Text(limits.name_chars, min_chars=1), required=True),
            "arguments": Field(Text(), required=True),
        },
        ignore,
    )
    return Tagged(
        "type",
        {
            "function": Closed(
                {
                    "id": Field(Text(limits.name_chars), required=True),
                    "type": Field(OneOf(("function",)), required=True),
                    "function": Field(function, required=True),
                },
                ignore,
            ),
            "custom": _never("custom tools are not served", "offer a tool of type `function`", "type"),
        },
    )


def tool_rule(limits: Limits) -> Rule:
    """A tool that is offered to the model."""
    ignore = limits.unknown_fields == "ignore"
    function = Closed(
        {
            "name": Field(Text(64, pattern=_TOOL_NAME), required=True),
            "description": Field(Text()),
            "parameters": Field(schema_rule(), "JSON Schema of the arguments."),
            "strict": Field(Flag()),
        },
        ignore,
    )
    return Tagged(
        "type",
        {
            "function": Closed(
                {"type": Field(OneOf(("function",)), required=True), "function": Field(function, required=True)},
                ignore,
            ),
            "custom": _never("custom tools are not served", "offer a tool of type `function`", "type"),
        },
    )


def tool_choice_rule(limits: Limits) -> Rule:
    """`tool_choice`: a word, or one tool by name."""
    only = "offer only the tools that may be called"
    named = Closed(
        {
            "type": Field(OneOf(("function",)), required=True),
            "function": Field(Closed({"name": Field(Text(64, pattern=_TOOL_NAME), required=True)}), required=True),
        },
        limits.unknown_fields == "ignore",
    )
    kinds: dict[str, Rule] = {
        "function": named,
        "allowed_tools": _never("`allowed_tools` is not served", only, "type"),
        "custom": _never("custom tools are not served", only, "type"),
    }
    return ByType(text=OneOf(("auto", "none", "required")), object_=Tagged("type", kinds))
