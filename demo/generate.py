"""Greedy text from the shipped files, by llama.cpp and by Transformers, for judging and tests."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import jinja2.sandbox
import llama_cpp
import numpy as np

Message = Mapping[str, Any]

CONTEXT: Final = 4096


@dataclass(frozen=True)
class Reply:
    """Greedy text, and the lowest probability that any of its tokens was chosen with."""

    text: str
    tokens: tuple[int, ...]
    least_probability: float


class Generator(Protocol):
    """What can be judged."""

    def reply(self, messages: Sequence[Message], tools: Sequence[object] = (), most: int = 120) -> Reply:
        """The greedy answer of at most `most` tokens."""


def render(template: str, messages: Sequence[Message], tools: Sequence[object] = ()) -> str:
    """The prompt that the chat template makes, ready for the answer."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        messages=messages, tools=list(tools) or None, add_generation_prompt=True
    )


def _quiet(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    """Drops what llama.cpp logs."""


_QUIET: Final = llama_cpp.llama_log_callback(_quiet)


class LlamaCpp:
    """One GGUF file in one llama.cpp context, a sequence at a time."""

    def __init__(self, path: Path, threads: int = 2) -> None:
        llama_cpp.llama_log_set(_QUIET, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        if not model:
            raise ValueError(f"llama.cpp cannot load {path}")
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = CONTEXT
        parameters.n_batch = 2048
        parameters.n_threads = parameters.n_threads_batch = threads
        self.model = model
        self.context = llama_cpp.llama_init_from_model(model, parameters)
        self.vocabulary = llama_cpp.llama_model_get_vocab(model)
        self.template = llama_cpp.llama_model_chat_template(model, None).decode()
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(self.vocabulary)

    def close(self) -> None:
        """Free the context and the weights."""
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)

    @property
    def parameters(self) -> int:
        """Number of weights in the file."""
        return int(llama_cpp.llama_model_n_params(self.model))

    def tokenize(self, text: str, parse_special: bool) -> list[int]:
        """Ids of `text`; control tokens in it count as such only with `parse_special`."""
        data = text.encode()
        room = len(data) + 8
        ids = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self.vocabulary, data, len(data), ids, room, True, parse_special)
        if count < 0:
            raise RuntimeError(f"tokenizing {len(data)} bytes needs {-count} tokens")
        return list(ids[:count])

    def piece(self, token: int) -> bytes:
        """Bytes of one token; none for a control token."""
        buffer = ctypes.create_string_buffer(64)
        count = llama_cpp.llama_token_to_piece(self.vocabulary, token, buffer, 64, 0, False)
        return buffer.raw[:count]

    def _decode(self, tokens: list[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        status = llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(array, len(tokens)))
        if status != 0:
            raise RuntimeError(f"llama_decode returned {status}")
        logits = llama_cpp.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(logits, shape=(self.n_vocab,))

    def complete(self, prompt: list[int], most: int) -> Reply:
        """Greedy continuation of token ids."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        for start in range(0, len(prompt), 2048):
            logits = self._decode(prompt[start : start + 2048])
        chosen: list[int] = []
        least = 1.0
        while len(chosen) < most:
            token = int(logits.argmax())
            least = min(least, float(1 / np.exp(logits - logits[token]).sum()))
            if llama_cpp.llama_vocab_is_eog(self.vocabulary, token):
                break
            chosen.append(token)
            logits = self._decode([token])
        text = b"".join(self.piece(token) for token in chosen).decode(errors="replace")
        return Reply(text, tuple(chosen), least)

    def reply(self, messages: Sequence[Message], tools: Sequence[object] = (), most: int = 120) -> Reply:
        """The greedy answer of at most `most` tokens."""
        prompt = render(self.template, messages, tools)
        return self.complete(self.tokenize(prompt, parse_special=True), most)


class HuggingFace:
    """The checkpoint in Transformers, in bfloat16 weights and float32 arithmetic by default."""

    def __init__(self, folder: Path, dtype: str = "float32") -> None:
        import torch
        import transformers

        self.torch = torch
        # Typed as Any: transformers' own annotations name narrower types than it accepts.
        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
        self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        self.model.eval()  # type: ignore[no-untyped-call]

    def reply(self, messages: Sequence[Message], tools: Sequence[object] = (), most: int = 120) -> Reply:
        """The greedy answer of at most `most` tokens."""
        prompt = self.tokenizer.apply_chat_template(
            list(messages), tools=list(tools) or None, add_generation_prompt=True, tokenize=False
        )
        encoded = self.tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        with self.torch.inference_mode():
            output = self.model.generate(
                ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=most,
                return_dict_in_generate=True,
                output_logits=True,
            )
        logits = self.torch.stack([step[0] for step in output.logits]).float()
        least = float(logits.softmax(-1).amax(-1).min())
        chosen = output.sequences[0, ids.shape[1] :].tolist()
        if chosen and chosen[-1] in self.model.generation_config.eos_token_id:
            chosen.pop()
        return Reply(self.tokenizer.decode(chosen), tuple(chosen), least)
