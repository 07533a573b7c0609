"""The real `huggingface_hub` against `serve mirror`: what it asks, what it gets, and which of its errors it raises."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.mirror.conftest import BIG, Shelf
from tests.support.harness import wait_until
from tests.support.mirror import COMMIT, DEMO, Mirror, client_environment, hub, mirror, sha256_of

NAMES = sorted(path.name for path in DEMO.iterdir())


def test_a_snapshot_is_what_was_brought_in(running: Mirror, shelf: Shelf, tmp_path: Path) -> None:
    """Every file, to the byte, under the repository's own name, and under the store's."""
    found = hub(running.url, tmp_path, "found = snapshot_download('perimeter/demo-bf16')")
    here = Path(str(found))
    assert sorted(path.name for path in here.iterdir()) == NAMES
    assert all(sha256_of(here / name) == sha256_of(DEMO / name) for name in NAMES)
    big = Path(str(hub(running.url, tmp_path, f"found = snapshot_download('acme/big', revision='{COMMIT}')")))
    assert big.name == COMMIT
    assert sha256_of(big / "model.safetensors") == sha256_of(shelf.weights)
    assert (big / "1_Pooling/config.json").read_text() == "{}"


def test_nothing_is_transferred_twice(running: Mirror, tmp_path: Path) -> None:
    """A file in the client's cache is asked after by its ETag alone."""
    code = "found = hf_hub_download('perimeter/demo-bf16', 'model.safetensors')"
    running.seen()
    first = hub(running.url, tmp_path, code)
    assert [line["file"] for line in running.seen()] == ["model.safetensors"]
    assert hub(running.url, tmp_path, code) == first
    assert running.seen() == []


def test_what_is_told_of_a_repository(running: Mirror, shelf: Shelf, tmp_path: Path) -> None:
    """Commit, files with sizes and digests, directories, paths, branches, the list of models."""
    found = hub(
        running.url,
        tmp_path,
        """
api = HfApi()
info = api.model_info('acme/big', files_metadata=True)
found = {
    'sha': info.sha, 'private': info.private, 'author': info.author, 'tags': info.tags,
    'siblings': {s.rfilename: [s.size, s.lfs.sha256] for s in info.siblings},
    'files': api.list_repo_files('acme/big'),
    'top': [e.path for e in api.list_repo_tree('acme/big')],
    'all': [e.path for e in api.list_repo_tree('acme/big', recursive=True, expand=True)],
    'inside': [e.path for e in api.list_repo_tree('acme/big', '1_Pooling')],
    'paths': [[e.path, type(e).__name__] for e in api.get_paths_info('acme/big', ['1_Pooling', 'config.json', 'no'])],
    'refs': [[b.name, b.target_commit] for b in api.list_repo_refs('acme/big').branches],
    'exists': [api.repo_exists('acme/big'), api.repo_exists('acme/no'), api.repo_exists('acme/secret')],
    'revisions': [api.revision_exists('acme/big', r) for r in ('main', info.sha, 'v2')],
    'file_exists': [api.file_exists('acme/big', name) for name in ('config.json', 'no.json', '1_Pooling/config.json')],
    'models': [m.id for m in api.list_models()],
    'acme': [m.id for m in api.list_models(author='acme')],
    'url': [get_hf_file_metadata(hf_hub_url('acme/big', 'config.json')).size],
    'parameters': api.get_safetensors_metadata('acme/big').parameter_count,
}
""",
    )
    assert isinstance(found, dict)
    names = ["1_Pooling/config.json", "README.md", "config.json", "model.safetensors"]
    weights = shelf.weights
    assert found.pop("siblings") == {
        name: [(weights.parent / name).stat().st_size, sha256_of(weights.parent / name)] for name in names
    }
    assert found == {
        "sha": COMMIT,
        "private": False,
        "author": "acme",
        "tags": ["safetensors"],
        "files": names,
        "top": ["1_Pooling", *names[1:]],
        "all": ["1_Pooling", *names],
        "inside": names[:1],
        "paths": [["1_Pooling", "RepoFolder"], ["config.json", "RepoFile"]],
        "refs": [["main", COMMIT]],
        "exists": [True, False, False],
        "revisions": [True, True, False],
        "file_exists": [True, False, True],
        "models": ["acme/big", "perimeter/big-noise", "perimeter/demo-bf16"],
        "acme": ["acme/big"],
        "url": [23],
        "parameters": {"U8": BIG},
    }


