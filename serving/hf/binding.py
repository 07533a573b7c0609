"""PyTorch and Transformers, as the engine needs them: model, tokenizer, sequences. No other file imports them.

Importing takes seconds, so it is done once the socket is bound; the environment says by then that there is no network.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
import transformers

from serving.errors import BadFile, EngineFailed, GpuMissing, NoFitError
from serving.generation.sampling import Row
from serving.hf.directory import Contents
from serving.openai.process import available_bytes

DtypeName = Literal["bfloat16", "float16", "float32"]
DTYPES: dict[DtypeName, Any] = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_DTYPE_ARGUMENT = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"


class Lost(RuntimeError):
    """The device failed in a way that nothing computed on it can be trusted after."""


def library_version() -> str:
    """What computes, for `/ready`."""
    return f"transformers {transformers.__version__}, torch {torch.__version__}"


class Tokenizer:
    """The model's tokenizer. Text and tokens may be turned into each other by two threads: each has its own copy."""

    def __init__(self, contents: Contents) -> None:
        try:
            loaded: Any = transformers.AutoTokenizer.from_pretrained(str(contents.path), **_LOCAL)
            backend = loaded.backend_tokenizer
        except Exception as error:  # whatever a hostile or newer file makes it raise
            raise BadFile(
                f"Transformers cannot read the tokenizer in `{contents.path}` ({type(error).__name__})",
                hint="fetch `tokenizer.json` and `tokenizer_config.json` again, or try a newer Transformers",
            ) from error
        backend.no_truncation()  # nothing is ever cut off
        backend.no_padding()
        self._parsing, self._plain, self._decoding = (copy.deepcopy(backend) for _ in range(3))
        self._parsing.encode_special_tokens = False
        self._plain.encode_special_tokens = True
        added = loaded.added_tokens_decoder
        self.control = {number: str(token) for number, token in added.items() if token.special}
        """Tokens that steer the model, such as `<|im_start|>`: never text of an answer."""
        pieces = backend.get_vocab(with_added_tokens=True)
        self.longest_piece = max(len(piece.encode("utf-8", "replace")) for piece in pieces)
        self.bos, self.eos = str(loaded.bos_token or ""), str(loaded.eos_token or "")
        self.eos_id: int | None = loaded.eos_token_id
        template = loaded.chat_template
        self.chat_template: str | None = template.get("default") if isinstance(template, dict) else template

    def tokenize(self, text: str, *, add_special: bool, is_plain: bool) -> list[int]:
        """Token ids. Where `is_plain`, a control token that is spelled in the text is only text."""
        tokenizer = self._plain if is_plain else self._parsing
        ids: list[int] = tokenizer.encode(text, add_special_tokens=add_special).ids
        return ids

    def text_of(self, tokens: Sequence[int]) -> str:
        """Text of tokens, control tokens spelled out."""
        text: str = self._decoding.decode(list(tokens), skip_special_tokens=False)
        return text


class Model:
    """A loaded checkpoint. Computed with by one thread at a time."""

    def __init__(
        self, contents: Contents, config: Any, *, dtype: DtypeName | None, device: Literal["cpu", "cuda"], threads: int
    ) -> None:
        torch.set_num_threads(threads)
        transformers.utils.logging.disable_progress_bar()
        if device == "cuda" and not torch.cuda.is_available():
            raise GpuMissing("PyTorch finds no GPU that it can use", hint="look at nvidia-smi, or use --device cpu")
        self.dtype: DtypeName = dtype or _own_dtype(config)
        self.device = device
        _refuse_missing_weights(contents, config)
        _refuse_too_large(contents, DTYPES[self.dtype].itemsize, device)
        self._model = _load(contents, config, DTYPES[self.dtype], device)
        self._forward: dict[str, Any] = {"use_cache": True}
        if "logits_to_keep" in inspect.signature(self._model.forward).parameters:
            self._forward["logits_to_keep"] = 1
        text = config.get_text_config()
        self.n_ctx_train: int | None = getattr(text, "max_position_embeddings", None)
        own = getattr(self._model, "generation_config", None)
        self.ends = _ids(getattr(own, "eos_token_id", None)) | _ids(getattr(text, "eos_token_id", None))
        self.n_vocab = self._first_row(contents)

    def _first_row(self, contents: Contents) -> int:
        """Length of a row of logits, which need not be the tokenizer's vocabulary. Raises BadFile, NoFitError."""
        try:
            return len(self.begin().compute([0]))
        except (BadFile, MemoryError):
            raise
        except Exception as error:  # the figures of a hostile configuration
            raise BadFile(
                f"the model in `{contents.path}` fails on its first token ({type(error).__name__})",
                hint="its configuration contradicts itself: fetch the directory again",
            ) from error

    def begin(self) -> Run:
        """An empty sequence."""
        return Run(self._model, self._forward, self.device)


