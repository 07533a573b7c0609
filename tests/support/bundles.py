"""Bundles made byte by byte, so that any part of them can be wrong, and a host to bring them into."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import struct
import sys
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from serving.bundle import Exceptions, Installed, Wishes, complete, install, open_head, record, source_of
from serving.bundle.form import END, header, padding
from serving.bundle.host import Host
from serving.bundle.keys import Trust
from serving.bundle.manifest import MAX_SERIAL
from serving.keyfiles import Publisher, fingerprint_of
from serving.store.accepted import is_licence
from serving.store.cas import Store
from serving.store.manifest import Manifest, StoredFile
from tests.support.gguf_bytes import tiny

MACHINE = platform.machine()
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PLATFORM = f"manylinux_2_17_{MACHINE}"
ANY = "small_thing-1.0-py3-none-any.whl"
assert is_licence("LICENSE")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wheel(project: str = "small_thing", version: str = "1.0", extra: Iterable[tuple[str, bytes]] = ()) -> bytes:
    """A wheel with one module, and whatever is added."""
    held = io.BytesIO()
    folder = f"{project}-{version}.dist-info"
    files = [
        (f"{project}.py", f"VERSION = {version!r}\n".encode()),
        *extra,
        (f"{folder}/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\nLicense: MIT\n".encode()),
        (f"{folder}/WHEEL", b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
    ]
    listed = "".join(f"{name},,\n" for name, _ in files) + f"{folder}/RECORD,,\n"
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [*files, (f"{folder}/RECORD", listed.encode())]:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return held.getvalue()


def tensors(size: int, seed: int = 0) -> bytes:
    """A safetensors file of about so many bytes."""
    told = json.dumps({"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    told += b" " * (-len(told) % 8)
    block = hashlib.sha256(bytes([seed])).digest()
    return struct.pack("<Q", len(told)) + told + (block * (size // 32 + 1))[:size]


CONFIG = json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}).encode()


@dataclass
class Draft:
    """A bundle to be; every field may be set to nonsense."""

    models: list[tuple[str, str, str, dict[str, bytes]]] = field(
        default_factory=lambda: [("small", "f16", "gguf", {"small.gguf": tiny().encode()})]
    )
    """Model, variant, format, files."""
    licences: dict[str, dict[str, bytes]] | None = None
    wheels: list[tuple[str, int | None, bytes]] = field(default_factory=list)
    """File, level, content."""
    serial: int = 1
    platform: str = PLATFORM
    python: str = PYTHON
    template: str | None = None
    change: Callable[[dict[str, Any]], None] = lambda _: None
    """What is done to the manifest before it is signed."""
    added: list[tuple[str, bytes]] = field(default_factory=list)
    """Members that both the manifest and the tar have beyond those that belong."""

    def parts(self, key: Ed25519PrivateKey | None) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
        """The manifest as a JSON value, and the members."""
        stored = []
        members: list[tuple[str, bytes]] = []
        licences = self.licences or {model: {"LICENSE": b"Do as you like.\n"} for model, _, _, _ in self.models}
        for model in sorted(licences):
            members += [(f"licences/{model}/{name}", licences[model][name]) for name in sorted(licences[model])]
        members.append(("sbom.cdx.json", b"{}\n"))
        wheels = sorted(
            ((f"wheels/{file}" if level is None else f"wheels/x86-64-v{level}/{file}"), file, level, content)
            for file, level, content in self.wheels
        )
        if wheels:
            lines: dict[str, list[str]] = {}
            for _, file, _, content in wheels:
                project, version = file.split("-")[:2]
                lines.setdefault(f"{project.replace('_', '-')}=={version}", []).append(sha256(content))
            listed = [f"{name} {' '.join(f'--hash=sha256:{x}' for x in lines[name])}\n" for name in sorted(lines)]
            members.append(("wheels/requirements.txt", "".join(listed).encode()))
            members += [(member, content) for member, _, _, content in wheels]
        seen: set[str] = set()
        for model, variant, form, files in sorted(self.models):
            told = []
            for name, content in sorted(files.items()):
                digest = sha256(content)
                told.append({"name": name, "sha256": digest, "size": len(content)})
                if digest not in seen:
                    members.append((f"models/{model}/{variant}/{name}", content))
                seen.add(digest)
            stored.append(
                {
                    "model": model,
                    "variant": variant,
                    "format": form,
                    "files": told,
                    "source": None,
                    "revision": None,
                    "template_sha256": self.template,
                    "licence": "MIT",
                    "publishable": False,
                }
            )
        members += self.added
        names = sorted({model for model, _, _, _ in self.models})
        value: dict[str, Any] = {
            "format": "perimeter-bundle",
            "version": 1,
            "created": "2026-01-31T12:00:00Z",
            "serial": self.serial,
            "publisher": None if key is None else fingerprint_of(key.public_key()),
            "models": stored,
            "entries": {
                name: {
                    "title": name,
                    "context": 64,
                    "variants": [
                        {"name": variant, "format": form, "backends": ["llamacpp" if form == "gguf" else "vllm"]}
                        for model, variant, form, _ in sorted(self.models)
                        if model == name
                    ],
                }
                for name in names
            },
            "licences": {name: [f"licences/{name}/{file}" for file in sorted(licences[name])] for name in licences},
            "wheels": {
                "extra": "base",
                "platform": self.platform,
                "python": self.python,
                "files": [{"file": file, "level": level, "sha256": sha256(told)} for _, file, level, told in wheels],
            }
            if wheels
            else None,
            "members": [{"name": name, "size": len(content), "sha256": sha256(content)} for name, content in members],
        }
        self.change(value)
        return value, members

    def build(self, key: Ed25519PrivateKey | None) -> bytes:
        """The bundle, signed with `key`."""
        value, members = self.parts(key)
        raw = written(value)
        return assemble(raw, b"" if key is None else key.sign(raw), members)


def written(value: object) -> bytes:
    """A manifest as it has to be written."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def assemble(raw: bytes, signature: bytes, members: Iterable[tuple[str, bytes]], end: bytes = END) -> bytes:
    """A tar of these, in their order."""
    files = [("MANIFEST.json", raw), ("MANIFEST.sig", signature), *members]
    return b"".join(header(name, len(content)) + content + padding(len(content)) for name, content in files) + end


