"""A small store with a model in each form, made fresh."""

from __future__ import annotations

from pathlib import Path

from serving.store.bring import Found, Origin, bring_in, look_through
from serving.store.cas import Store
from serving.store.manifest import Manifest

DEMO = Path(__file__).parents[2] / "serving" / "models" / "demo"


def found(path: Path) -> Found:
    status = path.lstat()
    return Found(path.name, path, status.st_size, status.st_mtime_ns)


def with_demo(root: Path) -> tuple[Store, Manifest, Manifest]:
    """A store with the demo's safetensors directory and its GGUF file."""
    store = Store(root)
    tensors = bring_in(store, look_through(DEMO / "hf")[0], Origin("own", "bf16"))
    gguf = bring_in(store, [found(DEMO / "demo-q8_0.gguf")], Origin("own", "q8_0"))
    return store, tensors, gguf
