"""The command line: data on stdout, errors as one sentence and a hint on stderr, documented exit statuses."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serving import errors
from serving.cli import run
from serving.cli.address import check_address, who_listens
from serving.cli.listen import JsonListener
from serving.errors import AddressUnavailable, ServingError, StartError
from serving.planner import Plan
from tests.support.gguf_bytes import tiny

REPOSITORY = Path(__file__).parents[3]


def every_error(root: type[ServingError] = ServingError) -> list[type[ServingError]]:
    """The whole tree, the root included."""
    return [root, *(found for child in root.__subclasses__() for found in every_error(child))]


def documented() -> dict[str, tuple[int, str]]:
    """Error class → (exit status, code) as docs/exit-statuses.md has them."""
    page = (REPOSITORY / "docs/exit-statuses.md").read_text()
    return {
        name: (int(status), code)
        for status, code, name in re.findall(r"^\| (\d+) \| `(\w+)` \| (\w+) \|", page, re.MULTILINE)
    }


def test_the_page_of_exit_statuses_is_the_tree() -> None:
    """Every error that ends a command is on the page with its status and code, and nothing else is."""
    ending = [*every_error(StartError), errors.InternalError]
    assert documented() == {error.__name__: (error.exit_status, error.code) for error in ending}
    assert {error.exit_status for error in every_error(errors.RequestError)} == {2}
    assert {error.exit_status for error in every_error(errors.CapacityError)} == {75}


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.__name__)
def test_every_error_is_rendered(
    error: type[ServingError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is raised ends as `error:` and `hint:` with its status and no traceback; the API shape has the code."""

    def fail(_: list[str]) -> int:
        raise error("`x` went wrong", hint="mend it")

    monkeypatch.setattr("serving.cli.app.invoke", fail)
    assert run(["plan", "demo"]) == error.exit_status
    assert capsys.readouterr().err == "error: `x` went wrong\nhint: mend it\n"
    body = error("`x` went wrong", hint="mend it").for_client()["error"]
    assert isinstance(body, dict)
    assert body["code"] == error.code


def test_an_unexpected_error_is_ours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A bug is status 70, with a traceback only under --debug."""

    def fail(_: list[str]) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("serving.cli.app.invoke", fail)
    assert run(["hardware"]) == 70
    shown = capsys.readouterr().err
    assert "ZeroDivisionError" in shown
    assert "Traceback" not in shown
    assert run(["hardware", "--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_debug_changes_nothing_about_an_expected_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Its status, its sentence and its hint are all there is to it."""
    assert run(["plan", "/no/such.gguf", "--debug"]) == 4
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert "Traceback" not in shown