def test_the_client_raises_its_own_errors(running: Mirror, tmp_path: Path) -> None:
    """A repository, a revision and a file that are not there, and a model that is there and not for others."""
    found = hub(
        running.url,
        tmp_path,
        """
found = []
for repository, file, revision in (
    ('acme/no', 'config.json', None), ('acme/secret', 'config.json', None),
    ('perimeter/secret-bf16', 'config.json', None),
    ('acme/big', 'config.json', 'v2'), ('acme/big', 'no.json', None),
):
    try:
        hf_hub_download(repository, file, revision=revision)
    except Exception as error:
        found.append(type(error).__name__)
for ask in (lambda: HfApi().model_info('acme/big', revision='v2'), lambda: snapshot_download('acme/secret')):
    try:
        ask()
    except Exception as error:
        found.append(type(error).__name__)
""",
    )
    assert found == [
        *["RepositoryNotFoundError"] * 3,
        "RevisionNotFoundError",
        "RemoteEntryNotFoundError",
        "RevisionNotFoundError",
        "RepositoryNotFoundError",
    ]


SLOW = """
import sys
from tqdm import tqdm
class Held(tqdm):
    def update(self, n=1):
        print("SOME", flush=True)
        sys.stdin.readline()
        return super().update(n)
found = hf_hub_download('acme/big', 'model.safetensors', tqdm_class=Held)
"""
"""A download that goes on by a piece for each line it is given."""


def held_download(url: str, home: Path) -> subprocess.Popen[str]:
    environment = {**client_environment(url, home), "HF_HUB_DISABLE_PROGRESS_BARS": "0"}
    program = f"from huggingface_hub import *\n{SLOW}\nprint('FOUND' + found)"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=home, text=True, **pipes)


def test_a_download_goes_on_after_the_mirror_was_killed(shelf: Shelf, tmp_path: Path) -> None:
    """The mirror dies with a file half sent, comes back, and the client fetches what it lacks, and no more."""
    with mirror(shelf.store, tmp_path) as first:
        port = first.address[1]
        client = held_download(first.url, tmp_path)
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stdout.readline() == "SOME\n"
        first.stop(signal.SIGKILL)
    with mirror(shelf.store, tmp_path, port) as second:
        out, _ = client.communicate("\n" * 100, timeout=60)
        path = Path(out.rpartition("FOUND")[2].strip())
        assert sha256_of(path) == sha256_of(shelf.weights)
        (line,) = second.seen()
    assert line["status"] == 206
    assert line["start"] > 0
    assert line["sent_bytes"] == line["asked_bytes"] == path.stat().st_size - line["start"]


def test_a_client_that_is_killed_frees_its_place(running: Mirror, shelf: Shelf, tmp_path: Path) -> None:
    """The mirror notices, and the next client gets the file."""
    running.seen()
    client = held_download(running.url, tmp_path)
    assert client.stdout is not None
    assert client.stdin is not None
    assert client.stdout.readline() == "SOME\n"
    assert running.health["downloads"] == 1
    client.kill()
    client.wait()
    client.stdout.close()
    client.stdin.close()
    line = running.wait_for("download")
    assert line["outcome"] == "cut"
    assert running.health["downloads"] == 0
    path = hub(running.url, tmp_path, "found = hf_hub_download('acme/big', 'model.safetensors')")
    assert sha256_of(Path(str(path))) == sha256_of(shelf.weights)


def test_a_mirror_that_stops_lets_downloads_end(shelf: Shelf, tmp_path: Path) -> None:
    """SIGTERM takes nothing new and finishes what runs; the process ends with 0."""
    with mirror(shelf.store, tmp_path) as one:
        client = held_download(one.url, tmp_path)
        assert client.stdout is not None
        assert client.stdout.readline() == "SOME\n"
        one.process.send_signal(signal.SIGTERM)
        one.wait_for("drain", downloads=1)
        wait_until(lambda: is_refused(one), "nothing new is taken", 5)
        out, _ = client.communicate("\n" * 100, timeout=60)
        assert "FOUND" in out
        assert one.process.wait(20) == 0


def is_refused(running: Mirror) -> bool:
    """Whether nobody is let in: the socket closes in the turn of the loop after that in which draining is told."""
    try:
        running.ask("/health")
    except OSError:
        return True
    return False


def test_downloads_that_outlast_the_drain_are_cut(shelf: Shelf, tmp_path: Path) -> None:
    """A client that takes nothing keeps nobody from leaving."""
    with mirror(shelf.store, tmp_path, drain_s=0.2) as one:
        client = held_download(one.url, tmp_path)
        assert client.stdout is not None
        assert client.stdout.readline() == "SOME\n"
        one.process.send_signal(signal.SIGTERM)
        assert one.wait_for("download")["outcome"] == "drained"
        assert one.process.wait(20) == 0
        client.kill()
        client.communicate()
