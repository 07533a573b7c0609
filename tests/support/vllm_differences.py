"""Where our parse of the corpus differs from vLLM's, and why ours is the one to have."""

from __future__ import annotations

from typing import Final

AFTER = "vLLM drops text that stands after a call; it was written for the reader, so it is content"
CUT_STREAM = "whole, vLLM gives a cut call back as text, streamed it is a call; here it is text both times"
CUT = "vLLM makes a call of what was cut off; what the model had not finished saying must not be done"
SECOND_CUT = "vLLM loses the whole call before the cut one, or makes a call of the cut one"
LOST_STREAM = "streamed, vLLM loses text that is no call after all"
ENDS_AT_TAG = "vLLM ends the call at a tag inside a string; JSON says where a string ends"
STREAM_ARGUMENTS = "streamed, vLLM's arguments are not the ones of the call: it cuts them out of the text by position"
UNKNOWN = "no such tool was offered, so there is none to call"
SLIP = "one reading is possible, and vLLM gives up on it"
NOT_JSON = "vLLM hands on arguments that are no JSON object"
EMPTY_STREAM = "streamed, vLLM sends no arguments at all for a call without any; `{}` is what parses"
SECOND_STREAM = "streamed, vLLM loses calls after the first, or their arguments"
TWICE = "two readers would see two different calls"
NOT_LOST = "vLLM drops the marker or the text; nothing that was written is lost here"
THOUGHT = "vLLM ends reasoning at a tag inside it; what a model only considers is not done"

DIFFERENCES: Final[dict[str, dict[str, str]]] = {
    "hermes": {
        "text after a call": AFTER,
        "text between calls": AFTER,
        "cut in the arguments": CUT_STREAM,
        "cut in the name": LOST_STREAM,
        "cut in the tag": LOST_STREAM,
        "second call cut": SECOND_CUT,
        "tag in a string": ENDS_AT_TAG,
        "both tags in a string": ENDS_AT_TAG,
        "arguments first": STREAM_ARGUMENTS,
        "an argument called name": STREAM_ARGUMENTS + "; it even calls another tool",
        "unknown tool": UNKNOWN,
        "not JSON": LOST_STREAM,
        "single quotes": LOST_STREAM,
        "a brace too many": SLIP,
        "a line break in a string": SLIP,
        "NaN": NOT_JSON,
        "no arguments": SLIP + "; streamed, its arguments are empty text",
        "null arguments": NOT_JSON,
        "quoted arguments": NOT_JSON,
        "two objects in a block": SLIP,
        "an array in a block": SLIP,
        "empty block": LOST_STREAM,
        "wrong call before a right one": "vLLM loses the right call, and streamed the text, too",
        "a tag in prose": LOST_STREAM,
        "a key twice": TWICE,
        "more keys": STREAM_ARGUMENTS,
    },
    "llama3_json": {
        "call: empty": EMPTY_STREAM,
        "two calls": SECOND_STREAM,
        "two calls, no space": SECOND_STREAM,
        "two calls on lines": SECOND_STREAM,
        "two calls after a tag": SECOND_STREAM,
        "three calls": SECOND_STREAM,
        "an array": "whole, vLLM sees the calls, streamed it does not; here they are calls both times",
        "text before": (
            "whole, vLLM takes any object in a text for a call and drops the text, streamed it is text; an example in "
            "an explanation must not be done, so without a tag a call stands where the answer begins"
        ),
        "text after": AFTER,
        "an answer in JSON": LOST_STREAM,
        "an answer with a name": UNKNOWN,
        "a name alone": UNKNOWN,
        "cut": CUT_STREAM + "; vLLM even closes the half argument",
        "second cut": SECOND_CUT,
        "a built-in call": LOST_STREAM,
        "unknown tool": UNKNOWN,
        "both keys": TWICE,
        "not an object": NOT_JSON,
        "white space": "whole, vLLM sees the call, streamed it does not",
        "a tag in text": "whole, vLLM drops the text before the call, streamed it does not see the call",
    },
    "mistral": {
        "text after": AFTER,
        "no arguments": EMPTY_STREAM,
        "null arguments": EMPTY_STREAM,
        "cut": CUT_STREAM,
        "second cut": SECOND_CUT,
        "marker in a string": ENDS_AT_TAG,
        "not JSON": NOT_LOST,
        "unknown tool": UNKNOWN,
        "no bracket at the end": SLIP + " when it is not streamed",
    },
    "mistral v11": {
        "text after": AFTER + "; streamed, vLLM puts it into the arguments",
        "cut": CUT,
        "cut in the name": CUT,
        "second cut": CUT,
        "unknown tool": UNKNOWN,
        "not JSON": NOT_JSON,
        "white space": "streamed, vLLM's name has the white space in it",
        "marker in a string": ENDS_AT_TAG,
        "call id": "vLLM takes the id for a part of the name",
    },
    "qwen3_coder": {
        "text after": AFTER,
        "text between": AFTER,
        "cut in a value": CUT,
        "cut after a value": CUT,
        "cut in the name": CUT,
        "last closing tag forgotten": "vLLM loses the value",
        "function tag in a value": ENDS_AT_TAG,
        "parameter tag in a value": "no such parameter is declared, so the tag is text",
        "unknown tool": UNKNOWN,
        "JSON in the block": NOT_LOST,
        "a parameter twice": TWICE,
        "a tag in prose": UNKNOWN,
    },
    "granite": {
        "text after": AFTER,
        "cut": CUT,
        "second cut": CUT,
        "unknown tool": UNKNOWN,
        "not JSON": NOT_LOST,
        "no calls": NOT_LOST,
    },
    "deepseek_v3": {
        "cut": CUT_STREAM + "; whole, vLLM loses it",
        "not JSON": NOT_JSON,
        "laid out": "vLLM loses a call whose arguments stand on several lines",
    },
    "deepseek_r1 reasoning": {
        "text before": "whole, vLLM drops the text before the mark; it is reasoning, mark and all",
        "started twice": "streamed, vLLM drops a second mark, whole it keeps it",
    },
    "qwen3 reasoning and hermes": {
        "a call inside": THOUGHT,
        "a tag inside": THOUGHT,
    },
}
"""By parser and label of the corpus."""
