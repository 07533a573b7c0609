"""A site's own words, before the real process: what has one stays, also where the policy has just changed."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serving.egress.asking import Ask
from tests.egress.conftest import ASK, CLEAN, SOURCE, Outside, body_of, policy_for
from tests.egress.test_egress_process import _children, _log, _workers

TERM, HOMOGLYPHS = "Project Nightjar", "Prоjеct  Nіghtjаr"  # the second with Cyrillic letters that look the same
WORDS = f'[detection.terms]\nprojects = ["{TERM}", "мотыл*"]\n'
PATTERN = "[detection.patterns]\ncontract = 'K-\\d{4}/[A-Z]{2}'\n"
HELD = ("nightjar", "мотыл", "K-", "contract", "projects")


def policy(made: Outside, tables: str = "") -> str:
    return policy_for(made.front.url).replace("[detection.least_recall]", f"{tables}[detection.least_recall]")


def another(number: int) -> Ask:
    """As somebody with whom nothing has been sensitive."""
    return dataclasses.replace(ASK, domain=f"domain-{number}")


@pytest.fixture
def vendor(fresh: Outside) -> Outside:
    """A process of the test's own."""
    fresh.start()
    return fresh


@pytest.fixture
def words(fresh: Outside) -> Outside:
    """With words and a pattern from the beginning."""
    pytest.importorskip("re2")
    fresh.write_policy(policy(fresh, WORDS + PATTERN))
    fresh.start()
    return fresh


@pytest.mark.parametrize(
    "said",
    [TERM, TERM.upper(), "project\n- nightjar", HOMOGLYPHS, "о мотыльке", "contract K-1234/AB", "K\u200b-1234/AB"],
)
def test_what_has_a_word_of_the_site_stays(words: Outside, said: str) -> None:
    """In any case, spacing and letters that look alike; without it the same text leaves."""
    told = words.chat(f"Tell me about {said}, please.")
    assert (told.status, told.code) == (403, "stays_inside")
    assert words.front.bytes_in == 0
    assert words.chat("Tell me about it, please.", another(1)).status == 200


def test_an_explanation_names_the_kind_and_the_place(words: Outside) -> None:
    """By the name that the site gave it; and never what stands there."""
    told = words.ask(
        "/explain", body_of(f"See {TERM} and K-1234/AB."), headers={"x-egress-path": "/v1/chat/completions"}
    )
    spans = {(each["label"], each["start"], each["end"]) for each in told.json["explained"]["spans"]}
    assert spans == {("site.projects", 4, 20), ("site.contract", 25, 34)}
    assert b"ightjar" not in told.body
    config = words.directory / "serving.toml"
    shown = subprocess.run(
        [sys.executable, "-m", "serving", "route", "explain", "--config", str(config), "--model", "demo"],
        input=f"See {TERM}.",
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])},
    ).stdout
    assert "site.projects" in shown
    assert "ightjar" not in shown


def test_a_word_that_is_new_in_the_policy_counts_from_the_next_request_on(vendor: Outside) -> None:
    """Also for a request that was found clean before; and one that is gone from it counts no more."""
    ask = f"Tell me about {TERM}."
    assert vendor.chat(ask, another(1)).status == 200
    before = vendor.front.bytes_in
    (worker,) = _workers(vendor)
    vendor.write_policy(policy(vendor, WORDS))
    assert vendor.chat(ask, another(1)).code == "stays_inside"
    assert vendor.chat(f"{ask} Now.", another(2)).code == "stays_inside"
    assert vendor.front.bytes_in == before
    assert _workers(vendor) == [worker], "it was told, and is the same"
    vendor.write_policy(policy(vendor))
    assert vendor.chat(ask, another(3)).status == 200
    used = {json.loads(line)["record"].get("sha256") for line in _log(vendor) if b'"kind":"policy"' in line}
    assert len(used) == 2, "both are on record"


def test_a_word_that_is_new_in_a_file_counts_from_the_next_request_on(vendor: Outside) -> None:
    """A file that is gone, or that others may read, lets nothing out; nor is what it said before believed."""
    file = vendor.directory / "words.txt"

    def write(text: str, mode: int = 0o600) -> None:
        new = file.with_suffix(".new")
        new.write_text(text)
        new.chmod(mode)
        new.replace(file)

    write("Nothing in particular\n")
    vendor.write_policy(policy(vendor, '[detection.terms]\nprojects = { file = "words.txt" }\n'))
    ask = f"Tell me about {TERM}."
    assert vendor.chat(ask, another(1)).status == 200
    before = vendor.front.bytes_in
    write(f"Nothing in particular\n{TERM}\n")
    assert vendor.chat(ask, another(2)).code == "stays_inside"
    assert vendor.chat(CLEAN, another(2)).status == 200
    after = vendor.front.bytes_in
    file.chmod(0o644)
    assert vendor.chat(CLEAN, another(3)).code == "stays_inside"
    file.unlink()
    assert vendor.chat(CLEAN, another(3)).code == "stays_inside"
    judged = vendor.ask("/explain", body_of(CLEAN), headers={"x-egress-path": "/v1/chat/completions"}).json["explained"]
    assert (judged["verdict"], judged["unknown_because"]) == ("unknown", ["policy:changed"])
    assert vendor.front.bytes_in == after > before
    write(f"{TERM}\n")
    assert vendor.chat(CLEAN, another(3)).status == 200
    assert "ightjar" not in (vendor.directory / "stderr").read_text()


@pytest.mark.parametrize(
    "tables",
    [
        "[detection.patterns]\ncontract = '(a)\\1'\n",
        "[detection.patterns]\ncontract = '(?=a)'\n",
        "[detection.terms]\nprojects = []\n",
        '[detection.terms]\nprojects = { file = "none.txt" }\n',
    ],
)
def test_a_policy_with_a_word_that_cannot_be_lets_nothing_out(vendor: Outside, tables: str) -> None:
    """While it runs; and it does not start with one. The reason names the field."""
    pytest.importorskip("re2")
    assert vendor.chat(CLEAN).status == 200
    before = vendor.front.bytes_in
    vendor.write_policy(policy(vendor, tables))
    assert vendor.chat(CLEAN).code == "stays_inside"
    assert vendor.front.bytes_in == before
    named = tables.split(maxsplit=1)[0].strip("[]") + "." + tables.split()[1]
    assert named in (vendor.directory / "stderr").read_text()
    vendor.stop()
    (vendor.directory / "stderr").unlink()
    with pytest.raises(AssertionError, match=named):
        vendor.start()
    assert vendor.process is not None
    assert vendor.process.wait(10) == 8


def test_nobody_sees_the_words_among_the_processes(words: Outside) -> None:
    """Command lines and environments are there to be read; after a change of the policy too."""
    words.write_policy(policy(words, WORDS))
    assert words.chat(CLEAN).status == 200
    assert words.process is not None
    found = [words.process.pid, *_children(words)]
    assert set(_workers(words)) < set(found)
    for pid in found:
        for name in ("cmdline", "environ"):
            raw = Path(f"/proc/{pid}/{name}").read_bytes().decode("utf-8", "replace").lower()
            assert name == "environ" or raw
            assert not [word for word in HELD if word.lower() in raw]


def test_a_worker_that_dies_comes_back_with_the_words(words: Outside) -> None:
    """And not without."""
    (worker,) = _workers(words)
    os.kill(worker, 9)
    for number in range(3):
        assert words.chat(f"Tell me about {TERM}: {number}.", another(number)).code == "stays_inside"
    assert words.front.bytes_in == 0
    assert words.chat(CLEAN, another(9)).status == 200
