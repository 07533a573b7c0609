"""vLLM as a child process: its command line and environment, from plan, registry entry and settings. Pure.

vLLM is never imported. It is started as `python -m vllm.entrypoints.openai.api_server`, which its CUDA build and its
CPU build both have (the CPU build's `vllm` script looks for a distribution of another name), and isolated (`-I`), so
that neither its working directory nor its user's site-packages can put code into it.

What a client may send is the gateway's closed schema; what is switched off here is what could be reached past it.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from serving.engines.spec import SILENT, SYSTEM_PATH, USER, Capabilities, EngineSpec, Texts
from serving.errors import BadSettings
from serving.openai.limits import Serves
from serving.planner import VllmPlan
from serving.planner.vllm_memory import rank_for
from serving.registry import Model
from serving.settings import Settings

KEEP_ALIVE_S: Final = 15
SOCKET_BYTES: Final = 107
"""Longest path of a Unix socket (sys/un.h), which vLLM's processes use among themselves, too."""
NAME_BYTES: Final = 37
"""What they add to their directory: a slash and a UUID."""

NEUTRAL: Final = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Sampling where a request says nothing: OpenAI's, whatever the model's `generation_config.json` would like, so that
an answer does not depend on the engine. The file is still read: it names the model's other end-of-sequence tokens."""

STRUCTURED: Final = {"backend": "xgrammar", "disable_any_whitespace": True}
"""Of vLLM's backends the one that can hold tool calls to their schemas. White space without end is valid JSON, and what
small models fill an answer with."""

_OURS = """
model served-model-name uds host port load-format dtype max-model-len max-num-seqs max-num-batched-tokens
kv-cache-dtype kv-cache-memory-bytes gpu-memory-utilization tensor-parallel-size pipeline-parallel-size
data-parallel-size data-parallel-address enable-expert-parallel max-loras max-lora-rank max-cpu-loras
enable-prefix-caching enable-chunked-prefill enforce-eager max-logprobs logprobs-mode enable-auto-tool-choice
tool-call-parser reasoning-parser enable-lora lora-modules speculative-config runner convert
enable-prompt-tokens-details sse-keep-alive-interval generation-config override-generation-config
structured-outputs-config tool-strict-level pooler-config scheduling-policy
"""
OURS: Final = frozenset(_OURS.split())
"""Flags that plan, registry and settings stand for."""
_CLOSED = """
config trust-remote-code api-key root-path middleware allowed-origins allowed-methods allowed-headers
allow-credentials allowed-local-media-path allowed-media-domains trust-request-chat-template
trust-request-mm-kwargs enable-prompt-embeds enable-mm-embeds tool-parser-plugin reasoning-parser-plugin
io-processor-plugin logits-processors worker-cls worker-extension-cls scheduler-cls tool-server
enable-scale-out tokens-only enable-tokenizer-info-endpoint enable-log-requests enable-log-outputs max-log-len
log-error-stack disable-uvicorn-access-log disable-fastapi-docs enable-offline-docs hf-token hf-overrides
hf-config-path model-class-overrides revision code-revision tokenizer-revision tokenizer download-dir
otlp-traces-endpoint kv-transfer-config kv-events-config ec-transfer-config weight-transfer-config
enable-sleep-mode grpc grpc-port headless enable-elastic-ep data-parallel-rank data-parallel-start-rank
data-parallel-size-local data-parallel-rpc-port data-parallel-backend data-parallel-hybrid-lb
data-parallel-external-lb data-parallel-multi-port-external-lb api-server-count distributed-executor-backend
nnodes node-rank master-addr master-port logging-config log-config-file profiler-config default-mm-loras
chat-template
"""
CLOSED: Final = frozenset(_CLOSED.split())
"""Flags that would run somebody's code, open a way in or out, write prompts down, or trust a request."""
CLOSED_VARIABLES: Final = re.compile(
    r"PYTHON.*|VLLM_(SERVER_DEV_MODE|ALLOW_.*|PLUGINS|NO_USAGE_STATS|DO_NOT_TRACK|USAGE_.*|HOST_IP|API_KEY|"
    r"LOGGING_CONFIG_PATH|DEBUG_LOG_API_SERVER_RESPONSE|HTTP_.*|S3_.*|RPC_BASE_PATH|TRUST_.*)|DO_NOT_TRACK|HF_.*|"
    r"HUGGING_FACE_.*|TRANSFORMERS_OFFLINE|.*_PROXY|.*_proxy|GLOO_SOCKET_IFNAME|HOME|PATH|TMPDIR|"
    r"CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER"
)
"""Variables that an operator may not set for the same reasons, or that the plan stands for."""


