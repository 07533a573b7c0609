"""Names and commits under which a store's models are handed on; pure."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.mirror.repositories import COMMIT, Source, commit_of, offer_of, repositories_of, source_of
from serving.store.lock import lock_of, parse_lock
from serving.store.manifest import Manifest, StoredFile

A, B = "a" * 40, "b" * 40


def file(name: str, content: str = "1") -> StoredFile:
    return StoredFile(name, content * 64, 10)


def model(name: str = "m", variant: str = "q8", *files: StoredFile, **more: object) -> Manifest:
    return Manifest(name, variant, "gguf", files or (file("m.gguf"),), publishable=True, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("huggingface.co/org/name", Source("org/name", "")),
        ("https://huggingface.co/org/name", Source("org/name", "")),
        ("hub.local:8090/org/name@abc", Source("org/name", "")),
        ("localhost/org/name", Source("org/name", "")),
        ("huggingface.co/gpt2", Source("gpt2", "")),
        ("huggingface.co/org/name/m.gguf", Source("org/name", "")),
        ("huggingface.co/org/name/Q8_0/m.gguf@abc", Source("org/name", "Q8_0/")),
        ("huggingface.co/org/name/Q8_0", Source("org/name", "Q8_0/")),
        ("huggingface.co/org/name, converted and quantised with llama.cpp", None),
        ("org/name", None),
        ("huggingface.co/../name", None),
        ("huggingface.co/org/na--me", None),
        ("huggingface.co/org/name/../m.gguf", None),
        ("huggingface.co/org/name.git", None),
        ("huggingface.co", None),
        ("a disk", None),
        ("", None),
        (None, None),
    ],
)
def test_where_a_source_says_it_is_from(source: str | None, expected: Source | None) -> None:
    """A repository, with the directory of its files; any other text is none."""
    assert source_of(model(source=source)) == expected


def test_a_directory_that_files_are_named_with_is_not_said_twice() -> None:
    """A manifest may keep the repository's own names."""
    kept = model("m", "q8", file("Q8_0/m.gguf"), source="huggingface.co/org/name/Q8_0/m.gguf")
    assert source_of(kept) == Source("org/name", "")


def test_variants_of_one_commit_are_together() -> None:
    """As the hub has them, with what they share once."""
    one = model("m", "q8", file("README.md"), file("q8.gguf", "2"), source="huggingface.co/o/n", revision=A)
    two = model("m", "q4", file("README.md"), file("q4.gguf", "3"), source="huggingface.co/o/n/q4.gguf", revision=A)
    found = repositories_of([one, two])
    assert list(found) == ["o/n", "perimeter/m-q4", "perimeter/m-q8"]
    assert list(found["o/n"].snapshots) == [A]
    assert found["o/n"].main is not None
    assert list(found["o/n"].main.files) == ["README.md", "q4.gguf", "q8.gguf"]
    assert found["o/n"].find("main") is found["o/n"].find(A) is found["o/n"].find("refs/heads/main")
    assert found["o/n"].find(B) is None
    assert found["o/n"].find(A[:12]) is None


def test_commits_that_agree_are_together_in_main() -> None:
    """`main` has the files of both, and a commit of its own; a card that changed between them is left out."""
    one = model("m", "q8", file("README.md", "8"), file("q8.gguf", "2"), source="huggingface.co/o/n", revision=A)
    two = model("m", "q4", file("README.md", "9"), file("q4.gguf", "3"), source="huggingface.co/o/n", revision=B)
    repository = repositories_of([one, two])["o/n"]
    assert repository.main is not None
    assert list(repository.main.files) == ["q4.gguf", "q8.gguf"]
    assert COMMIT.fullmatch(repository.main.commit)
    assert repository.main.commit not in (A, B)
    assert repository.find(repository.main.commit) is repository.main
    assert list(repository.snapshots[A].files) == ["README.md", "q8.gguf"]


def test_commits_that_differ_are_not_mixed() -> None:
    """A configuration of one commit is never served beside the weights of another: `main` leads nowhere then."""
    one = model("m", "a", file("config.json", "1"), file("w.safetensors", "2"), source="huggingface.co/o/n", revision=A)
    two = model("m", "b", file("config.json", "3"), file("v.safetensors", "4"), source="huggingface.co/o/n", revision=B)
    repository = repositories_of([one, two])["o/n"]
    assert repository.main is None
    assert repository.find("main") is None
    assert set(repository.snapshots) == {A, B}


def test_a_commit_that_is_told_in_two_ways_is_not_served() -> None:
    """Somebody's files are not that commit's; each model is still there under the store's own name."""
    one = model("m", "a", file("w.gguf", "1"), source="huggingface.co/o/n", revision=A)
    two = model("m", "b", file("w.gguf", "2"), source="elsewhere.example/o/n", revision=A)
    assert list(repositories_of([one, two])) == ["perimeter/m-a", "perimeter/m-b"]


def test_names_that_are_two_models_or_none() -> None:
    """They get one of the digest, which is theirs alone."""
    one, two, odd = model("a-b", "c"), model("a", "b-c"), model("x", "y--z")
    names = list(repositories_of([one, two, odd]))
    expected = [f"perimeter/sha256-{each.digest[:16]}" for each in (one, two, odd)]
    assert names == sorted(expected)


def test_a_source_does_not_take_a_name_of_the_store() -> None:
    """What came from another mirror under its own name is here under ours."""
    assert list(repositories_of([model(source="mirror.local/perimeter/other")])) == ["perimeter/m-q8"]


def test_what_is_not_handed_on() -> None:
    """A model that nobody marked, one that is not in the lock, and one that the lock has otherwise, each with why."""
    good, quiet = model("good"), replace(model("quiet"), publishable=False)
    loose, other = model("loose"), model("other")
    offer = offer_of([good, quiet, loose, other], lock_of([good, quiet, replace(other, licence="MIT")]))
    assert offer.models == (good,)
    assert {held.model: held.reason for held in offer.held} == {
        "quiet (q8)": "not publishable",
        "loose (q8)": "not in the lock",
        "other (q8)": "not the one in the lock",
    }
    assert parse_lock(offer.lock, "it").entries == (good,)


names = st.text("ab.-_", min_size=1, max_size=4).map(lambda text: f"m{text}")
manifests = st.lists(
    st.builds(
        model,
        names,
        names,
        st.builds(file, st.sampled_from(["a.gguf", "b.gguf", "README.md", "d/a.gguf"]), st.sampled_from("123")),
        source=st.sampled_from([None, "huggingface.co/o/n", "huggingface.co/o/n/d/a.gguf", "nonsense"]),
        revision=st.sampled_from([None, A, B, "main"]),
    ),
    max_size=6,
    unique_by=lambda manifest: (manifest.model, manifest.variant),
)


@given(manifests)
def test_every_model_is_there_and_every_file_is_one_of_theirs(models: list[Manifest]) -> None:
    """Under the store's own name each model is whole; whatever any name leads to is a file that a model has."""
    found = repositories_of(models)
    digests = {file.sha256 for each in models for file in each.files}
    whole = {
        (snapshot.commit, tuple((file.name, file.sha256) for file in snapshot.files.values()))
        for name, repository in found.items()
        for snapshot in repository.snapshots.values()
        if name.startswith("perimeter/")
    }
    for each in models:
        assert (commit_of(each), tuple((file.name, file.sha256) for file in each.files)) in whole
    for repository in found.values():
        for commit, snapshot in repository.snapshots.items():
            assert commit == snapshot.commit
            assert COMMIT.fullmatch(commit)
            assert all(name == file.name and file.sha256 in digests for name, file in snapshot.files.items())
