"""An identity provider for tests: keys of several kinds, tokens signed with them, and a server of its key set."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER = "https://id.example/realms/site"
AUDIENCE = "perimeter"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def number(value: int, size: int | None = None) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


@cache
def rsa_key(bits: int = 2048, which: int = 0) -> rsa.RSAPrivateKey:
    """Made once for each number `which`: it takes a while."""
    return rsa.generate_private_key(65537, bits)


class Signer:
    """A private key with its id; knows how to sign as an algorithm says, whether or not that is wise."""

    def __init__(self, key: Any, kid: str | None = "k1", **more: object) -> None:
        self.key, self.kid, self.more = key, kid, more

    @property
    def public(self) -> dict[str, object]:
        """Its JSON Web Key."""
        own: dict[str, object]
        if isinstance(self.key, rsa.RSAPrivateKey):
            numbers = self.key.public_key().public_numbers()
            own = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
        elif isinstance(self.key, ec.EllipticCurvePrivateKey):
            point, size = self.key.public_key().public_numbers(), (self.key.curve.key_size + 7) // 8
            names = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
            curve = names.get(self.key.curve.name, self.key.curve.name)
            own = {"kty": "EC", "crv": curve, "x": number(point.x, size), "y": number(point.y, size)}
        else:
            own = {"kty": "OKP", "crv": "Ed25519", "x": b64(self.key.public_key().public_bytes_raw())}
        return {**own, **({} if self.kid is None else {"kid": self.kid}), **self.more}

    def sign(self, data: bytes, algorithm: str) -> bytes:
        """By the key's kind."""
        digest = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}.get(algorithm[2:])
        if isinstance(self.key, rsa.RSAPrivateKey):
            if algorithm.startswith("PS"):
                form: Any = padding.PSS(padding.MGF1(digest), digest.digest_size)
            else:
                form = padding.PKCS1v15()
            return self.key.sign(data, form, digest)
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(digest)))
            size = (self.key.curve.key_size + 7) // 8
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        return self.key.sign(data)

    def token(
        self,
        claims: dict[str, object] | bytes,
        algorithm: str | None = None,
        header: dict[str, object] | bytes | None = None,
    ) -> str:
        """A token; `header` adds to the usual one, or is it where it is bytes."""
        if algorithm is None:
            kinds = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256"}
            algorithm = next((name for kind, name in kinds.items() if isinstance(self.key, kind)), "EdDSA")
        if not isinstance(header, bytes):
            usual = {"alg": algorithm, "typ": "JWT", **({} if self.kid is None else {"kid": self.kid})}
            header = json.dumps({**usual, **(header or {})}).encode()
        body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        signed = f"{b64(header)}.{b64(body)}".encode()
        return f"{signed.decode()}.{b64(self.sign(signed, algorithm))}"


def hmac_token(claims: dict[str, object], secret: bytes, header: dict[str, object]) -> str:
    """Signed with what should have been a public key."""
    signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}".encode()
    made = hmac.HMAC(secret, hashes.SHA256())
    made.update(signed)
    return f"{signed.decode()}.{b64(made.finalize())}"


def ed(kid: str | None = "ed", **more: object) -> Signer:
    return Signer(ed25519.Ed25519PrivateKey.generate(), kid, **more)


def p256(kid: str | None = "p256", **more: object) -> Signer:
    return Signer(ec.generate_private_key(ec.SECP256R1()), kid, **more)


def key_set(*signers: Signer) -> bytes:
    return json.dumps({"keys": [each.public for each in signers]}).encode()


def claims_at(now: int, **more: object) -> dict[str, object]:
    """Good claims; None takes one out."""
    usual: dict[str, object] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": now + 300, "iat": now}
    usual["groups"] = ["staff"]
    return {name: value for name, value in {**usual, **more}.items() if value is not None}


class KeyServer:
    """Answers with what it was given last: a status, headers and a body, or whatever `act` does with the handler."""

    def __init__(self) -> None:
        self.status, self.headers, self.body = 200, {"content-type": "application/json"}, b""
        self.act: Callable[[http.server.BaseHTTPRequestHandler], None] | None = None
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.url = ""


@contextlib.contextmanager
def key_server(context: ssl.SSLContext | None = None) -> Iterator[KeyServer]:
    """On a port of loopback, over TLS with a context."""
    told = KeyServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            if told.act is not None:
                told.act(self)
                return
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(told.body)))
            self.end_headers()
            self.wfile.write(told.body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that will not have the certificate, or leaves, is what some tests are about."""

        def finish_request(self, request: Any, client_address: Any) -> None:
            if context is None:
                super().finish_request(request, client_address)
                return
            with context.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    told.url = f"{'http' if context is None else 'https'}://localhost:{server.server_port}/certs"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
