"""Settings: the reference is true, layers go over one another in order, and every mistake is named."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from serving.errors import BadSettings
from serving.settings import Settings, load_settings, walk_fields
from serving.settings.reference import to_markdown, to_toml

REPOSITORY = Path(__file__).parents[3]
EXAMPLE = REPOSITORY / "configs/serving.toml"
NOWHERE = Path("/nonexistent/serving.toml")


def load(text: str, directory: Path, **more: object) -> Settings:
    """The settings that a file of this text gives."""
    path = directory / "serving.toml"
    path.write_text(text)
    return load_settings(path, **more)  # type: ignore[arg-type]


def test_the_example_file_equals_the_defaults() -> None:
    """Loading it changes nothing."""
    assert load_settings(EXAMPLE) == Settings()


def test_the_example_file_mentions_every_field() -> None:
    """With all comments of the form `# name = …` taken off, every field stands in its table."""
    lines = EXAMPLE.read_text().splitlines()
    opened = [line.removeprefix("# ") if line.startswith("# ") and '= "/path"' in line else line for line in lines]
    tree = tomllib.loads("\n".join(opened))
    for path, _ in walk_fields():
        table = tree
        for name in path[:-1]:
            table = table[name]
        assert path[-1] in table, path


def test_the_references_are_current() -> None:
    """The example file and the page are what `python -m serving.settings` writes."""
    assert EXAMPLE.read_text() == to_toml()
    assert (REPOSITORY / "docs/settings.md").read_text() == to_markdown()


def test_every_field_is_described_and_documented() -> None:
    """No setting without a sentence of its own, no table without one."""
    for path, field in walk_fields():
        assert field.description, path
        assert field.description.endswith((".", "408.", "503.")), path


def test_settings_are_frozen() -> None:
    """Nothing changes them after loading."""
    with pytest.raises(ValidationError):
        Settings().server.port = 1


def test_layers_go_over_one_another(tmp_path: Path) -> None:
    """Defaults, then the file, then the environment, then flags."""
    text = "[server]\nport = 1001\nhost = '127.0.0.2'\ndrain_s = 5\n"
    environment = {"PERIMETER_SERVER__PORT": "1002", "PERIMETER_SERVER__HOST": "127.0.0.3", "PATH": "/bin"}
    settings = load(text, tmp_path, environment=environment, flags={"server.port": 1003, "server.host": None})
    assert (settings.server.port, settings.server.host, settings.server.drain_s) == (1003, "127.0.0.3", 5)
    assert settings.limits == Settings().limits


def test_the_site_file_is_read_where_none_is_named(tmp_path: Path) -> None:
    """/etc/perimeter/serving.toml counts, unless --config or PERIMETER_CONFIG names another."""
    site, other = tmp_path / "site.toml", tmp_path / "other.toml"
    site.write_text("[server]\nport = 1\n")
    other.write_text("[server]\nport = 2\n")
    assert load_settings(site_file=site).server.port == 1
    assert load_settings(other, site_file=site).server.port == 2
    assert load_settings(environment={"PERIMETER_CONFIG": str(other)}, site_file=site).server.port == 2
    assert load_settings(site_file=NOWHERE) == Settings()


@pytest.mark.parametrize(
    ("variable", "text", "path", "value"),
    [
        ("PERIMETER_SERVER__PORT", "9", "server.port", 9),
        ("PERIMETER_SERVER__ALLOW_INSECURE_BIND", "true", "server.allow_insecure_bind", True),
        ("PERIMETER_ENGINES__LLAMACPP__HEADROOM", "0.25", "engines.llamacpp.headroom", 0.25),
        ("PERIMETER_LOG__FORMAT", "json", "log.format", "json"),
        ("PERIMETER_REGISTRY__SITE_FILE", "/a/b", "registry.site_file", Path("/a/b")),
    ],
)
def test_the_environment_has_the_fields_types(variable: str, text: str, path: str, value: object) -> None:
    """Text becomes what the field is."""
    found: object = load_settings(environment={variable: text}, site_file=NOWHERE)
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[server]\nport = 70000", ["`server.port` = `70000`", "65535", "TCP port"]),
        ("[server]\nport = '8000'", ['`server.port` = `"8000"`: must be a whole number', "≤ 65535"]),
        ("[server]\nport = true", ["`server.port` = `true`: must be a whole number"]),
        ("[server]\nprot = 1", ["`[server]` has no field `prot`", "did you mean `port`", "allowed: host, port"]),
        ("[sever]\nport = 1", ["no field `sever`", "did you mean `server`"]),
        ("server = 1", ["`server` must be a table", "write `[server]`", "host, port"]),
        ("[engines]\nllamacpp = [1]", ["`engines.llamacpp` must be a table"]),
        (
            "[engines.llamacpp]\nkv_layout = 'both'",
            ["`engines.llamacpp.kv_layout` = `\"both\"`: must be 'auto', 'streams' or 'unified'"],
        ),
        ("[engines.llamacpp]\nheadroom = nan", ["`engines.llamacpp.headroom`"]),
        ("[server]\nport = 70000\nhost = ''", ['`server.host` = `""`: must not be empty', "to correct: `server.port`"]),
        ("[paths]\nruntime_dir = ''", ['`paths.runtime_dir` = `""`: is empty']),
        ("[server\n", ["is not TOML"]),
    ],
)
def test_a_mistake_in_a_file_is_named(text: str, says: list[str], tmp_path: Path) -> None:
    """The error has the file, the table, the field, the value and what is allowed."""
    with pytest.raises(BadSettings) as caught:
        load(text, tmp_path)
    shown = caught.value.for_terminal()
    assert str(tmp_path / "serving.toml") in shown
    for part in says:
        assert part in shown
    assert "nput should" not in shown
    assert "alue error" not in shown
    assert "\nhint: " in shown


def test_a_table_given_as_a_value_is_named_under_flags_and_variables_too(tmp_path: Path) -> None:
    """What would go into it from elsewhere changes nothing."""
    for more in ({"flags": {"server.port": 1}}, {"environment": {"PERIMETER_SERVER__PORT": "1"}}):
        with pytest.raises(BadSettings, match="`server` must be a table"):
            load("server = 5", tmp_path, **more)


def test_a_mistake_elsewhere_is_named_by_its_source() -> None:
    """A variable or a flag at fault is called by its name."""
    with pytest.raises(BadSettings, match=r'environment `PERIMETER_SERVER__PORT`: `server\.port` = `"x"`: must'):
        load_settings(environment={"PERIMETER_SERVER__PORT": "x"}, site_file=NOWHERE)
    with pytest.raises(BadSettings, match=r"flag `--port`: `server\.port` = `-1`"):
        load_settings(flags={"server.port": -1}, site_file=NOWHERE)
    with pytest.raises(BadSettings, match="`PERIMETER_SERVER__PROT` names no setting") as caught:
        load_settings(environment={"PERIMETER_SERVER__PROT": "1"}, site_file=NOWHERE)
    assert "PERIMETER_SERVER__PORT" in (caught.value.hint or "")


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    """--config with a wrong path is not the defaults."""
    with pytest.raises(BadSettings, match="does not exist"):
        load_settings(tmp_path / "none.toml")
    with pytest.raises(BadSettings, match="cannot read"):
        load_settings(tmp_path)


def test_sections_are_closed() -> None:
    """Every table refuses what it does not know."""

    def check(section: type[BaseModel]) -> None:
        assert section.model_config["extra"] == "forbid"
        for field in section.model_fields.values():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                check(field.annotation)

    check(Settings)


def test_what_kubernetes_puts_into_a_pod_is_no_setting() -> None:
    """A Service named `perimeter`, or one whose name begins so; a real setting that is misspelt is still an error."""
    links = {
        "PERIMETER_SERVICE_HOST": "10.0.0.1",
        "PERIMETER_SERVICE_PORT": "8000",
        "PERIMETER_SERVICE_PORT_HTTP": "8000",
        "PERIMETER_PORT": "tcp://10.0.0.1:8000",
        "PERIMETER_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "PERIMETER_PORT_8000_TCP_PROTO": "tcp",
        "PERIMETER_PORT_8000_TCP_ADDR": "10.0.0.1",
        "PERIMETER_GATEWAY_SERVICE_HOST": "10.0.0.2",
    }
    assert load_settings(environment=links, site_file=Path("/nowhere")) == Settings()
    with pytest.raises(BadSettings, match="PERIMETER_SERVER__PROT"):
        load_settings(environment={"PERIMETER_SERVER__PROT": "1"}, site_file=Path("/nowhere"))
    for name, value in (("PERIMETER_SERVER_PORT", "8001"), ("PERIMETER_PORT", "8001")):
        with pytest.raises(BadSettings, match=f"`{name}` names no setting") as caught:
            load_settings(environment={name: value}, site_file=Path("/nowhere"))
        assert str(caught.value.hint).startswith("did you mean `PERIMETER_SERVER__PORT`")
    with pytest.raises(BadSettings, match="PERIMETER_SERVERPORT"):
        load_settings(environment={"PERIMETER_SERVERPORT": "1"}, site_file=Path("/nowhere"))


def test_what_counts_as_left_out_is_as_if_never_written(tmp_path: Path) -> None:
    """Tables of the file and of the environment; a flag still counts, and what is no table is told."""
    path = tmp_path / "serving.toml"
    path.write_text(
        '[server]\nport = 1\n[server.tls]\ncertificate = "c"\nkey = "k"\nclient_ca = "a"\n[access.oidc]\nissuer = "i"\n'
        f'[[access.certificates]]\nkey = "k"\nsha256 = "{"0" * 64}"\n'
    )
    given = {"PERIMETER_SERVER__TLS__CLIENT_CRL": "l", "PERIMETER_SERVER__PORT": "2"}
    without = {"PERIMETER_WITHOUT": "server.tls,access.oidc,access.certificates"}
    settings = load_settings(path, environment=given | without, flags={"server.tls.minimum": "1.3"})
    assert (settings.server.port, settings.server.tls.certificate, settings.server.tls.minimum) == (2, None, "1.3")
    assert (settings.access, settings.server.tls.client_crl) == (Settings().access, None)
    assert load_settings(environment=without, site_file=Path("/nowhere")) == Settings()
    for wrong in ("server.port", "nothing", "server.tls,nothing.at.all"):
        with pytest.raises(BadSettings, match="PERIMETER_WITHOUT"):
            load_settings(environment={"PERIMETER_WITHOUT": wrong}, site_file=Path("/nowhere"))