class Run:
    """One sequence and its cache, as the model itself keeps it."""

    __slots__ = ("_cache", "_device", "_forward", "_model")

    def __init__(self, model: Any, forward: dict[str, Any], device: str) -> None:
        self._model = model
        self._forward = forward
        self._device = device
        self._cache: Any = None

    def compute(self, tokens: Sequence[int]) -> Row:
        """Logits after these tokens, which follow those computed before. Raises MemoryError, Lost."""
        try:
            with torch.inference_mode():
                ids = torch.tensor([list(tokens)], dtype=torch.long, device=self._device)
                output = self._model(input_ids=ids, past_key_values=self._cache, **self._forward)
                self._cache = getattr(output, "past_key_values", None)
                row: Row = output.logits[0, -1].to("cpu", torch.float32, copy=True).numpy()
        except torch.OutOfMemoryError as error:
            raise MemoryError(str(error)) from error
        except RuntimeError as error:
            if "not enough memory" in str(error):  # c10's allocator of main memory
                raise MemoryError(str(error)) from error
            if self._device == "cuda":  # after its first error a CUDA context gives no more answers
                raise Lost(str(error)) from error
            raise
        if self._cache is None:
            raise BadFile(
                "this architecture does not keep `past_key_values`, so it cannot be continued token by token",
                hint="try a newer Transformers",
            )
        return row


def read_config(contents: Contents) -> Any:
    """The configuration as Transformers reads it. Raises BadFile for one that it does not know."""
    path = contents.path / "config.json"
    try:
        config: Any = transformers.AutoConfig.from_pretrained(str(contents.path), **_LOCAL)
        is_known = type(config) in transformers.AutoModelForCausalLM._model_mapping  # noqa: SLF001 - no public name
    except Exception as error:  # whatever a hostile or newer file makes it raise
        raise BadFile(
            f"Transformers {transformers.__version__} does not accept `{path}` ({type(error).__name__})",
            hint="`model_type` may be of a newer version: upgrade transformers, or fetch the file again",
        ) from error
    if config.is_encoder_decoder or not is_known:
        raise BadFile(
            f"`{path}` describes a `{str(config.model_type)[:80]}`, which does not continue text",
            hint="serve a model for causal language modelling",
        )
    return config


def _own_dtype(config: Any) -> DtypeName:
    """The type that the weights were made for; float32 where the configuration does not say."""
    text = config.get_text_config()
    own = next((value for value in (getattr(text, name, None) for name in ("dtype", "torch_dtype")) if value), None)
    return next((name for name, dtype in DTYPES.items() if own in (name, dtype)), "float32")


def _refuse_missing_weights(contents: Contents, config: Any) -> None:
    """Raises BadFile for a model that is larger than its weights: the rest would be random."""
    try:
        with torch.device("meta"):
            empty: Any = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        wanted = sum(math.prod(parameter.shape) for parameter in empty.parameters())
    except Exception as error:  # the figures of a hostile configuration
        raise BadFile(
            f"Transformers cannot build the model that `{contents.path / 'config.json'}` describes"
            f" ({type(error).__name__})",
            hint="fetch the file again",
        ) from error
    if wanted > contents.elements:
        raise BadFile(
            f"the model that `{contents.path / 'config.json'}` describes has {wanted} parameters, and the weights"
            f" {contents.elements}",
            hint="configuration and weights are not of one model: fetch the directory again",
        )


def _refuse_too_large(contents: Contents, bytes_each: int, device: str) -> None:
    needed = contents.elements * bytes_each
    places = {"of main memory": available_bytes()}  # the way to a GPU leads through it
    if device == "cuda":
        places["on the GPU"] = torch.cuda.mem_get_info()[0]
    for where, left in places.items():
        if left is not None and needed > left:
            raise NoFitError(
                f"the weights of `{contents.path}` take {needed / 2**30:.1f} GiB, and {left / 2**30:.1f} GiB {where}"
                " are left",
                hint="use --dtype bfloat16 if it is not, or a smaller model; the cache comes on top",
            )


def _load(contents: Contents, config: Any, dtype: Any, device: str) -> Any:
    try:
        model, told = transformers.AutoModelForCausalLM.from_pretrained(
            str(contents.path),
            config=config,
            use_safetensors=True,
            attn_implementation="eager",  # the definition; the other ways are to agree with it
            output_loading_info=True,
            **{_DTYPE_ARGUMENT: dtype},
            **_LOCAL,
        )
        missing = sorted((*told["missing_keys"], *(str(key) for key in told["mismatched_keys"])))
        if not missing:
            return model.to(device).eval()
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise NoFitError(
            f"the weights of `{contents.path}` do not fit the memory that is left",
            hint="use --dtype bfloat16 if it is not, or a smaller model",
        ) from error
    except ImportError as error:
        raise EngineFailed(
            f"Transformers needs another package for `{contents.path}`: {str(error).strip().splitlines()[0][:200]}",
            hint="install it into this environment",
        ) from error
    except Exception as error:  # whatever a hostile file makes it raise
        raise BadFile(
            f"Transformers could not load the weights in `{contents.path}` ({type(error).__name__})",
            hint="configuration and weights are not of one model: fetch the directory again",
        ) from error
    raise BadFile(
        f"the weights in `{contents.path}` lack {len(missing)} tensors that the model has, such as `{missing[0][:80]}`",
        hint="configuration and weights are not of one model: fetch the directory again",
    )


def _ids(value: object) -> frozenset[int]:
    """One id, several, or none."""
    if isinstance(value, int):
        return frozenset({value})
    return frozenset(value) if isinstance(value, list | tuple) else frozenset()
