"""The catalogue: what ships is sound, a site's file goes over it, and what is wrong is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from serving.errors import BadFile, BadSettings, FileMissing, UnknownModel
from serving.planner import Plan, Wishes, plan
from serving.registry import load_catalogue, local, model_from_file
from serving.registry.schema import ArchitectureTable, ModelTable, VariantTable
from tests.support.gguf_bytes import Gguf, strings, tiny, u32
from tests.support.machines import GIB, machine

SITE = """
[models.own]
title = "Our own"
context = 1024
licence = "Apache-2.0"

[[models.own.variants]]
name = "f32"
format = "gguf"
backends = ["llamacpp"]
path = "weights/own.gguf"
"""


def site(directory: Path, text: str = SITE) -> Path:
    """A site file, with its weights beside it."""
    (directory / "weights").mkdir(exist_ok=True)
    tiny().write(directory / "weights/own.gguf")
    path = directory / "site.toml"
    path.write_text(text)
    return path


def test_what_ships_loads_and_has_its_files() -> None:
    """`demo` is there with all of its variants, its shape read from its file."""
    model = load_catalogue().find("demo")
    assert [variant.name for variant in model.variants] == ["q8_0", "f16", "bf16"]
    assert all(variant.path and variant.path.exists() and variant.size_bytes for variant in model.variants)
    assert model.architecture is not None
    assert model.architecture.family == "llama"
    assert len(model.architecture.kv_heads) == model.architecture.layers


def test_a_site_file_adds_to_the_catalogue(tmp_path: Path) -> None:
    """Its paths start at its own directory; ours stays."""
    catalogue = load_catalogue(site(tmp_path))
    assert {model.name for model in catalogue.models} >= {"demo", "own"}
    own = catalogue.find("own")
    assert own.variants[0].path == tmp_path / "weights/own.gguf"
    assert own.origin == str(tmp_path / "site.toml")
    assert own.architecture is not None
    assert (own.architecture.layers, own.architecture.kv_heads, own.architecture.key_length) == (2, (2, 2), 16)
    assert own.architecture.vocabulary == 2000


def test_a_site_file_replaces_by_name(tmp_path: Path) -> None:
    """An entry called `demo` is the site's."""
    path = site(tmp_path, SITE.replace("models.own", "models.demo"))
    assert load_catalogue(path).find("demo").title == "Our own"


CHANGE = """
[models."llama3.2-1b"]
note = "Approved in May."

[[models."llama3.2-1b".variants]]
name = "q4_k_m"
path = "weights/a.gguf"

[[models."llama3.2-1b".variants]]
name = "ours"
format = "gguf"
backends = ["llamacpp"]
path = "/elsewhere/b.gguf"
"""


def test_an_entry_without_title_and_context_changes_ours(tmp_path: Path) -> None:
    """Field over field, and variants by their names: the others stay, new ones come last."""
    ours = {model.name: model for model in load_catalogue().models}["llama3.2-1b"]
    changed = {model.name: model for model in load_catalogue(site(tmp_path, CHANGE)).models}["llama3.2-1b"]
    assert (changed.title, changed.context, changed.architecture) == (ours.title, ours.context, ours.architecture)
    assert changed.note == "Approved in May."
    assert changed.origin == str(tmp_path / "site.toml")
    assert [variant.name for variant in changed.variants] == [*(each.name for each in ours.variants), "ours"]
    by_name = {variant.name: variant for variant in changed.variants}
    assert by_name["q4_k_m"].path == tmp_path / "weights/a.gguf"
    assert by_name["q4_k_m"].source == next(each.source for each in ours.variants if each.name == "q4_k_m")
    assert by_name["q8_0"] == next(each for each in ours.variants if each.name == "q8_0")
    assert by_name["ours"].path == Path("/elsewhere/b.gguf")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            '[[models."llama3.2-1b".variants]]\nname = "new"',
            "llama3.2-1b.variants.new` lacks the field `format`",
        ),
        ('[models."llama3.2-1b"]\nvariants = 5', "`models.llama3.2-1b.variants` = `5`: must be a list"),
        ('[models]\n"llama3.2-1b" = 5', "`models.llama3.2-1b` = `5`: must be a table"),
        ('[[models.demo.variants]]\nname = "f16"\npath = 5', "`models.demo.variants.f16.path` = `5`: must be text"),
        ("models = 5", "`models` = `5`: must be a table"),
        ('[models.nobody]\nnote = "x"', "`models.nobody` lacks the field `title`"),
    ],
)
def test_a_bad_change_is_named(text: str, says: str, tmp_path: Path) -> None:
    """As a bad entry is."""
    with pytest.raises(BadSettings, match=re.escape(says)):
        load_catalogue(site(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "says", "hints"),
    [
        (SITE.replace("own.gguf", "gone.gguf"), "weights/gone.gguf` (f32) does not exist", "correct its `path`"),
        (SITE.replace('path = "weights/own.gguf"', ""), "no variant has a `path`", "give a GGUF variant its `path`"),
        (SITE.replace('"gguf"', '"safetensors"').replace("own.gguf", "none"), "weights/none` (f32) does not", "`path`"),
        (SITE.replace('"gguf"', '"safetensors"').replace("/own.gguf", ""), "weights` is none", "`architecture` table"),
    ],
)
def test_an_entry_that_says_nothing_of_its_shape_is_told_what_is_missing(
    text: str, says: str, hints: str, tmp_path: Path
) -> None:
    """The path it gives, that nothing is there, and the file to correct; it can still be looked at."""
    path = site(tmp_path, text)
    with pytest.raises(FileMissing) as caught:
        load_catalogue(path).find("own")
    assert says in caught.value.message
    assert hints in str(caught.value.hint)
    assert str(path) in str(caught.value.hint)
    assert load_catalogue(path).look_up("own").architecture is None


