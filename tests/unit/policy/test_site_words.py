"""A site's own words in the policy: what is taken, what it changes, and what is said of one that cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import BadSettings
from serving.policy.detect.fold import view_of
from serving.policy.detect.site import Site
from serving.policy.detect.vocabulary import SiteVocabulary, Terms
from serving.policy.load import load_policy, parse_policy
from serving.policy.model import Policy, canonical
from serving.policy.words import named_files

LETTERS = st.sampled_from("abijloxyzABIJLOXYZ0159äöüÄÖÜéабвгдежзийклмнопрстуфхцчшщъыьэюяёАБВЁЙЪЯ")


def parse(tables: str, directory: Path = Path()) -> Policy:
    return parse_policy(f"version = 1\n{tables}".encode(), "the policy `p.toml`", directory)


def kept(directory: Path, text: str, name: str = "words.txt", mode: int = 0o640) -> Path:
    path = directory / name
    path.write_text(text)
    path.chmod(mode)
    return path


def test_words_in_the_policy_are_part_of_its_digest() -> None:
    """A word more is another policy; the order of entries is none."""
    one = parse('[detection.terms]\na = ["nightjar"]\nb = ["мотыл*"]\n[detection.patterns]\nc = \'K-\\d{4}\'')
    same = parse('[detection.patterns]\nc = \'K-\\d{4}\'\n[detection.terms]\nb = ["мотыл*"]\na = ["nightjar"]')
    more = parse('[detection.terms]\na = ["nightjar", "x1"]\nb = ["мотыл*"]\n[detection.patterns]\nc = \'K-\\d{4}\'')
    assert one.digest == same.digest
    assert one.digest != more.digest
    assert [(each.name, each.kind, each.texts) for each in one.words] == [
        ("a", "terms", ("nightjar",)),
        ("b", "terms", ("мотыл*",)),
        ("c", "pattern", (r"K-\d{4}",)),
    ]
    assert one.detection != more.detection
    assert "nightjar" not in repr(one)


def test_words_in_a_file_count_by_its_bytes_and_are_shown_nowhere(tmp_path: Path) -> None:
    """So that a line of random letters keeps anybody from trying out what they may be."""
    file = kept(tmp_path, "# clients\n\n  Nightjar Holding \r\nмотыл*\n")
    policy = tmp_path / "policy.toml"
    policy.write_text('version = 1\n[detection.terms]\nclients = { file = "words.txt" }\n')
    before = load_policy(policy)
    assert before.words[0].texts == ("Nightjar Holding", "мотыл*")
    assert named_files(policy) == (file,)
    assert b"ightjar" not in canonical(before)
    assert "ightjar" not in repr(before)
    kept(tmp_path, file.read_text() + "# 5f0a\n")
    after = load_policy(policy)
    assert after.words[0].texts == before.words[0].texts
    assert after.digest != before.digest
    assert after.detection != before.detection


@pytest.mark.parametrize(
    "text", ["", "version = 1", "[detection]\nterms = 3", "[[detection]]", "not toml", "[detection.terms]\na = 1"]
)
def test_of_what_is_no_policy_no_files_are_known(tmp_path: Path, text: str) -> None:
    """And nothing is raised."""
    path = tmp_path / "policy.toml"
    path.write_text(text)
    assert named_files(path) == ()
    assert named_files(tmp_path / "none") == ()


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ("terms.a = 3", "detection.terms.a"),
        ("terms.a = []", "detection.terms.a"),
        ('terms.a = ["x", 3]', "detection.terms.a"),
        ('terms.a = ["fine", "…"]', "detection.terms.a`: term 2"),
        (f'terms.a = ["{"x" * 201}"]', "detection.terms.a`: term 1"),
        ('terms.A = ["x"]', "detection.terms.A"),
        (f'terms.{"a" * 49} = ["x"]', "detection.terms"),
        ('terms.a = { path = "x" }', "detection.terms.a"),
        ('terms.a = { file = "x", more = 1 }', "detection.terms.a"),
        ('terms.a = { file = "none.txt" }', "none.txt"),
        ('terms.a = { file = "/" }', "is no file"),
        ("patterns.a = 3", "detection.patterns.a"),
        ("patterns.a = ''", "detection.patterns.a"),
        ("terms = 3", "detection.terms"),
    ],
)
def test_what_cannot_be_a_word_is_refused_by_name(table: str, named: str) -> None:
    """The policy is refused as a whole, and nothing leaves by one."""
    with pytest.raises(BadSettings) as caught:
        parse(f"[detection]\n{table}")
    assert "p.toml" in caught.value.message
    assert named in caught.value.message


@pytest.mark.parametrize("regex", [r"(a)\1", "(?=a)b", "(?<!a)b", "(", "a{1001}", "(?P<x>a)(?P=x)"])
def test_a_pattern_that_re2_does_not_take_is_refused_with_its_field_and_itself(tmp_path: Path, regex: str) -> None:
    """Where it is kept in a file, without itself."""
    pytest.importorskip("re2")
    with pytest.raises(BadSettings, match="RE2") as caught:
        parse(f"[detection.patterns]\ncontract = '{regex}'")
    assert "detection.patterns.contract" in caught.value.message
    assert f"`{regex}`" in caught.value.message
    kept(tmp_path, f"secret{regex}\n")
    with pytest.raises(BadSettings, match="RE2") as caught:
        parse('[detection.patterns]\ncontract = { file = "words.txt" }', tmp_path)
    assert "detection.patterns.contract" in caught.value.message
    assert "secret" not in caught.value.for_terminal()
    assert regex not in caught.value.message


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602, 0o641])
def test_a_file_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    """What stands in it is confidential, and decides what may leave."""
    kept(tmp_path, "nightjar\n", mode=mode)
    with pytest.raises(BadSettings, match=r"words\.txt") as caught:
        parse('[detection.terms]\na = { file = "words.txt" }', tmp_path)
    assert "nightjar" not in caught.value.for_terminal()


def test_a_file_that_is_none_is_refused_at_once(tmp_path: Path) -> None:
    """A pipe that nobody writes to too; and one that is not UTF-8, empty, or has more than one pattern."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "raw").write_bytes(b"\xff\xfe")
    (tmp_path / "raw").chmod(0o600)
    kept(tmp_path, "# nothing\n", "empty")
    kept(tmp_path, "a\nb\n", "two")
    for table in ("terms.a", "patterns.a"):
        for name in ("pipe", "raw", "empty", *(["two"] if "patterns" in table else [])):
            with pytest.raises(BadSettings, match=f"detection.{table}"):
                parse(f'[detection]\n{table} = {{ file = "{name}" }}', tmp_path)


