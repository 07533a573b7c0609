"""What a record of fields is written in: forms, tables, code, logs, calls of tools. Each part has its own.

A carrier takes the generator and the fields, and gives a text or a whole body of a request. Values that are labelled
carry their marks through all quoting. Those of the held-out part stand with it.
"""

from __future__ import annotations

import csv
import html
import io
from random import Random
from typing import Any, Final

from benchmarks.corpus.fields import Carrier, Fields, as_object, called, chat, dumps
from benchmarks.corpus.held_out import carriers as held_out
from benchmarks.corpus.rows import ascii_escaped, quoted

# The open part.


def form(_rng: Random, fields: Fields) -> str:
    return "\n".join(f"{field.title}: {field.value}" for field in fields)


def markdown_table(_rng: Random, fields: Fields) -> str:
    rows = (" | ".join(each) for each in ([f.title for f in fields], ["---"] * len(fields), [f.value for f in fields]))
    return "\n".join(f"| {row} |" for row in rows)


def _separated(fields: Fields, sign: str, *, keys: bool) -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=sign, lineterminator="\n")
    writer.writerow([field.key if keys else field.title for field in fields])
    writer.writerow([field.value for field in fields])
    return out.getvalue()


def comma_separated(_rng: Random, fields: Fields) -> str:
    return _separated(fields, ",", keys=True)


def nested_json(rng: Random, fields: Fields) -> str:
    return dumps({"id": rng.randrange(1000), "customer": {"details": as_object(fields)}, "active": True}, indent=2)


def json_in_json(rng: Random, fields: Fields) -> str:
    return dumps({"event": "updated", "attempt": rng.randrange(5), "payload": dumps({"new": as_object(fields)})})


def python_code(_rng: Random, fields: Fields) -> str:
    lines = [f"    {field.key}={quoted(field.value)}," for field in fields]
    return "\n".join(("client = Client(", *lines, ")", "client.save()"))


def sql_insert(_rng: Random, fields: Fields) -> str:
    values = ", ".join("'" + field.value.replace("'", "''") + "'" for field in fields)
    return f"INSERT INTO clients ({', '.join(field.key for field in fields)}) VALUES ({values});"  # noqa: S608 - a text; it runs nowhere


def environment_file(_rng: Random, fields: Fields) -> str:
    return "\n".join(("DEBUG=0", *(f"{field.key.upper()}={quoted(field.value)}" for field in fields), "WORKERS=4"))


def log_line(rng: Random, fields: Fields) -> str:
    said = " ".join(f"{field.key}={field.value}" for field in fields)
    return f"2025-03-0{rng.randrange(1, 10)} 11:0{rng.randrange(10)}:17,204 DEBUG api.clients: saving {said}"


def tool_arguments(_rng: Random, fields: Fields) -> dict[str, Any]:
    return chat(
        {"role": "user", "content": "Please save the record."},
        called("save_client", dumps(as_object(fields))),
        {"role": "tool", "tool_call_id": "call_1", "content": "saved"},
        {"role": "user", "content": "Thanks. What is next?"},
    )


def tool_result(_rng: Random, fields: Fields) -> dict[str, Any]:
    return chat(
        {"role": "user", "content": "Look up the customer."},
        called("find_client", '{"row": 1}'),
        {"role": "tool", "tool_call_id": "call_1", "content": dumps({"found": [as_object(fields)]})},
    )


def system_message(_rng: Random, fields: Fields) -> dict[str, Any]:
    known = "; ".join(f"{field.title}: {field.value}" for field in fields)
    return chat({"role": "system", "content": f"Known facts. {known}"}, {"role": "user", "content": "Hello!"})


# The second part.


def html_list(_rng: Random, fields: Fields) -> str:
    rows = "".join(f"<tr><th>{html.escape(f.title)}</th><td>{html.escape(f.value)}</td></tr>" for f in fields)
    return f"<table class='card'>{rows}</table>"


def tab_separated(_rng: Random, fields: Fields) -> str:
    return _separated(fields, "\t", keys=False)


