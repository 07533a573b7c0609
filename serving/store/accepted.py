"""Which files may be part of a model: weights, numbers about them, tokenizers, templates, words. Never code.

A name says what a file claims to be, `check_content` whether it is that: a pickle that is called `model.safetensors` is
one still. What is left out here is what runs when it is loaded (pickles, Python, shared libraries) or what nobody here
reads.
"""

from __future__ import annotations

import codecs
import json
import re
from pathlib import Path
from typing import Final

from serving import gguf, safetensors
from serving.errors import BadFile

MAX_NAME: Final = 255
MAX_DEPTH: Final = 4
"""Directories below a model's own; sentence-transformers' `1_Pooling/config.json` is the deepest that is known."""
MAX_VALUES: Final = 1 << 22
"""Values in one JSON file; the largest published tokenizers have under two million."""
MAX_TEXT: Final = 256 * 1024**2
"""Bytes of a file that is read whole when it is loaded; the largest published tokenizers have under 40 MB."""

_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_WEIGHTS: Final = frozenset({".safetensors", ".gguf"})
_JSON: Final = frozenset({".json"})
_TEXT: Final = frozenset({".txt", ".md", ".jinja", ".jinja2", ".tiktoken"})
_TEMPLATES: Final = frozenset({".jinja", ".jinja2"})
SIGNATURE: Final = "model.sig"
"""A signature in the form of OpenSSF Model Signing."""
_TOKENIZERS: Final = frozenset({"tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model.v3"})
_WORDS: Final = re.compile(r"(licen[cs]e|notice|copying|use[_-]policy|readme)([._-].*)?", re.IGNORECASE)
_RUNS: Final = {
    ".bin": "a pickle",
    ".pt": "a pickle",
    ".pth": "a pickle",
    ".ckpt": "a pickle",
    ".pkl": "a pickle",
    ".pickle": "a pickle",
    ".joblib": "a pickle",
    ".npy": "a pickle, or may be one",
    ".npz": "a pickle, or may be one",
    ".py": "code",
    ".pyc": "code",
    ".pyd": "code",
    ".so": "code",
    ".dll": "code",
    ".dylib": "code",
    ".sh": "code",
    ".js": "code",
    ".exe": "code",
    ".jar": "code",
    ".ipynb": "code",
    ".h5": "a form that can carry code",
    ".keras": "a form that can carry code",
    ".pb": "a form that can carry code",
    ".onnx": "a form that nothing here reads",
    ".msgpack": "a form that nothing here reads",
    ".zip": "an archive",
    ".tar": "an archive",
    ".gz": "an archive",
    ".xz": "an archive",
    ".zst": "an archive",
    ".7z": "an archive",
}
"""What a suffix stands for, where it is worth a word why it is refused."""
_SNIFFED: Final = {
    b"PK\x03\x04": "an archive, as PyTorch's pickles are",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"\x7fELF": "a program",
    b"\x1f\x8b": "compressed",
    b"#!": "a script",
}


def refuse_name(name: str) -> str | None:
    """Why a file of that name, relative to its model with `/` between parts, may not be part of it; None if it may."""
    if len(name) > MAX_NAME:
        return f"its name has more than {MAX_NAME} characters"
    parts = name.split("/")
    if len(parts) > MAX_DEPTH or not all(_PART.fullmatch(part) for part in parts):
        return "its name leads elsewhere, or has characters beyond letters, digits and `._+-`"
    last = parts[-1]
    suffix = Path(last).suffix.lower()
    if suffix in _RUNS:
        return f"it is {_RUNS[suffix]}"
    if suffix in _WEIGHTS | _JSON | _TEXT or last in _TOKENIZERS or name == SIGNATURE or _WORDS.fullmatch(last):
        return None
    return "it is neither weights (safetensors, GGUF), JSON, a tokenizer, a template nor words"


def is_weights(name: str) -> bool:
    """Whether the file holds tensors."""
    return Path(name).suffix.lower() in _WEIGHTS


def is_words(name: str) -> bool:
    """Whether the file is for people, a licence, a notice, a card, or the signature: no engine reads it."""
    if Path(name).suffix.lower() in _WEIGHTS | _JSON | _TEMPLATES:
        return False
    return name == SIGNATURE or _WORDS.fullmatch(name.rsplit("/", 1)[-1]) is not None


def is_licence(name: str) -> bool:
    """Whether the file is a licence's text by its name."""
    return re.fullmatch(r"(licen[cs]e|copying|use[_-]policy)([._-].*)?", name, re.IGNORECASE) is not None


def check_content(name: str, path: Path) -> None:
    """See that the file at `path` is what its `name` says. Raises BadFile.

    Of weights the whole header is read, against the file's size; JSON is parsed; what is text must be UTF-8.
    """
    with path.open("rb") as file:
        start = file.read(8)
        size = path.stat().st_size
    shown = f"`{name}`"
    for magic, what in _SNIFFED.items():
        if start.startswith(magic):
            raise BadFile(f"{shown} is {what}, whatever its name says", hint="take the model's safetensors or GGUF")
    suffix = Path(name).suffix.lower()
    if suffix == ".gguf":
        gguf.read_header(path)
        return
    if suffix == ".safetensors":
        safetensors.read_header(path)
        return
    if size > MAX_TEXT:
        raise BadFile(f"{shown} has {size} bytes, and such files are read whole", hint=f"at most {MAX_TEXT} are taken")
    if suffix in _JSON or name == SIGNATURE:
        _check_json(shown, path)
    elif name.rsplit("/", 1)[-1] not in _TOKENIZERS:
        _check_text(shown, path)


def _check_json(shown: str, path: Path) -> None:
    raw = path.read_bytes()
    if raw.count(b",") + raw.count(b"{") + raw.count(b"[") > MAX_VALUES:
        raise BadFile(f"{shown} has more than {MAX_VALUES:,} values", hint="no model's does: it is made to fill memory")
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadFile(f"{shown} is not JSON", hint="carry the model in again") from None
    if isinstance(content, dict) and "auto_map" in content:
        message = f"{shown} names code of its own to be run (`auto_map`)"
        raise BadFile(
            message, hint="no engine here runs a model's code; take `auto_map` out if its class is a known one"
        )


def _check_text(shown: str, path: Path) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                if b"\0" in chunk:
                    raise BadFile(f"{shown} is not text", hint="carry the model in again")
                decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise BadFile(f"{shown} is not text in UTF-8", hint="carry the model in again") from None