def test_a_file_for_a_shorter_context_has_the_last_word(tmp_path: Path) -> None:
    """The entry's is not promised, and the plan says why."""
    model = load_catalogue(site(tmp_path, SITE.replace("1024", "4096"))).find("own")
    assert model.context == 1024
    (warning,) = model.warnings
    assert "context 1024, not its entry's 4096" in warning
    planned = plan(machine(4 * GIB), model, Wishes())
    assert isinstance(planned, Plan)
    assert planned.context == 1024
    assert warning in planned.reasons


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ("context = 1024", "contxt = 1024", ["`models.own`", "`contxt`", "did you mean `context`"]),
        ("context = 1024", "context = 0", ["`models.own.context` = `0`", "must be at least 1"]),
        ("context = 1024", 'context = "1024"', ['`models.own.context` = `"1024"`: must be a whole number']),
        ('title = "Our own"\n', "", ["`models.own`", "lacks the field `title`"]),
        (
            'format = "gguf"',
            'format = "ggml"',
            ["`models.own.variants.f32.format` = `\"ggml\"`: must be 'gguf' or 'safetensors'"],
        ),
        ('["llamacpp"]', '["llama"]', ['`models.own.variants.f32.backends.0` = `"llama"`', "'llamacpp'"]),
        ('path = "weights', 'pth = "weights', ["`models.own.variants.f32`", "`pth`", "did you mean `path`"]),
        ("[models.own]", "[models.own", ["cannot read"]),
        ("[models.own]", '[models."a/b"]', ["must match"]),
        ("licence =", 'x = 1\n[modles]\na = "', ["cannot read"]),
    ],
)
def test_a_bad_entry_is_named(before: str, after: str, says: list[str], tmp_path: Path) -> None:
    """The error has the file, the table, the field, the value and what is allowed."""
    path = site(tmp_path, SITE.replace(before, after))
    with pytest.raises(BadSettings) as caught:
        load_catalogue(path)
    text = caught.value.for_terminal()
    assert str(path) in text
    for part in says:
        assert part in text
    assert "nput should" not in text
    assert "alue error" not in text
    assert "\nhint: " in text


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "[models]\n"])
def test_a_site_file_with_nothing_in_it_adds_nothing(text: str, tmp_path: Path) -> None:
    """A file that is being written, or all of comments, is no mistake."""
    path = tmp_path / "site.toml"
    path.write_text(text)
    assert load_catalogue(path).models == load_catalogue().models


def test_further_mistakes_are_named_up_to_a_few(tmp_path: Path) -> None:
    """So that a file is mended at one go."""
    path = site(tmp_path, SITE.replace('title = "Our own"', "title = 5").replace("1024", "0").replace("licence", "lic"))
    with pytest.raises(BadSettings) as caught:
        load_catalogue(path)
    assert "also to correct: `models.own.title`, `models.own.context`" in str(caught.value.hint)


def test_the_page_on_catalogues_is_true(tmp_path: Path) -> None:
    """Its examples load, one after the other and together, and it names every field there is."""
    page = (Path(__file__).parents[3] / "docs/site-catalogue.md").read_text()
    settings, *examples = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert "site_file" in settings
    loaded = load_catalogue(site(tmp_path, "\n".join(examples)))
    by_name = {variant.name: variant for variant in {m.name: m for m in loaded.models}["llama3-8b"].variants}
    assert by_name["q8_0"].path == Path("/models/Meta-Llama-3-8B-Instruct-Q8_0.gguf")
    assert loaded.look_up("our-model").architecture is not None
    for table in (ModelTable, VariantTable, ArchitectureTable):
        assert [name for name in table.model_fields if f"`{name}`" not in page] == []


