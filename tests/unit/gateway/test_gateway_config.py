"""The gateway's view of the settings."""

from dataclasses import fields

from serving.gateway.config import GatewayConfig, gateway_config
from serving.openai import Limits
from serving.settings import Settings


def test_every_limit_of_the_settings_arrives() -> None:
    """Each setting under `[limits]` changes the gateway's view: none is read and forgotten."""
    plain = Settings()
    before = gateway_config(plain)
    for name in type(plain.limits).model_fields:
        value = getattr(plain.limits, name)
        changed = plain.model_copy(update={"limits": plain.limits.model_copy(update={name: value + 1})})
        assert gateway_config(changed) != before, name
    for name in type(plain.engines.restart).model_fields:
        value = getattr(plain.engines.restart, name)
        restart = plain.engines.restart.model_copy(update={name: value + 1})
        changed = plain.model_copy(update={"engines": plain.engines.model_copy(update={"restart": restart})})
        assert gateway_config(changed) != before, name


def test_unknown_fields_may_be_ignored() -> None:
    """The server's setting reaches the schema."""
    lax = Settings.model_validate({"server": {"unknown_fields": "ignore"}})
    assert gateway_config(lax).limits.unknown_fields == "ignore"


def test_defaults_agree() -> None:
    """A bound has one default, whichever side it is read from."""
    given, own = gateway_config(Settings()), GatewayConfig()
    same = {field.name for field in fields(GatewayConfig)} - {"limits"}
    assert {name for name in same if getattr(given, name) != getattr(own, name)} == set()
    bounds = {field.name for field in fields(Limits)}
    differing = {name for name in bounds if getattr(given.limits, name) != getattr(own.limits, name)}
    assert differing == set()
