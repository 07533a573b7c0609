"""The settings of who may call without an API key of their own: tokens of an identity provider, client certificates."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from serving.settings.section import Section, SettingPath

_TEXT = r"^[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$"


def _fingerprint(text: str) -> str:
    """A SHA-256 as 64 digits in lower case; openssl's form with colons is taken too."""
    plain = text.replace(":", "").lower()
    if re.fullmatch("[0-9a-f]{64}", plain) is None:
        kind, message = "sha256", "must be a SHA-256 in 64 hexadecimal digits"
        raise PydanticCustomError(kind, message)
    return plain


def _jwks_url(text: str) -> str:
    """https, or http to this host; a plain URL without a user or a fragment."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    is_plain = text.isascii() and text.isprintable() and " " not in text and "#" not in text and "@" not in text
    if not host or port == 0 or not is_plain or parts.scheme not in {"https", "http"}:
        kind, message = "jwks_url", "must be a URL such as `https://id.example/realms/site/certs`"
        raise PydanticCustomError(kind, message)
    if parts.scheme == "http" and not _is_loopback(host):
        kind, message = "jwks_url", "must be `https`: over `http` whoever is in between chooses whose tokens are taken"
        raise PydanticCustomError(kind, message)
    return text


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class ClientCertificate(Section):
    """A client certificate that stands for an API key (docs/access.md); one such table for each.

    Who shows it in the TLS handshake and sends no `Authorization` is that key. Exactly one of the fields beside `key`
    tells the certificate; names are compared letter by letter.
    """

    key: str = Field(pattern=r"^[0-9A-Za-z]{1,32}$", description="Id of the key, as `serve keys list` shows it.")
    sha256: Annotated[str, AfterValidator(_fingerprint)] | None = Field(
        default=None, description="The certificate's own fingerprint: `openssl x509 -fingerprint -sha256`."
    )
    common_name: str | None = Field(default=None, pattern=_TEXT, description="The one common name of its subject.")
    uri: str | None = Field(default=None, pattern=_TEXT, description="A URI among its alternative names.")
    dns: str | None = Field(default=None, pattern=_TEXT, description="A DNS name among its alternative names.")
    email: str | None = Field(default=None, pattern=_TEXT, description="An email address among its alternative names.")

    @property
    def shown(self) -> tuple[str, str]:
        """What tells the certificate: the field, and its value."""
        return next((name, value) for name in _TELLING if (value := getattr(self, name)) is not None)

    @model_validator(mode="after")
    def _tells_one(self) -> ClientCertificate:
        if sum(getattr(self, name) is not None for name in _TELLING) != 1:
            kind, message = "certificate", "needs exactly one of `sha256`, `common_name`, `uri`, `dns` and `email`"
            raise PydanticCustomError(kind, message)
        return self


_TELLING = ("sha256", "common_name", "uri", "dns", "email")

Count = Annotated[int, Field(ge=0, le=10**15)]
Money = Annotated[float, Field(ge=0, le=10**9)]


class OidcGroup(Section):
    """What a group of the identity provider may do; one such table for each, and nobody else is let in.

    The first table whose group a token names counts, and it alone. Limits are those of each subject.
    """

    group: str = Field(min_length=1, max_length=256, description="The group, as the token's claim names it.")
    scopes: list[Literal["inference", "metrics", "admin", "mirror"]] = Field(
        default=["inference"], min_length=1, max_length=8, description="What its members may do, as a key's scopes."
    )
    models: list[Annotated[str, Field(pattern=_TEXT, max_length=256)]] | None = Field(
        default=None, min_length=1, max_length=256, description="Models that they may use; unset: all."
    )
    cache_domain: str | None = Field(
        default=None,
        pattern=_TEXT,
        max_length=127,
        description="Who shares computed prefixes with them; unset: each subject has a domain of its own.",
    )
    classes: list[Annotated[str, Field(pattern=_TEXT, max_length=127)]] = Field(
        default=[],
        max_length=64,
        description="Classes of work of the policy that they are enrolled for; with none, nothing of theirs leaves.",
    )
    residency: list[Annotated[str, Field(pattern=_TEXT, max_length=127)]] = Field(
        default=[], max_length=64, description="Regions that their data may go to, in the policy's words."
    )
    requests_per_minute: Count | None = Field(default=None, description="Requests per minute, of each subject.")
    requests_per_day: Count | None = Field(default=None, description="Requests per day.")
    tokens_per_minute: Count | None = Field(default=None, description="Tokens of prompts and answers per minute.")
    tokens_per_day: Count | None = Field(default=None, description="Tokens of prompts and answers per day.")
    concurrency: Count | None = Field(default=None, description="Requests at one time.")
    budget_per_day: Money | None = Field(default=None, description="Money per day, counted in `access.price_book`.")
    budget_per_month: Money | None = Field(default=None, description="Money per month.")
    budget: Money | None = Field(default=None, description="Money in all.")


class Oidc(Section):
    """Tokens of one identity provider in place of keys (docs/access.md). Off as long as `issuer` is unset."""

    issuer: str | None = Field(
        default=None, pattern=_TEXT, max_length=1024, description="Whose tokens are taken: their `iss`, to the letter."
    )
    audience: str | None = Field(
        default=None,
        pattern=_TEXT,
        max_length=1024,
        description="What names this server in their `aud`; a token for another audience is refused.",
    )
    algorithms: list[
        Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
    ] = Field(
        default=["RS256", "ES256", "EdDSA"],
        min_length=1,
        description="Signatures that are taken, public keys only; `EdDSA` is Ed25519.",
    )
    jwks_file: SettingPath | None = Field(
        default=None, description="File with the provider's public keys, a JSON Web Key Set; this or `jwks_url`."
    )
    jwks_url: Annotated[str, AfterValidator(_jwks_url)] | None = Field(
        default=None,
        description="Where they are fetched from: https, or http on this host. No redirect is followed, and no other "
        "address that a token may name is asked.",
    )
    ca_file: SettingPath | None = Field(
        default=None, description="Certificates, in PEM, that its server's is checked against; unset: the system's."
    )
    refresh_s: float = Field(
        default=300.0,
        ge=60,
        le=86_400,
        description="Seconds between two looks at the keys; a token of an unknown key brings one forward, to once a "
        "minute at most.",
    )
    stale_s: float = Field(
        default=86_400.0,
        ge=60,
        le=31_536_000,
        description="Seconds for which the last keys are used while no new ones can be had; then tokens are refused.",
    )
    leeway_s: int = Field(
        default=30,
        ge=0,
        le=300,
        description="Seconds that the provider's clock may be ahead (`nbf`, `iat`). A token ends at its `exp`.",
    )
    token_bytes: int = Field(default=8192, ge=512, le=32_768, description="Longest token that is looked at, bytes.")
    groups_claim: str = Field(
        default="groups",
        pattern=_TEXT,
        max_length=256,
        description="Claim with the subject's groups; `realm_access.roles` for one inside another.",
    )
    groups: list[OidcGroup] = Field(default=[])

    @model_validator(mode="after")
    def _whole(self) -> Oidc:
        sources = (self.jwks_file is not None) + (self.jwks_url is not None)
        kind, message = "half_oidc", ""
        if self.issuer is None:
            if self.audience is not None or sources or self.groups:
                message = "has no `issuer`, and without one no token is taken"
        elif self.audience is None:
            message = "needs an `audience`: the issuer's tokens for other servers are not for this one"
        elif sources != 1:
            message = "needs either `jwks_file` or `jwks_url`"
        elif not self.groups:
            message = "needs at least one `[[access.oidc.groups]]`: nobody else is let in"
        elif len({each.group for each in self.groups}) != len(self.groups):
            message = "has two `[[access.oidc.groups]]` of one group"
        if message:
            raise PydanticCustomError(kind, message)
        return self
