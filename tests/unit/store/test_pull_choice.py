"""Which files of a repository make a model, and what the words for a source mean."""

import pytest

from serving.errors import BadFile, BadSettings, FileMissing, UsageError
from serving.registry import load_catalogue
from serving.store.pull import Offered, Source, choose_files, parse_source, read_token

LLAMA = [
    ".gitattributes",
    "LICENSE.txt",
    "README.md",
    "USE_POLICY.md",
    "config.json",
    "consolidated.safetensors",
    "generation_config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "onnx/model.onnx",
    "original/consolidated.00.pth",
    "original/params.json",
    "original/tokenizer.model",
    "pytorch_model.bin",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
]
GGUFS = ["README.md", "a-Q4_K_M.gguf", "a-Q8_0-00001-of-00002.gguf", "a-Q8_0-00002-of-00002.gguf", "config.json"]


def _offered(names):
    return [Offered(name, 1) for name in names]


def test_of_safetensors_the_model_and_its_words_are_taken():
    """Duplicates, other forms in directories and pickles are not; what cannot be taken is named."""
    choice = choose_files(Source("meta/llama"), _offered(LLAMA))
    assert [file.name for file in choice.files] == [
        "LICENSE.txt",
        "README.md",
        "USE_POLICY.md",
        "config.json",
        "generation_config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert [sentence.partition("`:")[0].strip("`") for sentence in choice.left_out] == [
        "onnx/model.onnx",
        "original/consolidated.00.pth",
        "pytorch_model.bin",
    ]


def test_of_gguf_the_named_file_with_its_parts_is_taken():
    """And what describes other forms stays away from it."""
    one = choose_files(Source("a/b", "a-Q4_K_M.gguf"), _offered(GGUFS))
    assert [file.name for file in one.files] == ["README.md", "a-Q4_K_M.gguf"]
    split = choose_files(Source("a/b", "a-Q8_0-00001-of-00002.gguf"), _offered(GGUFS))
    assert [file.name for file in split.files] == ["README.md", *GGUFS[2:4]]
    alone = choose_files(Source("a/b"), _offered(GGUFS[:2]))
    assert [file.name for file in alone.files] == GGUFS[:2]


@pytest.mark.parametrize(
    ("source", "names", "error", "match"),
    [
        (Source("a/b"), GGUFS, UsageError, "several GGUF"),
        (Source("a/b", "none.gguf"), GGUFS, FileMissing, "no file `none.gguf`"),
        (Source("a/b"), ["pytorch_model.bin", "config.json"], FileMissing, "neither safetensors nor GGUF"),
        (Source("a/b", "x.bin"), ["x.bin"], BadFile, "pickle"),
    ],
)
def test_what_cannot_be_chosen_is_said(source, names, error, match):
    """With what there is."""
    with pytest.raises(error, match=match):
        choose_files(source, _offered(names))


def test_sentence_transformers_modules_are_taken():
    """Their pooling stands in a directory."""
    names = ["1_Pooling/config.json", "config.json", "model.safetensors", "modules.json", "openvino/config.json"]
    choice = choose_files(Source("a/b"), _offered(names))
    assert [file.name for file in choice.files] == names[:4]


def test_every_source_of_the_catalogue_is_one_or_says_that_it_is_made():
    """Those that have to be converted are words, and refused with what to do."""
    for model in load_catalogue().models:
        for variant in model.variants:
            if variant.source is None:
                continue
            if ", converted" in variant.source:
                with pytest.raises(UsageError, match="no repository"):
                    parse_source(variant.source)
            else:
                told = parse_source(variant.source)
                assert variant.source.startswith(str(told))
                assert (told.file is None) == ("/".join(variant.source.split("/")[3:]) == "")


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("org/name", Source("org/name")),
        ("https://huggingface.co/org/name", Source("org/name")),
        ("org/name@v1.0", Source("org/name", None, "v1.0")),
        ("org/name/a/b.gguf@abc", Source("org/name", "a/b.gguf", "abc")),
        ("hub.example.org/org/name", Source("org/name", host="hub.example.org")),
    ],
)
def test_a_source_is_read(text, source):
    """Host, repository, file, revision."""
    assert parse_source(text) == source


@pytest.mark.parametrize("text", ["", "name", "a b/c", "/a/b"])
def test_what_is_no_source_is_said(text):
    """With the form of one."""
    with pytest.raises(UsageError):
        parse_source(text)


def test_a_token_is_read_from_a_file_that_is_its_owners_alone(tmp_path):
    """Never from one that others may read, and never an empty one."""
    path = tmp_path / "token"
    path.write_text("hf_secret\n")
    path.chmod(0o644)
    with pytest.raises(BadSettings, match="read by others"):
        read_token(path)
    path.chmod(0o600)
    assert read_token(path) == "hf_secret"
    assert read_token(None) is None
    path.write_text("\n")
    with pytest.raises(BadSettings, match="no token"):
        read_token(path)
    with pytest.raises(BadSettings, match="cannot be read"):
        read_token(tmp_path / "none")