def yaml_record(_rng: Random, fields: Fields) -> str:
    return "\n".join(("record:", *(f"  {field.key}: {quoted(field.value)}" for field in fields), "  revision: 3"))


def xml_record(_rng: Random, fields: Fields) -> str:
    rows = "".join(f"<{field.key}>{html.escape(field.value, quote=False)}</{field.key}>" for field in fields)
    return f'<?xml version="1.0" encoding="UTF-8"?><record>{rows}</record>'


def json_lines(rng: Random, fields: Fields) -> str:
    lines = ({"n": rng.randrange(100), "ok": True}, as_object(fields), {"n": rng.randrange(100), "ok": False})
    return "\n".join(ascii_escaped(dumps(line)) for line in lines)


def javascript(_rng: Random, fields: Fields) -> str:
    lines = ",\n".join(f"  {field.key}: {quoted(field.value)}" for field in fields)
    return f"await api.post('/v2/people', {{\n{lines}\n}});"


def shell_command(_rng: Random, fields: Fields) -> str:
    body = dumps(as_object(fields)).replace("'", "'\\''")
    return f"curl -sS -X PUT -H 'content-type: application/json' -d '{body}' http://localhost:8080/people/7"


def structured_log(rng: Random, fields: Fields) -> str:
    return dumps(
        {"ts": 1_740_000_000 + rng.randrange(10**6), "lvl": "debug", "msg": "upsert", "ctx": as_object(fields)}
    )


def plain_list(_rng: Random, fields: Fields) -> str:
    return "\n".join(f"• {field.title} – {field.value}" for field in fields)


def parallel_arguments(rng: Random, fields: Fields) -> dict[str, Any]:
    listed = dumps({"operations": [{"set": field.key, "to": field.value} for field in fields], "dry": False})
    message = called("lookup", f'{{"page": {rng.randrange(9)}}}', "a")
    message["tool_calls"] += called("apply_changes", listed, "b")["tool_calls"]
    return chat(
        {"role": "user", "content": "Go on."},
        message,
        {"role": "tool", "tool_call_id": "a", "content": "[]"},
        {"role": "tool", "tool_call_id": "b", "content": "done"},
    )


def result_in_parts(rng: Random, fields: Fields) -> dict[str, Any]:
    parts = [{"type": "text", "text": text} for text in ("1 row", yaml_record(rng, fields))]
    return chat(
        {"role": "user", "content": [{"type": "text", "text": "Show row 1."}]},
        called("query", '{"sql": "select * from people limit 1"}'),
        {"role": "tool", "tool_call_id": "call_1", "content": parts},
    )


def earlier_answer(rng: Random, fields: Fields) -> dict[str, Any]:
    return chat(
        {"role": "developer", "content": "Answer briefly."},
        {"role": "user", "content": "What do we have on file?"},
        {"role": "assistant", "content": plain_list(rng, fields)},
        {"role": "user", "content": "Write it as a paragraph."},
    )


TEXTS: Final[dict[str, dict[str, Carrier]]] = {
    "open": {
        "form": form,
        "markdown_table": markdown_table,
        "csv": comma_separated,
        "json_nested": nested_json,
        "json_in_json": json_in_json,
        "python": python_code,
        "sql": sql_insert,
        "environment": environment_file,
        "log": log_line,
    },
    "second": {
        "list": plain_list,
        "html": html_list,
        "tsv": tab_separated,
        "yaml": yaml_record,
        "xml": xml_record,
        "json_lines": json_lines,
        "javascript": javascript,
        "shell": shell_command,
        "json_log": structured_log,
    },
    "held_out": held_out.TEXTS,
}
"""Carriers whose rows are texts."""
BODIES: Final[dict[str, dict[str, Carrier]]] = {
    "open": {"tool_arguments": tool_arguments, "tool_result": tool_result, "system_message": system_message},
    "second": {
        "parallel_arguments": parallel_arguments,
        "result_in_parts": result_in_parts,
        "earlier_answer": earlier_answer,
    },
    "held_out": held_out.BODIES,
}
"""Carriers whose rows are requests."""
