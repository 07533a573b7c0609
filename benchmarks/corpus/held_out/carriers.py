"""What records are written in in the held-out part: exports, configuration, tickets, calls of tools."""

from __future__ import annotations

import html
from random import Random
from typing import Any, Final

from benchmarks.corpus.fields import Carrier, Fields, as_object, called, chat, dumps
from benchmarks.corpus.rows import quoted


def pasted_columns(_rng: Random, fields: Fields) -> str:
    """Two columns of a sheet, as the clipboard gives them."""
    return "\n".join(f"{field.title}\t{field.value}" for field in fields)


def semicolons(rng: Random, fields: Fields) -> str:
    """An export with everything quoted, and a line that is nobody's."""
    head = ";".join(f'"{field.title}"' for field in fields)
    line = ";".join('"' + field.value.replace('"', '""') + '"' for field in fields)
    empty = ";".join([f'"{rng.randrange(1000, 9999)}"', *['""'] * (len(fields) - 1)])
    return f"sep=;\n{head}\n{line}\n{empty}"


def expanded_query(rng: Random, fields: Fields) -> str:
    """What psql prints with `\\x`."""
    width = max(len(field.key) for field in fields)
    lines = [f"{field.key:<{width}} | {field.value}" for field in fields]
    return "\n".join((f"-[ RECORD {rng.randrange(1, 9)} ]{'-' * width}", *lines))


def ini_section(rng: Random, fields: Fields) -> str:
    return "\n".join(
        (f"[profile{rng.randrange(9)}]", *(f"{field.key} = {field.value}" for field in fields), "verify = yes")
    )


def properties(_rng: Random, fields: Fields) -> str:
    return "\n".join(("# import.properties", *(f"import.row.{field.key}={field.value}" for field in fields)))


def ticket(rng: Random, fields: Fields) -> str:
    """Markup of a tracker: a table whose headings stand on the left."""
    lines = [f"||{field.title}|{field.value}|" for field in fields]
    return "\n".join((f"h3. SUP-{rng.randrange(100, 9999)}", *lines, "", "_assigned to second line_"))


def patch(rng: Random, fields: Fields) -> str:
    """A change to a fixture."""
    lines = [f"+  {field.key}: {quoted(field.value)}" for field in fields]
    head = (
        "diff --git a/fixtures/people.yml b/fixtures/people.yml",
        "--- a/fixtures/people.yml",
        "+++ b/fixtures/people.yml",
    )
    return "\n".join(
        (*head, f"@@ -{rng.randrange(3, 80)},2 +{rng.randrange(3, 80)},{len(fields) + 2} @@", " - kind: person", *lines)
    )


def accounting_export(_rng: Random, fields: Fields) -> str:
    """Properties in attributes, as accounting programs exchange them."""
    rows = "\n".join(
        f'  <Property Name="{html.escape(field.title)}" Value="{html.escape(field.value)}"/>' for field in fields
    )
    return f'<Object Type="CatalogRef.Contractors">\n{rows}\n</Object>'


def to_string(rng: Random, fields: Fields) -> str:
    """An object of a program in its log."""
    said = ", ".join(f"{field.key}={field.value}" for field in fields)
    when = f"2026-02-1{rng.randrange(10)}T08:1{rng.randrange(10)}:44.{rng.randrange(100, 999)}Z"
    return f"{when} ERROR [http-nio-8080-exec-{rng.randrange(1, 9)}] o.e.crm.PersonService - rejected PersonDto[{said}]"


def terraform(_rng: Random, fields: Fields) -> str:
    lines = "\n".join(f"    {field.key} = {quoted(field.value)}" for field in fields)
    return f'resource "crm_contact" "this" {{\n  attributes = {{\n{lines}\n  }}\n}}'


def php_array(_rng: Random, fields: Fields) -> str:
    values = [(field.key, field.value.replace("\\", "\\\\").replace("'", "\\'")) for field in fields]
    lines = "\n".join(f"    '{key}' => '{value}'," for key, value in values)
    return f"<?php\n$person = [\n{lines}\n];\n$repo->persist($person);"


def setters(_rng: Random, fields: Fields) -> str:
    lines = "\n".join(f"p.set{field.key[0].upper()}{field.key[1:]}({quoted(field.value)});" for field in fields)
    return f"Person p = new Person();\n{lines}\nassertThat(validator.validate(p)).isEmpty();"


def sql_update(_rng: Random, fields: Fields) -> str:
    said = ",\n       ".join(f"{field.key} = '" + field.value.replace("'", "''") + "'" for field in fields[1:])
    return f"UPDATE crm.person\n   SET {said}\n WHERE {fields[0].key} = {fields[0].value};"  # noqa: S608 - a text; it runs nowhere


def bold_list(_rng: Random, fields: Fields) -> str:
    return "\n".join(f"- **{field.title}:** {field.value}" for field in fields)


def web_form(_rng: Random, fields: Fields) -> str:
    rows = "\n".join(
        f'<label for="{field.key}">{html.escape(field.title)}</label>'
        f'<input id="{field.key}" name="{field.key}" value="{html.escape(field.value)}">'
        for field in fields
    )
    return f'<form action="/save" method="post">\n{rows}\n</form>'


