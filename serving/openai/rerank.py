"""POST /v1/rerank, in the shape of Jina and Cohere as vLLM serves it: schema, typed view, and answer."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from serving.openai.limits import DEFAULT_LIMITS, Limits
from serving.openai.rules import Array, ByType, Closed, Discarded, Field, Flag, Integer, Refused, Text
from serving.openai.strict import serialise


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """Documents that are to be ordered by how well they answer a query."""

    model: str
    query: str
    documents: tuple[str, ...]
    top_n: int | None
    """How many of the best are asked for; None is all."""
    return_documents: bool
    """Each result carries its document's text."""
    body: dict[str, object]

    def __repr__(self) -> str:
        return f"RerankRequest(model={self.model!r}, documents={len(self.documents)}, top_n={self.top_n})"


@lru_cache(maxsize=16)
def rerank_schema(limits: Limits = DEFAULT_LIMITS) -> Closed:
    """The fields that Jina, Cohere and vLLM have in common."""
    ignore = limits.unknown_fields == "ignore"
    document = ByType(text=Text(), object_=Closed({"text": Field(Text(), required=True)}, ignore))
    cut = Refused("no text is ever cut; split long documents on your side", (0,), Integer(0, 2**31 - 1))
    return Closed(
        {
            "model": Field(Text(limits.name_chars, min_chars=1), "A served model, as in /v1/models.", required=True),
            "query": Field(Text(min_chars=1), required=True),
            "documents": Field(
                Array(document, limits.inputs, 1), "Texts, or objects with a `text`; may be empty texts.", required=True
            ),
            "top_n": Field(Integer(0, limits.inputs), "So many of the best; 0 and what exceeds the documents are all."),
            "return_documents": Field(Flag(), "Each result carries its document; true where absent."),
            "max_tokens_per_doc": Field(cut),
            "user": Field(Discarded(Text()), "Accepted and dropped."),
        },
        ignore,
    )


def parse_rerank(body: dict[str, object], limits: Limits = DEFAULT_LIMITS) -> RerankRequest:
    """The typed view of a parsed body. Raises InvalidRequest or UnsupportedFeature with the field at fault."""
    checked = rerank_schema(limits).check_object(body, "")
    documents = cast("list[str | dict[str, str]]", checked["documents"])
    return RerankRequest(
        model=cast("str", checked["model"]),
        query=cast("str", checked["query"]),
        documents=tuple(one if isinstance(one, str) else one["text"] for one in documents),
        top_n=cast("int", checked.get("top_n", 0)) or None,
        return_documents=checked.get("return_documents") is not False,
        body=checked,
    )


def rerank_body(request: RerankRequest, *, model: str, scores: Sequence[float], prompt_tokens: int) -> bytes:
    """The answer: the best first, those with equal scores in the order in which they were given."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: request.top_n]
    results = [
        {
            "index": index,
            **({"document": {"text": request.documents[index]}} if request.return_documents else {}),
            "relevance_score": scores[index],
        }
        for index in order
    ]
    usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    return serialise({"id": f"rerank-{secrets.token_hex(16)}", "model": model, "usage": usage, "results": results})
