"""The settings of what may leave: where the policy is, and the process that alone sends anything out."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from serving.settings.section import Section, SettingPath


def _network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError:
        kind, message = "network", "must be a network such as `10.20.0.0/16`"
        raise PydanticCustomError(kind, message) from None
    return text


class Classifier(Section):
    """A model inside that reads what all other detectors call clean (docs/detection.md); it adds, and never clears.

    A policy whose `detection.required` names `model` lets nothing leave that this model could not judge.
    """

    url: str | None = Field(
        default=None,
        pattern=r"^(https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._/\-]*)?|unix:/.+)$",
        description="An OpenAI-compatible server on this host or in a private network, such as "
        "`http://127.0.0.1:8000/v1`, or `unix:/PATH` of its socket; unset: no model is asked.",
    )
    model: str | None = Field(default=None, min_length=1, description="Name of the model there.")
    credentials: SettingPath | None = Field(
        default=None,
        description="File with the key that this server wants, mode 0600: one of an owner of its own that is enrolled "
        "for nothing.",
    )
    ca: SettingPath | None = Field(
        default=None, description="PEM file of the certificates that it is verified by; unset: the system's."
    )
    timeout_s: float = Field(
        default=10.0, gt=0, le=20, description="For all answers about one request; beyond, it could not be judged."
    )
    most_chars: int = Field(
        default=64_000, ge=1, description="The model is not asked about a request with more, which it could not judge."
    )
    window_chars: int = Field(
        default=6_000,
        ge=100,
        description="Characters in one question; with the instructions they must fit its context.",
    )
    parallel: int = Field(default=4, ge=1, le=256, description="Questions at one time.")


class Egress(Section):
    """What may leave this host, by a process of its own (docs/routing.md). Unset, nothing does."""

    policy: SettingPath | None = Field(
        default=None,
        description="The policy (configs/policy.toml is one by which nothing leaves); unset: `serve egress` does not "
        "start, and the server sends every request to its own engines.",
    )
    directory: SettingPath | None = Field(
        default=None,
        description="What `serve egress` keeps, mode 0700, and its user's alone: fingerprints of sensitive texts, its "
        "audit log, the kill switch; unset: $XDG_STATE_HOME/perimeter/egress, else ~/.local/state/perimeter/egress.",
    )
    socket: SettingPath | None = Field(
        default=None,
        description="Where `serve egress` listens and the server finds it; unset: `egress.sock` in the directory "
        "above. Its directory's group may connect where `egress.callers` names somebody else.",
    )
    callers: list[int] = Field(
        default=[],
        description="User numbers that may ask `serve egress` beside its own and root's: the server's, where that runs "
        "as another user, which it should.",
    )
    user: int | None = Field(
        default=None, ge=0, description="User number that `serve egress` runs as; unset: the server's own."
    )
    credentials: SettingPath | None = Field(
        default=None,
        description="A directory with a file for each destination, mode 0600, that holds what the provider gave to be "
        "let in; unset: `credentials` in the directory above.",
    )
    ca: SettingPath | None = Field(
        default=None, description="PEM file of the certificates that providers are verified by; unset: the system's."
    )
    proxy: str | None = Field(
        default=None,
        pattern=r"^http://[A-Za-z0-9.\-\[\]:]+$",
        description="A proxy that makes tunnels (CONNECT), such as `http://proxy.site:3128`; TLS goes through it.",
    )
    private_networks: list[Annotated[str, AfterValidator(_network)]] = Field(
        default=[],
        description="Networks inside in which a cloud destination may be, for providers that are reached privately; "
        "all other private, loopback and link-local addresses are refused.",
    )
    workers: int = Field(default=1, ge=1, le=64, description="Processes that scan requests, one at a time each.")
    scan_timeout_s: float = Field(
        default=5.0, gt=0, le=600, description="A scan that takes longer is ended, and its request stays inside."
    )
    most_chars: int = Field(
        default=512_000, ge=1, description="A request with more characters is not scanned, and stays inside."
    )
    classifier: Classifier = Classifier()