def plan_engine(plan: VllmPlan, model: Model, settings: Settings, socket: Path, home: Path, cache: Path) -> EngineSpec:
    """How to start the engine that `plan` describes.

    `socket` is where it will listen, `home` a private directory for this run, `cache` one that outlives it and keeps
    what vLLM compiles. Raises BadSettings for an extra flag or variable that is not the operator's to set.
    """
    vllm = settings.engines.vllm
    sequences = -(-plan.concurrency // plan.data)  # what vLLM is told holds for each copy
    argv = [
        *(str(vllm.python or sys.executable), "-I", "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(plan.weights)),
        *("--served-model-name", plan.model),
        *("--uds", str(socket)),
        *("--load-format", "dummy" if plan.dummy else "safetensors"),
        *("--dtype", plan.dtype),
        *("--max-model-len", str(plan.context)),
        *("--max-num-seqs", str(sequences)),
        *("--max-num-batched-tokens", str(max(plan.step_tokens, sequences))),
        *("--kv-cache-dtype", "fp8" if plan.kv_dtype == "fp8" else "auto"),
        *_placement(plan, expert_parallel=vllm.expert_parallel),
        *(["--enforce-eager"] if vllm.eager or not plan.gpus else []),
        *(_generating(plan, model, settings) if plan.task == "generate" else _pooling(plan, settings)),
        "--disable-fastapi-docs",
        "--disable-uvicorn-access-log",
        "--no-enable-log-requests",
        *_extra(vllm.extra),
    ]
    return EngineSpec(
        model=plan.model,
        backend="vllm",
        argv=tuple(argv),
        env=tuple(_environment(plan, vllm.environment, home, cache).items()),
        socket=socket,
        concurrency=plan.concurrency,
        capabilities=Capabilities(
            readiness=False,
            cache_domain="body",
            priority=plan.task == "generate" and not settings.access.open,
            tasks=frozenset({plan.task}),
            texts=_texts(plan, model),
            keep_alive_comments=True,
            serves=serves(model),
        ),
        adapters=tuple(adapter.name for adapter in plan.adapters),
        dummy=plan.dummy,
        reads=tuple(_files(plan, settings)),
        writes=(cache,),
        has_gpu=bool(plan.gpus),
        has_ip=True,  # its processes meet at TCP ports of loopback, with one GPU as with eight
    )


def serves(model: Model) -> Serves:
    """What vLLM serves of OpenAI's optional parts for this model; calling tools takes a parser of their form."""
    return Serves(choices=True, logprobs=True, structured_output=True, tools=model.tool_parser is not None)


def _generating(plan: VllmPlan, model: Model, settings: Settings) -> Iterator[str]:
    """What only a model that writes has use for."""
    vllm = settings.engines.vllm
    yield from _switch("enable-prefix-caching", vllm.prefix_caching)
    yield from _switch("enable-chunked-prefill", vllm.chunked_prefill)
    yield from ("--max-logprobs", str(settings.limits.top_logprobs))
    yield from ("--generation-config", "auto", "--override-generation-config", _json(NEUTRAL))
    yield from ("--structured-outputs-config", _json(STRUCTURED))
    yield from _parsers(model)
    yield from _adapters(plan)
    if vllm.speculative:
        yield from ("--speculative-config", _json(vllm.speculative))
    yield "--enable-prompt-tokens-details"
    yield from ("--sse-keep-alive-interval", str(KEEP_ALIVE_S))
    yield from ("--fingerprint-mode", "none")
    if not settings.access.open:  # the gateway says whose turn it is (decision 0043)
        yield from ("--scheduling-policy", "priority")
    yield "--language-model-only"


def _pooling(plan: VllmPlan, settings: Settings) -> Iterator[str]:
    """How texts are pooled: said in so many words, since vLLM would take the first token where a file is missing."""
    yield from ("--runner", "pooling")
    if plan.task == "embed":
        how = {} if plan.pooling is None else {"seq_pooling_type": plan.pooling.upper()}
        yield from ("--pooler-config", _json({**how, "use_activation": True}))
    # an encoder sees a text whole: there is nothing to share and nothing to cut up
    yield from _switch("enable-prefix-caching", settings.engines.vllm.prefix_caching and not plan.is_encoder)
    yield from _switch("enable-chunked-prefill", not plan.is_encoder)
    if plan.is_encoder:
        # Transformers no longer writes this, and vLLM (0.32) fails without it
        yield from ("--hf-overrides", _json({"position_embedding_type": "absolute"}))
    else:
        yield from ("--convert", "embed")


def _texts(plan: VllmPlan, model: Model) -> Texts | None:
    if plan.task == "generate" or model.architecture is None:
        return None
    return Texts(plan.context, model.architecture.embedding, model.architecture.vocabulary)


def _placement(plan: VllmPlan, *, expert_parallel: bool) -> Iterator[str]:
    if not plan.gpus:
        yield from ("--kv-cache-memory-bytes", str(plan.kv_bytes))
        return
    yield from ("--gpu-memory-utilization", f"{plan.memory_utilisation:g}")
    if plan.tensor > 1:
        yield from ("--tensor-parallel-size", str(plan.tensor))
    if plan.pipeline > 1:
        yield from ("--pipeline-parallel-size", str(plan.pipeline))
    if plan.data > 1:
        # one front deals the requests out; it, the engines and what counts their queues meet on this host alone
        yield from ("--data-parallel-size", str(plan.data), "--data-parallel-address", "127.0.0.1")
    if expert_parallel:
        yield "--enable-expert-parallel"


def _parsers(model: Model) -> Iterator[str]:
    if model.tool_parser is not None:
        yield from ("--enable-auto-tool-choice", "--tool-call-parser", model.tool_parser)
        # a call that breaks its tool's schema helps nobody, whether it was forced or not
        yield from ("--tool-strict-level", "parameter")
    if model.reasoning_parser is not None:
        yield from ("--reasoning-parser", model.reasoning_parser)


def _adapters(plan: VllmPlan) -> Iterator[str]:
    """All adapters at hand at once, with room for the largest rank, as the plan's table counts them."""
    if plan.adapters:
        yield from ("--enable-lora", "--max-loras", str(len(plan.adapters)))
        yield from ("--max-lora-rank", str(rank_for(plan.adapters)), "--lora-modules")
        for adapter in plan.adapters:
            yield _json({"name": adapter.name, "path": str(adapter.path)})


def _files(plan: VllmPlan, settings: Settings) -> Iterator[Path]:
    """What it reads: weights, adapters, and what the operator's own flags and variables name by an absolute path."""
    if plan.weights is not None:
        yield plan.weights
    yield from (adapter.path for adapter in plan.adapters)
    vllm = settings.engines.vllm
    for value in (*vllm.speculative.values(), *vllm.extra.values(), *vllm.environment.values()):
        if isinstance(value, str):
            yield from (Path(each) for each in value.split(":") if each.startswith("/"))


def _switch(flag: str, is_on: bool) -> Iterator[str]:  # noqa: FBT001 - reads as the flag it writes
    yield f"--{flag}" if is_on else f"--no-{flag}"


def _extra(extra: Mapping[str, int | float | str | bool]) -> Iterator[str]:
    """The operator's own flags. Raises BadSettings for one that is not theirs to set."""
    for flag, value in extra.items():
        name = flag.strip("-").replace("_", "-").lower()
        bare = name.removeprefix("no-")
        where = f"engines.vllm.extra.{flag}"
        if not re.fullmatch(r"[a-z][a-z0-9.-]*", name):
            raise BadSettings(f"`{where}` is not the name of a flag", hint="write it as vLLM does, without dashes")
        # argparse takes any unambiguous beginning of a long flag for the whole
        ours = [known for known in OURS if known == bare or known.startswith(bare)]
        closed = [known for known in CLOSED if known == bare or known.startswith(bare) or bare.startswith("ssl")]
        if ours:
            hint = f"`--{ours[0]}` follows from the plan, the registry and the other settings"
            raise BadSettings(f"`{where}` is not an extra flag", hint=hint)
        if closed:
            hint = "it would run other code, open a way in or out, log prompts or trust what a request says"
            raise BadSettings(f"`{where}` is refused", hint=hint)
        if value is True:
            yield f"--{name}"
        elif value is False:
            yield f"--no-{bare}"
        else:
            # one word, so that a value cannot become a flag
            yield f"--{name}={value}"


def _environment(plan: VllmPlan, more: Mapping[str, str], home: Path, cache: Path) -> dict[str, str]:
    """The child's whole environment, built from empty. Raises BadSettings for a variable that is not to be set."""
    for name in more:
        if CLOSED_VARIABLES.fullmatch(name) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            hint = "it follows from the plan, or would open a way in or out"
            raise BadSettings(f"`engines.vllm.environment.{name}` is refused", hint=hint)
    is_short = len(bytes(home)) + NAME_BYTES <= SOCKET_BYTES
    devices = (
        {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(plan.gpus)}
        if plan.gpus
        else {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, plan.cores)) or "auto"}
    )
    return {
        "PATH": SYSTEM_PATH,
        "HOME": str(home),
        "LOGNAME": USER,
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        # vLLM's processes meet at sockets in the temporary directory; its own default is open to everybody
        **({"TMPDIR": str(home)} if is_short else {}),
        **devices,
        # nothing goes out: no reports, no hub, and no socket towards a public address to learn the own one
        **SILENT,
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "VLLM_PLUGINS": "",
        # what is compiled outlives the run, in a directory of this user's
        "VLLM_CACHE_ROOT": str(cache / "vllm"),
        "VLLM_CONFIG_ROOT": str(home),
        "XDG_CACHE_HOME": str(cache),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "FLASHINFER_WORKSPACE_BASE": str(cache),
        **more,
    }


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"))