@pytest.mark.parametrize("command", [["models", "list"], ["plan", "demo"], ["hardware"]])
def test_a_full_disk_is_no_bug(command: list[str]) -> None:
    """What cannot be written is said once, with a status of its own, and the interpreter adds nothing."""
    argv = [sys.executable, "-m", "serving", *command]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(argv, cwd=REPOSITORY, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: cannot write to stdout: No space left on device\nhint: send it where there is room\n"


def test_a_reader_that_leaves_is_no_error() -> None:
    """`serve models list | head -1`."""
    line = f"{sys.executable} -m serving models list | head -1"
    done = subprocess.run(["sh", "-c", line], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("NAME")
    assert done.stderr == ""


def test_an_interrupted_command_says_that_it_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, for people or for programs."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("serving.cli.hardware.detect", interrupt)
    assert run(["hardware"]) == 130
    assert capsys.readouterr().err.strip() == "stopped"
    assert run(["hardware", "--json"]) == 130
    assert json.loads(capsys.readouterr().err)["event"] == "stopped"


def test_the_address_is_the_same_in_both_logs(caplog: pytest.LogCaptureFixture) -> None:
    """Clients are given the base URL, `/v1` included."""
    with caplog.at_level("INFO", "serving.cli"):
        JsonListener("m", chats=True).on_ready("http://127.0.0.1:1")
    (record,) = caplog.records
    assert vars(record)["facts"]["url"] == "http://127.0.0.1:1/v1"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ([], 2, "serve --model demo"),
        (["--modle", "demo"], 2, "--model"),
        (["demo"], 2, "`serve --model demo`"),
        (["hardware", "--directory", "/nonexistent"], 4, "/nonexistent"),
        (["hardware", "--directory", "/etc/passwd"], 2, "`/etc/passwd` is not a directory"),
        (["--model", "serving/models/demo/hf"], 6, "served by transformers, vllm"),
        (["plan", "serving/models/demo"], 5, "demo-f16.gguf"),
        (["plan", "serving/cli/"], 5, "a directory without weights"),
        (["plan", "/bin/sh"], 5, "it begins with `\\x7fELF`, not `GGUF`"),
        (["plan"], 2, "no model named"),
        (["plan", "demo", "--context", "0"], 2, "`--context 0`: must be at least 1"),
        (["plan", "demo", "--context", "abc"], 2, "`--context abc`: must be a whole number"),
        (["plan", "demo", "--concurrency", "1000"], 2, "`--concurrency 1000`: must be at most 256"),
        (["plan", "demo", "--kv-layout", "both"], 2, "`--kv-layout both`: 'both' is not one of 'streams', 'unified'"),
        (["--model", "demo", "plan", "demo"], 2, "serve --model demo"),
        (["--config", "/x", "plan", "demo"], 2, "put it after the command"),
        (["--context", "100", "plan", "demo"], 2, "`--context` stands before the command `plan`"),
        (["--port", "1", "models", "list"], 2, "`--port`"),
        (["--dummy-weights", "plan", "demo"], 2, "`--dummy-weights`"),
        (["models", "show", "dmo"], 3, "`demo`"),
        (["plan", "/no/such.gguf"], 4, "/no/such.gguf"),
        (["plan", "demo", "--context", "8192"], 6, "4096"),
        (["plan", "demo", "--config", "/no/such.toml"], 8, "/no/such.toml"),
    ],
)
def test_mistakes_end_with_their_status(
    arguments: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each mistake has its status, its sentence and a hint; stdout stays empty."""
    assert run(arguments) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert says in shown.err
    assert shown.err.startswith("error: ")
    assert "\nhint: " in shown.err


def test_json_before_a_command_is_refused_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """It is not passed over either, and the refusal is what was asked for: JSON."""
    assert run(["--json", "hardware"]) == 2
    assert json.loads(capsys.readouterr().err)["hint"].startswith("put it after the command")


def test_a_bad_file_ends_with_5(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A truncated file is told with its sizes."""
    path = tmp_path / "a.gguf"
    path.write_bytes(tiny().encode()[:-1])
    assert run(["plan", str(path)]) == 5
    assert "truncated" in capsys.readouterr().err


ABSENT = """
[models.big]
title = "Big"
context = 8192

[models.big.architecture]
family = "llama"
layers = 32
embedding = 4096
feed_forward = 14336
heads = 32
kv_heads = 8
key_length = 128
value_length = 128
vocabulary = 128256

[[models.big.variants]]
name = "q4_k_m"
format = "gguf"
backends = ["llamacpp"]
size_bytes = 4920734176
source = "a hub"
"""


def test_weights_that_are_not_here_are_said_to_be_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 4: what is missing, how large it is, the ways to get it here; and `plan` plans for it all the same."""
    site, config = tmp_path / "site.toml", tmp_path / "serving.toml"
    site.write_text(ABSENT)
    config.write_text(f"[registry]\nsite_file = '{site}'\n")
    assert run(["--model", "big", "--config", str(config)]) == 4
    shown = capsys.readouterr().err
    assert "the weights of `big` are not on this host: it would serve q4_k_m (4.6 GiB, 4920734176 bytes)" in shown
    import_it = "serve models import /media/big-q4_k_m.gguf --name big --variant q4_k_m"
    for way in ("once there is a hub:\n", "serve --model /media/big-q4_k_m.gguf", import_it, "--dummy-weights"):
        assert way in shown
    assert run(["plan", "big", "--config", str(config)]) == 0
    assert "not on this host (4.6 GiB)" in capsys.readouterr().out


def test_the_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Both are data, and fine."""
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("perimeter ")
    assert run(["--help"]) == 0
    assert "--model" in capsys.readouterr().out


def test_hardware_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The machine as one document, unknown facts as null."""
    assert run(["hardware", "--json"]) == 0
    machine = json.loads(capsys.readouterr().out)
    assert machine["cpu"]["usable"]
    assert run(["hardware"]) == 0
    assert "cores" in capsys.readouterr().out


def test_models_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    """The catalogue for people and for machines."""
    assert run(["models", "list"]) == 0
    assert "demo" in capsys.readouterr().out
    assert run(["models", "list", "--json"]) == 0
    assert any(model["name"] == "demo" for model in json.loads(capsys.readouterr().out))
    assert run(["models", "show", "demo"]) == 0
    assert "q8_0" in capsys.readouterr().out
    assert run(["models", "show", "demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["architecture"]["family"] == "llama"


def test_plan_for_people_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON is a plan that reads back; the text has the table."""
    assert run(["plan", "demo", "--json", "--concurrency", "2", "--context", "512"]) == 0
    plan = Plan.from_json(capsys.readouterr().out)
    assert (plan.concurrency, plan.context) == (2, 512)
    assert run(["plan", "demo"]) == 0
    assert "KV cache" in capsys.readouterr().out


def test_a_refused_plan_as_json_is_data_and_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal is printed as data and still ends with its status."""
    assert run(["plan", "demo", "--json", "--context", "8192"]) == 6
    shown = capsys.readouterr()
    assert json.loads(shown.out)["nearest"]
    assert json.loads(shown.err)["code"] == "no_fit"


def test_a_taken_port_is_found_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    """The error has the port, who holds it, and how to take another."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run(["--model", "demo", "--port", str(port)]) == 7
        shown = capsys.readouterr().err
        assert f"127.0.0.1:{port}" in shown
        assert f"--port {port + 1 if port < 65535 else 8000}" in shown
        holder = who_listens(port)
        assert holder is not None
        assert holder in shown
    assert who_listens(port) is None


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
def test_an_address_of_another_host_is_refused(host: str) -> None:
    """Only an address of this host can be listened on."""
    with pytest.raises(AddressUnavailable):
        check_address(host, 0)


def test_a_port_in_the_host_is_told_where_it_goes() -> None:
    """Both parts are given back as flags."""
    with pytest.raises(AddressUnavailable) as caught:
        check_address("127.0.0.1:18082", 8000)
    assert caught.value.hint == "the port goes in --port: `--host 127.0.0.1 --port 18082`"


def test_what_ends_the_start_is_said_before_the_plan_and_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An address for everybody without keys, and an engine that is not here."""
    monkeypatch.setenv("PERIMETER_PATHS__CACHE_DIR", str(tmp_path / "cache"))
    assert run(["--model", "demo", "--host", "0.0.0.0", "--port", "0"]) == 10
    assert capsys.readouterr().err.startswith("error: refused to listen on `0.0.0.0`")
    assert run(["--model", "demo", "--host", "0.0.0.0", "--port", "0", "--dummy-weights"]) == 10
    capsys.readouterr()
    assert run(["--model", "demo", "--port", "0", "--dummy-weights", "--backend", "vllm"]) == 6
    assert "vLLM cannot be started" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()


def test_a_required_gpu_is_required_of_a_plan_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What would refuse to start is not planned, here or on another machine."""
    config = tmp_path / "serving.toml"
    config.write_text("[hardware]\nrequire_gpu = true\n")
    (tmp_path / "none.json").write_text('{"cpu": {"model": "x"}, "memory": {"available_bytes": 64000000000}}')
    assert run(["plan", "demo", "--config", str(config), "--machine", str(tmp_path / "none.json")]) == 11
    assert "require_gpu" in capsys.readouterr().err
    assert run(["plan", "llama3-8b", "--config", str(config), "--machine", "1xH100"]) == 0


def test_commands_import_only_what_they_use() -> None:
    """Planning in the parent loads neither the engine's packages nor the gateway's."""
    script = (
        "import sys; from serving.cli import run; assert run(['plan', 'demo']) == 0; "
        "heavy = {'numpy', 'llama_cpp', 'fastapi', 'uvicorn', 'torch', 'aiohttp'} & set(sys.modules); "
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