def test_a_variant_twice_is_refused(tmp_path: Path) -> None:
    """Names of variants tell them apart."""
    path = site(tmp_path, SITE + SITE[SITE.index("[[models") :])
    with pytest.raises(BadSettings, match="given twice"):
        load_catalogue(path)


def test_a_missing_site_file_is_named(tmp_path: Path) -> None:
    """The setting that names it is in the hint."""
    with pytest.raises(BadSettings, match=r"none\.toml") as caught:
        load_catalogue(tmp_path / "none.toml")
    assert "registry.site_file" in (caught.value.hint or "")


def test_an_unknown_name_brings_the_nearest() -> None:
    """A slip of the hand finds its way back."""
    for slip in ("dmo", "Demo", "demo1"):
        with pytest.raises(UnknownModel) as caught:
            load_catalogue().find(slip)
        assert "`demo`" in (caught.value.hint or "")
    with pytest.raises(UnknownModel) as caught:
        load_catalogue().find("zzzzzz")
    assert "did you mean" not in (caught.value.hint or "")


def test_a_path_works_in_place_of_a_name(tmp_path: Path) -> None:
    """A GGUF file is a model of one variant, called after the file."""
    path = tiny().write(tmp_path / "My model (v2).gguf")
    model = load_catalogue().find(str(path))
    assert model.name == "My-model-v2"
    assert model.context == 1024
    assert [variant.name for variant in model.variants] == ["f32"]
    with pytest.raises(FileMissing):
        load_catalogue().find(str(tmp_path / "none.gguf"))


@pytest.mark.parametrize(("told", "name"), [(None, "f32"), (0, "f32"), (15, "f32"), (999, "f32")])
def test_a_file_type_that_contradicts_the_tensors_is_not_believed(told: int | None, name: str, tmp_path: Path) -> None:
    """What most of the weights are is what they are called."""
    file = tiny()
    if told is not None:
        file.metadata.append(("general.file_type", u32(told)))
    assert model_from_file(file.write(tmp_path / "a.gguf")).variants[0].name == name


@pytest.mark.parametrize(("told", "name"), [(15, "q4_k_m"), (14, "q4_k_s"), (None, "q4_k"), (7, "q4_k")])
def test_a_mix_is_called_as_the_catalogue_calls_it(
    told: int | None, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By path as by name: `q4_k_m`, where the header says so."""
    monkeypatch.setattr(local, "main_type", lambda _: "q4_k")
    file = tiny()
    if told is not None:
        file.metadata.append(("general.file_type", u32(told)))
    assert model_from_file(file.write(tmp_path / "a.gguf")).variants[0].name == name


def _without(key: str) -> Gguf:
    file = tiny()
    file.metadata = [(name, value) for name, value in file.metadata if name != key]
    return file


@pytest.mark.parametrize(
    "key", ["general.architecture", "llama.block_count", "llama.embedding_length", "llama.attention.head_count"]
)
def test_a_file_without_a_decoder_is_refused(key: str, tmp_path: Path) -> None:
    """A file that lacks what a decoder must have says which fact is absent."""
    path = _without(key).write(tmp_path / "a.gguf")
    with pytest.raises(BadFile, match=key.rpartition(".")[2]):
        model_from_file(path)


@pytest.mark.parametrize("key", ["tokenizer.ggml.model", "tokenizer.ggml.tokens"])
def test_a_file_without_a_tokenizer_is_refused(key: str, tmp_path: Path) -> None:
    """llama.cpp would end the process on it."""
    path = _without(key).write(tmp_path / "a.gguf")
    with pytest.raises(BadFile, match="no tokenizer"):
        load_catalogue().find(str(path))


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    """As many tokens as embeddings, or it is no model."""
    file = _without("tokenizer.ggml.tokens")
    file.metadata.append(("tokenizer.ggml.tokens", strings(["a", "b"])))
    with pytest.raises(BadFile, match="2 tokens and embeddings for 2000"):
        load_catalogue().find(str(file.write(tmp_path / "a.gguf")))


def test_a_vocabulary_alone_is_refused(tmp_path: Path) -> None:
    """A file with a tokenizer and no weights is not a model."""
    file = tiny()
    file.tensors, file.data = [], b""
    with pytest.raises(BadFile, match="no token embeddings"):
        load_catalogue().find(str(file.write(tmp_path / "a.gguf")))


def test_absurd_facts_are_refused(tmp_path: Path) -> None:
    """Four billion layers are not believed."""
    file = _without("llama.block_count")
    file.metadata.append(("llama.block_count", u32(0xFFFFFFFF)))
    with pytest.raises(BadFile, match="block_count"):
        model_from_file(file.write(tmp_path / "a.gguf"))
