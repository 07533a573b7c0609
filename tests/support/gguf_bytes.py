"""GGUF files built byte by byte, so that any part of them can be wrong."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path


def text(value: str | bytes) -> bytes:
    """A GGUF string."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def u32(value: int) -> bytes:
    """A metadata value of type u32."""
    return struct.pack("<II", 4, value)


def string(value: str) -> bytes:
    """A metadata value of type string."""
    return struct.pack("<I", 8) + text(value)


def strings(values: list[str]) -> bytes:
    """A metadata value that is an array of strings."""
    return struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(text, values))


@dataclass
class Gguf:
    """A file to be; every field may be set to nonsense."""

    magic: bytes = b"GGUF"
    version: int = 3
    metadata: list[tuple[str, bytes]] = field(default_factory=lambda: list(LLAMA))
    tensors: list[tuple[str, tuple[int, ...], int, int]] = field(default_factory=list)
    """Name, shape, type, offset."""
    data: bytes = b""
    n_tensors: int | None = None
    n_metadata: int | None = None

    def encode(self) -> bytes:
        """The file's bytes."""
        counts = (
            len(self.tensors) if self.n_tensors is None else self.n_tensors,
            len(self.metadata) if self.n_metadata is None else self.n_metadata,
        )
        out = self.magic + struct.pack("<IQQ", self.version, *counts)
        for key, value in self.metadata:
            out += text(key) + value
        for name, shape, kind, offset in self.tensors:
            out += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
            out += struct.pack("<IQ", kind, offset)
        return out + b"\0" * (-len(out) % 32) + self.data

    def write(self, path: Path) -> Path:
        """Write it; returns the path."""
        path.write_bytes(self.encode())
        return path


LLAMA: list[tuple[str, bytes]] = [
    ("general.architecture", string("llama")),
    ("general.name", string("tiny")),
    ("llama.block_count", u32(2)),
    ("llama.context_length", u32(1024)),
    ("llama.embedding_length", u32(64)),
    ("llama.feed_forward_length", u32(128)),
    ("llama.attention.head_count", u32(4)),
    ("llama.attention.head_count_kv", u32(2)),
    ("tokenizer.ggml.model", string("gpt2")),
    ("tokenizer.ggml.tokens", strings([f"t{number}" for number in range(2000)])),
]


def tiny() -> Gguf:
    """A sound file: two F32 tensors in place."""
    return Gguf(
        tensors=[("token_embd.weight", (64, 2000), 0, 0), ("output_norm.weight", (64,), 0, 64 * 2000 * 4)],
        data=bytes(64 * 2000 * 4 + 64 * 4),
    )
