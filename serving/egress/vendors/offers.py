"""The tools and formats of a request, for the APIs that want them in other words."""

from __future__ import annotations

from serving.egress.vendors.fields import Fields


def labelled(given: Fields, schema: dict[str, object], name: str | None, described: str | None) -> dict[str, object]:
    """The schema with its name and description inside it, for an API that has no place beside it."""
    made = dict(schema)
    if name is not None and made.setdefault("title", name) != name:
        given.refuse("name", "the schema has another `title`, and it has no other place for the name")
    if described is not None and made.setdefault("description", described) != described:
        given.refuse("description", "the schema has another `description`, and it has no other place for this one")
    return made


def function_of(destination: str, tool: object, path: str) -> Fields:
    """The `function` of an offered tool."""
    outer = Fields(destination, tool if isinstance(tool, dict) else {}, path)
    if outer.text("type") != "function":
        outer.refuse("type", "it takes functions only")
    function = outer.mapping("function") or {}
    outer.end()
    return Fields(destination, function, f"{path}.function")


def chosen_name(destination: str, choice: object) -> str:
    """The function that a `tool_choice` object names."""
    outer = Fields(destination, choice if isinstance(choice, dict) else {"type": choice}, "tool_choice")
    if outer.text("type") != "function":
        outer.refuse("type", "it takes `auto`, `none`, `required`, or one function")
    function = Fields(destination, outer.mapping("function") or {}, "tool_choice.function")
    name = function.text("name") or ""
    function.end()
    outer.end()
    return name