def proto_text(_rng: Random, fields: Fields) -> str:
    return "\n".join(("contact {", *(f"  {field.key}: {quoted(field.value)}" for field in fields), "}"))


def one_line(_rng: Random, fields: Fields) -> str:
    """As people copy a card of a customer into a chat."""
    return " / ".join(f"{field.title} {field.value}" for field in fields)


def wide_paste(rng: Random, fields: Fields) -> str:
    """Headings and a line of a sheet, tabs between them, with a column before."""
    head = "\t".join(["#", *(field.title for field in fields)])
    return f"{head}\n{rng.randrange(1, 60)}\t" + "\t".join(field.value for field in fields)


# Requests.


def crm_result(rng: Random, fields: Fields) -> dict[str, Any]:
    """A tool that answers in Markdown, after one that found nothing."""
    return chat(
        {"role": "system", "content": "You are the assistant of the service desk."},
        {"role": "user", "content": "Open the card, please."},
        called("crm_search", '{"limit": 1}', "call_Zk1"),
        {"role": "tool", "tool_call_id": "call_Zk1", "content": "no match"},
        called("crm_open", f'{{"card": {rng.randrange(100, 999)}}}', "call_Zk2"),
        {"role": "tool", "tool_call_id": "call_Zk2", "content": "## Card\n" + bold_list(rng, fields)},
    )


def mail_arguments(rng: Random, fields: Fields) -> dict[str, Any]:
    """A letter that the model is to send: the record stands in its body."""
    body = "As discussed:\n" + "\n".join(f"{field.title}: {field.value}" for field in fields)
    arguments = {"subject": f"Case {rng.randrange(1000, 9999)}", "body": body, "html": False}
    return chat(
        {"role": "user", "content": "Send what we have."},
        called("send_mail", dumps(arguments), "call_m"),
        {"role": "tool", "tool_call_id": "call_m", "content": '{"queued": true}'},
    )


def retrieved(rng: Random, fields: Fields) -> dict[str, Any]:
    """A developer's message with what a search has found."""
    first = '<document index="1">\nOpening hours: Mon to Fri\n</document>'
    found = f'<documents>\n{first}\n<document index="2">\n{one_line(rng, fields)}\n</document>\n</documents>'
    return chat(
        {"role": "developer", "content": f"Use only the documents.\n{found}"},
        {"role": "user", "content": "Which entries are complete?"},
    )


def structured_answer(_rng: Random, fields: Fields) -> dict[str, Any]:
    """What the model read out of a scan, in the conversation that goes on."""
    return chat(
        {"role": "user", "content": "Read the scan into JSON."},
        {"role": "assistant", "content": dumps({"confidence": 0.97, "fields": as_object(fields)}, indent=1)},
        {"role": "user", "content": "Now as CSV with semicolons."},
    )


def query_result(_rng: Random, fields: Fields) -> dict[str, Any]:
    """Columns, and rows apart from them."""
    result = {"columns": [field.key for field in fields], "rows": [[field.value for field in fields]], "ms": 4}
    return chat(
        {"role": "user", "content": "Run the saved query."},
        called("run_query", '{"name": "daily"}', "call_q"),
        {"role": "tool", "tool_call_id": "call_q", "content": dumps(result)},
        {"role": "assistant", "content": "One row came back."},
        {"role": "user", "content": "Explain the columns."},
    )


def named_parameters(rng: Random, fields: Fields) -> dict[str, Any]:
    """Arguments with a list of names and values, two levels down."""
    listed = [{"name": field.key, "value": field.value, "type": "string"} for field in fields]
    arguments = dumps({"workflow": "update", "input": {"parameters": listed}, "retry": rng.randrange(3)})
    return chat(
        {"role": "user", "content": [{"type": "text", "text": "Start the workflow."}]},
        called("start_workflow", arguments, "call_w"),
        {"role": "tool", "tool_call_id": "call_w", "content": "started"},
        {"role": "user", "content": "And now?"},
    )


def many_parts(_rng: Random, fields: Fields) -> dict[str, Any]:
    """A message in parts, a field in each."""
    parts = [{"type": "text", "text": f"{field.title} = {field.value}"} for field in fields]
    return chat({"role": "user", "content": [{"type": "text", "text": "Put this in order:"}, *parts]})


TEXTS: Final[dict[str, Carrier]] = {
    "pasted_columns": pasted_columns,
    "semicolons": semicolons,
    "expanded_query": expanded_query,
    "ini": ini_section,
    "properties": properties,
    "ticket": ticket,
    "patch": patch,
    "accounting_export": accounting_export,
    "to_string": to_string,
    "terraform": terraform,
    "php": php_array,
    "setters": setters,
    "sql_update": sql_update,
    "bold_list": bold_list,
    "web_form": web_form,
    "proto_text": proto_text,
    "one_line": one_line,
    "wide_paste": wide_paste,
}
BODIES: Final[dict[str, Carrier]] = {
    "crm_result": crm_result,
    "mail_arguments": mail_arguments,
    "retrieved": retrieved,
    "structured_answer": structured_answer,
    "query_result": query_result,
    "named_parameters": named_parameters,
    "many_parts": many_parts,
}
