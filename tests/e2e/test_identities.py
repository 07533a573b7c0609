"""A token of an identity provider through the whole of `serve`: the real client, a real engine, usage and the audit."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import openai
import pytest

from serving.access.jwts import id_of
from tests.e2e.stack import ROOT, serve
from tests.support.identity import AUDIENCE, ISSUER, claims_at, ed, key_set


def test_a_token_through_the_whole_product(tmp_path: Path) -> None:
    """It answers, is counted and recorded under the subject's id; a forged one is refused and recorded as a failure."""
    signer, config, keys = ed(), tmp_path / "site.toml", tmp_path / "audit-keys"
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "keys.json").write_bytes(key_set(signer))
    config.write_text(
        f'[access]\nopen = false\ndirectory = "{tmp_path / "access"}"\n'
        f'[access.oidc]\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\njwks_file = "{tmp_path / "keys.json"}"\n'
        '[[access.oidc.groups]]\ngroup = "staff"\nmodels = ["demo"]\nrequests_per_minute = 2\n'
        f'[audit]\nenabled = true\ndirectory = "{tmp_path / "audit"}"\n'
        f'signing_key = "{keys / "signing.key"}"\nfingerprint_key = "{keys / "fingerprint.key"}"\n'
        f'[paths]\nruntime_dir = "{tmp_path / "run"}"\n'
    )
    subject = id_of(ISSUER, "ann")

    def command(*words: str) -> str:
        argv = [sys.executable, "-m", "serving", *words, "--config", str(config)]
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(token: str) -> openai.types.chat.ChatCompletion:
        with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=token, max_retries=0, timeout=30) as client:
            return client.chat.completions.create(
                model="demo", messages=[{"role": "user", "content": "Who are you?"}], max_tokens=8
            )

    with serve(config=config, is_open=False) as stack:
        now = int(time.time())
        token = signer.token(claims_at(now))
        used = ask(token).usage
        with pytest.raises(openai.AuthenticationError, match="signature"):
            ask(token[:-10] + "A" * 10)
        with pytest.raises(openai.PermissionDeniedError):
            ask(signer.token(claims_at(now, groups=["others"])))
        ask(signer.token(claims_at(now, exp=now + 500)))
        with pytest.raises(openai.RateLimitError):
            ask(token)
        (line,) = json.loads(command("keys", "usage", subject, "--json"))["usage"]
        assert (line["key_id"], line["requests"], line["output"]) == (subject, 2, 2 * used.completion_tokens)
    entries = [each["record"] for each in json.loads(command("audit", "show", "--json", "--last", "0"))]
    intents = [each for each in entries if each["kind"] == "intent"]
    assert [(each["principal"], each["key"]) for each in intents] == [("ann", subject)] * 2
    assert sum(each["count"] for each in entries if each["kind"] == "authentication-failed") == 2
    assert token.split(".")[1] not in json.dumps(entries)