def test_too_many_are_refused(tmp_path: Path) -> None:
    """Each costs memory in every process that scans."""
    kept(tmp_path, "\n".join(f"term{number}" for number in range(10_001)))
    with pytest.raises(BadSettings, match="more than"):
        parse('[detection.terms]\na = { file = "words.txt" }', tmp_path)
    with pytest.raises(BadSettings, match="more than"):
        parse("[detection.patterns]\n" + "\n".join(f"p{number} = 'a'" for number in range(101)))


@given(st.text(LETTERS, min_size=1, max_size=12), st.text(LETTERS, min_size=1, max_size=12), st.booleans())
def test_what_is_a_term_is_found_where_it_stands(first: str, second: str, is_begun: bool) -> None:
    """In upper case as well, with whatever ending a `*` takes, and never half a word of it."""
    site = Site(SiteVocabulary(terms=(Terms("a", (f"{first} {second}{'*' if is_begun else ''}",)),)))
    upper = f"{first}\n{second}".upper()
    for text in (f"… {first}, {second}!", upper, f"… {first}-{second}{'ing' * is_begun} …"):
        assert [hit.label for hit in site.find_terms(view_of(text))] == ["site.a"], text
    assert not list(site.find_terms(view_of(f"{first}q {second}")))


@given(st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=6), st.text("ab ", max_size=30))
def test_words_that_are_begun_are_found_as_one_by_one(begun: list[str], text: str) -> None:
    """The index finds what looking at each word finds."""
    site = Site(SiteVocabulary(terms=(Terms("a", tuple(f"{each}*" for each in begun)),)))
    wanted = {word for word in text.split() if word.startswith(tuple(begun))}
    assert {view_of(text).folded[hit.start : hit.end] for hit in site.find_terms(view_of(text))} == wanted