def raw_header(name: str, size: int, kind: bytes = b"0", target: str = "") -> bytes:
    """A tar header of any kind, with a sound checksum."""
    block = bytearray(header("x", size))
    block[:100] = name.encode().ljust(100, b"\0")
    block[156:157] = kind
    block[157:257] = target.encode().ljust(100, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


class Site:
    """A host with a store, and a publisher whose key is enrolled there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.key = Ed25519PrivateKey.generate()
        self.store = Store(root / "store")
        self.trust = Trust(root / "trust")
        self.enrol(self.key, "publisher")
        self.host = Host(MACHINE, PYTHON, 40, frozenset())

    def enrol(self, key: Ed25519PrivateKey, name: str) -> None:
        fingerprint = fingerprint_of(key.public_key())
        self.trust.add(Publisher(name, fingerprint, key.public_key()), fingerprint)

    def bring(self, bundle: bytes | Path, wishes: Wishes = Wishes()) -> Installed:  # noqa: B008 - frozen
        """Install a bundle as `serve bundle install` does."""
        path = bundle
        if isinstance(path, bytes):
            path = self.root / "bundle.tar"
            path.write_bytes(bundle if isinstance(bundle, bytes) else b"")
        with source_of(path) as source, complete(source):
            head = open_head(source, self.trust, wishes.exceptions)
            installed = install(source, head, self.store, self.host, wishes)
        record(self.store, head, may_go_back=wishes.exceptions.downgrade)
        return installed

    def traces(self) -> list[str]:
        """Every file under the store but the lock files, and directories of what is on its way."""
        root = self.store.root
        found = [path for path in root.rglob("*") if not path.is_dir() or path.parent == root / "incoming" / "bundle"]
        return sorted(
            path.relative_to(root).as_posix()
            for path in found
            if path.name not in (".using", ".changing", "bundle.lock")
        )


UNSIGNED = Wishes(Exceptions(unsigned=True))
MOST = MAX_SERIAL


def manifest_of(files: dict[str, bytes], model: str = "small", variant: str = "f16") -> Manifest:
    """A stored model of these files."""
    told = tuple(StoredFile(name, sha256(content), len(content)) for name, content in sorted(files.items()))
    return Manifest(model, variant, "gguf", told)
