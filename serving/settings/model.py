"""All settings, each with its default, its bounds and what it is for.

The descriptions are the reference: `configs/serving.toml` and `docs/settings.md` are written from them
(`python -m serving.settings`), and a test proves that neither has gone stale.
"""

from __future__ import annotations

import hashlib
import json
from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from serving.settings.callers import ClientCertificate, Oidc
from serving.settings.outside import Egress
from serving.settings.section import Section, SettingPath


class Tls(Section):
    """The certificate that is served with (docs/tls.md). Read again when a file changes, and on SIGHUP."""

    certificate: SettingPath | None = Field(
        default=None, description="PEM file: the server's certificate, then those between it and the root."
    )
    key: SettingPath | None = Field(default=None, description="PEM file with its private key, not encrypted, mode 600.")
    client_ca: SettingPath | None = Field(
        default=None, description="PEM file of authorities; a client must show a certificate that one of them signed."
    )
    client_crl: SettingPath | None = Field(
        default=None,
        description="PEM file of their lists of withdrawn certificates. A list that is out of date lets nobody in.",
    )
    minimum: Literal["1.2", "1.3"] = Field(default="1.2", description="Oldest version of TLS that is spoken.")

    @model_validator(mode="after")
    def _whole(self) -> Tls:
        if (self.certificate is None) != (self.key is None):
            kind, message = "half_tls", "`certificate` and `key` go together"
            raise PydanticCustomError(kind, message)
        if (self.client_ca is not None and self.certificate is None) or (self.client_crl and self.client_ca is None):
            kind, message = "half_tls", "`client_ca` needs `certificate` and `key`, and `client_crl` needs `client_ca`"
            raise PydanticCustomError(kind, message)
        return self


class Server(Section):
    """Where the API listens, and how it stops."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="TCP port; 0 takes a free one and prints it.")
    allow_insecure_bind: bool = Field(
        default=False,
        description="Listen beyond loopback without TLS: where the network itself is trusted, or TLS ends in front.",
    )
    hosts: list[str] = Field(
        default=[],
        description="Names by which clients call this server: a request for another name is refused (421). Addresses "
        "always may. Without any, names without a dot on loopback, and every name elsewhere.",
    )
    drain_s: float = Field(
        default=30.0, ge=0, le=3600, description="Seconds that running requests get to finish after SIGTERM or Ctrl-C."
    )
    connections: int = Field(
        default=1024,
        ge=1,
        le=1_000_000,
        description="Open client connections; more get 503 `overloaded` and are closed.",
    )
    share_prefixes: bool = Field(
        default=True,
        description="Share computed prompt prefixes between requests. Who may call can then tell by timing and by "
        "`cached_tokens` whether a prompt begins as another did; false keeps every request to itself.",
    )
    unknown_fields: Literal["refuse", "ignore"] = Field(
        default="refuse",
        description="What happens to a request field that OpenAI's schema does not know: 400, or dropped.",
    )
    tls: Tls = Tls()


class Limits(Section):
    """What one request may ask for. Beyond any of these it is refused with a 4xx that names the limit."""

    body_bytes: int = Field(default=8 * 1024**2, ge=1024, le=1024**3, description="Largest request body, bytes.")
    held_bytes: int = Field(
        default=512 * 1024**2,
        ge=1024**2,
        description="Request bodies held in memory at one time, bytes, all requests together; more get 503.",
    )
    queue: int = Field(
        default=256, ge=0, le=100_000, description="Requests that may wait for a sequence; more get 503 `overloaded`."
    )
    n: int = Field(default=8, ge=1, le=128, description="Largest `n`: answers to one prompt.")
    stop: int = Field(default=16, ge=1, le=256, description="Most stop strings in a request.")
    stop_chars: int = Field(default=512, ge=1, le=65536, description="Longest stop string, characters.")
    logit_bias: int = Field(default=1024, ge=0, le=1_000_000, description="Most entries in `logit_bias`.")
    top_logprobs: int = Field(default=20, ge=0, le=100, description="Largest `top_logprobs`.")
    tools: int = Field(default=128, ge=0, le=4096, description="Most tools offered in a request.")
    messages: int = Field(default=4096, ge=1, le=1_000_000, description="Most messages in a conversation.")
    body_timeout_s: float = Field(
        default=30.0, gt=0, le=3600, description="Seconds a client has to send its body; then 408."
    )
    first_byte_timeout_s: float = Field(
        default=120.0,
        gt=0,
        le=86400,
        description="Seconds without any byte from the engine before a streamed answer starts; then 503.",
    )
    answer_timeout_s: float = Field(
        default=3600.0, gt=0, le=604800, description="Seconds that an answer which is not streamed may take in all."
    )
    idle_timeout_s: float = Field(
        default=60.0, gt=0, le=86400, description="Seconds between two bytes of a running answer; then an error event."
    )


class LlamaCpp(Section):
    """The CPU engine, `serving.llamacpp`."""

    concurrency: int = Field(
        default=16, ge=1, le=256, description="Sequences computed at the same time, where memory allows; more wait."
    )
    context: int = Field(
        default=0,
        ge=0,
        le=16 * 1024**2,
        description="Tokens per sequence; 0 takes the most that fits, up to the model's own.",
    )
    kv_layout: Literal["auto", "streams", "unified"] = Field(
        default="auto",
        description="`streams`: a region per sequence, fastest; `unified`: one pool of tokens, smallest; "
        "`auto`: streams where concurrency × context fits.",
    )
    kv_dtype: Literal["f16", "bf16", "f32", "q8_0"] = Field(
        default="f16", description="Type of the KV cache's numbers."
    )
    ubatch: int = Field(default=512, ge=16, le=8192, description="Prompt tokens computed in one pass of the model.")
    threads: int = Field(default=0, ge=0, le=1024, description="Compute threads; 0 takes the usable physical cores.")
    wait_policy: Literal["auto", "active", "brief", "passive"] = Field(
        default="auto",
        description="How idle compute threads wait: `active` spins for milliseconds (collapses beside other load on "
        "the same cores), `brief` for microseconds and then sleeps, `passive` sleeps; `auto`: brief, or passive under "
        "a CPU quota.",
    )
    load_mode: Literal["auto", "mmap", "none"] = Field(
        default="auto",
        description="`mmap` maps the weights (shared, evictable pages); `none` reads them into private memory; "
        "`auto`: mapped, unless llama.cpp keeps its own copy of most of them.",
    )
    swa_full: bool = Field(
        default=False, description="Keep the whole context of sliding-window layers, so that any prefix can be shared."
    )
    step_ms: int = Field(
        default=250, ge=10, le=500, description="Prompt work in one engine step, at most, milliseconds."
    )
    snapshot_bytes: int = Field(
        default=256 * 1024**2,
        ge=0,
        description="Host memory for shared prefixes in the `streams` layout, bytes at most; counted in the plan.",
    )
    headroom: float = Field(
        default=0.1,
        ge=0,
        le=0.9,
        description="Share of the usable memory that a plan leaves free, for everything else here.",
    )


class Vllm(Section):
    """vLLM, a process in a Python environment that may be its own."""

    python: SettingPath | None = Field(
        default=None,
        description="The Python that has vLLM installed; unset: the one that runs this program.",
    )
    eager: bool = Field(
        default=False,
        description="No compilation and no CUDA graphs: starts in a fraction of the time, decodes more slowly.",
    )
    prefix_caching: bool = Field(default=True, description="Keep computed prefixes for later requests.")
    chunked_prefill: bool = Field(
        default=True, description="Compute long prompts in pieces, between the tokens of others."
    )
    tensor_parallel: int = Field(
        default=0, ge=0, le=64, description="GPUs that share each layer of a model; 0 leaves it to the planner."
    )
    pipeline_parallel: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Stages that share a model's layers, for numbers of GPUs that cannot share each layer, or GPUs "
        "without NVLink under load; 0 leaves it to the planner.",
    )
    data_parallel: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Copies of a model beside each other, each with a cache of its own; 0 is one. While several start, "
        "vLLM listens at a TCP port on all addresses.",
    )
    expert_parallel: bool = Field(
        default=False, description="Spread the experts of a mixture over the GPUs, each whole on one of them."
    )
    adapters: dict[str, SettingPath] = Field(
        default={},
        description="LoRA adapters, directories in PEFT's form with safetensors, by the name requests use: "
        '`{ legal = "/srv/adapters/legal" }`.',
    )
    speculative: dict[str, int | float | str | bool] = Field(
        default={},
        description="vLLM's `--speculative-config` as a table, such as "
        '`{ method = "ngram", num_speculative_tokens = 4, prompt_lookup_max = 4 }`.',
    )
    extra: dict[str, int | float | str | bool] = Field(
        default={},
        description="More flags of vLLM's by their names without dashes, such as `{ swap-space = 0 }`; those that this "
        "program sets itself, or that would open a way in or out, are refused.",
    )
    environment: dict[str, str] = Field(
        default={},
        description='More environment variables for vLLM, such as `{ NCCL_P2P_DISABLE = "1" }`; nothing else of '
        "this program's environment reaches it.",
    )


class Transformers(Section):
    """PyTorch with Hugging Face Transformers: the oracle, one request at a time, taken only where it is asked for."""

    python: SettingPath | None = Field(
        default=None,
        description="The Python that has PyTorch and Transformers; unset: the one that runs this program.",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto", description="Type it computes in; `auto`: that of the weights."
    )


class Restart(Section):
    """What happens when an engine dies."""

    backoff_s: float = Field(
        default=0.5, ge=0, le=60, description="Seconds before the first restart; doubled each time."
    )
    backoff_max_s: float = Field(
        default=30.0, ge=0, le=3600, description="Longest pause between two restarts, seconds."
    )
    max_crashes: int = Field(
        default=5, ge=1, le=1000, description="Crashes within `window_s` after which the engine is given up on."
    )
    window_s: float = Field(
        default=300.0, gt=0, le=86400, description="Crashes longer ago than this are forgotten, seconds."
    )
    start_timeout_s: float = Field(
        default=600.0,
        gt=0,
        le=86400,
        description="Seconds without load progress before a starting engine counts as hung.",
    )
    hang_timeout_s: float = Field(
        default=60.0,
        gt=0,
        le=86400,
        description="Seconds without any sign of life before a serving engine is killed and started again.",
    )


class Engines(Section):
    """How engines are started and watched."""

    llamacpp: LlamaCpp = LlamaCpp()
    vllm: Vllm = Vllm()
    transformers: Transformers = Transformers()
    restart: Restart = Restart()
    profiles: bool = Field(
        default=True, description="Use what `serve bench autotune` found best for a model on this machine."
    )


class Hardware(Section):
    """What is expected of the machine."""

    require_gpu: bool = Field(
        default=False,
        description="Refuse to start without a GPU, or with one that does not work, and count as not ready while one "
        "is lost; false serves from the CPU then, what fits.",
    )


class Registry(Section):
    """Which models there are."""

    site_file: SettingPath | None = Field(
        default=None,
        description="A catalogue of your own, in the form of models.toml; its entries add to ours, change them or "
        "replace them (docs/site-catalogue.md).",
    )


class Store(Section):
    """Weights on disk (docs/store.md)."""

    directory: SettingPath | None = Field(
        default=None,
        description="Where they are kept; unset: $XDG_DATA_HOME/perimeter/store, else ~/.local/share/perimeter/store.",
    )
    lock_file: SettingPath | None = Field(
        default=None,
        description="The lock: what each model is, to the byte; unset: `models.lock` in the store. Kept elsewhere, "
        "such as under version control, it is trusted more than the disk that the weights are on.",
    )
    rehash_days: float = Field(
        default=7.0,
        ge=0,
        le=7,
        description="Days after which a file that looks untouched is hashed again when it is loaded; 0: at every load.",
    )
    signing_key: SettingPath | None = Field(
        default=None,
        description="Public key (PEM, elliptic curve) that signatures of models are checked with, `model.sig` beside "
        "their files in the form of OpenSSF Model Signing.",
    )
    require_signature: bool = Field(default=False, description="Refuse models without a signature by that key.")
    endpoint: str | None = Field(
        default=None,
        min_length=1,
        description="The hub or mirror that models are pulled from; unset: $HF_ENDPOINT, else https://huggingface.co.",
    )
    token_file: SettingPath | None = Field(
        default=None,
        description="File, of mode 0600, with the token that the hub or mirror wants; no other source of one is used.",
    )
    ca_file: SettingPath | None = Field(
        default=None, description="Certificates, in PEM, that a mirror's is checked against; unset: the system's."
    )


class Mirror(Section):
    """`serve mirror`: the store as a read-only hub for others inside the perimeter (docs/mirror.md)."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(default=8090, ge=0, le=65535, description="TCP port; 0 takes a free one and prints it.")
    open: bool = Field(
        default=False,
        description="Hand on to whoever is on this host without a key (`--open`): on loopback only, or to who shows a "
        "certificate, and never where `sealed` is `require`; else a key with the scope `mirror` is asked for.",
    )
    allow_insecure_bind: bool = Field(
        default=False,
        description="Listen beyond loopback without TLS: where the network itself is trusted, or TLS ends in front.",
    )
    connections: int = Field(
        default=512, ge=1, le=100_000, description="Open client connections; more get 503 and are closed."
    )
    stall_s: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="Seconds in which a client takes no byte of a download before it is cut; it may go on later.",
    )
    drain_s: float = Field(
        default=30.0, ge=0, le=3600, description="Seconds that downloads get to finish after SIGTERM or Ctrl-C."
    )
    tls: Tls = Tls()


def _network(text: str) -> str:
    """A network or an address, written as such."""
    try:
        ip_network(text)
    except ValueError:
        kind, message = "network", "must be addresses or networks, such as `10.0.0.0/8`"
        raise PydanticCustomError(kind, message) from None
    return text


class Access(Section):
    """Who may call, and how much (docs/access.md)."""

    open: bool | None = Field(
        default=None,
        description="Serve whoever is on this host without a key (`--open`): on loopback only, and never where "
        "`sealed` is `require`; false: every route but /health and /ready wants a key; unset: only the demo model, "
        "on loopback, is served without.",
    )
    directory: SettingPath | None = Field(
        default=None,
        description="Keys, what they used, and the socket of the administration, mode 0700; unset: "
        "$XDG_STATE_HOME/perimeter/access, else ~/.local/state/perimeter/access.",
    )
    pepper_file: SettingPath | None = Field(
        default=None,
        description="The secret that keys are hashed with, mode 0600, made at the first use; unset: `pepper` in the "
        "directory. Without it no key is worth anything: back it up, apart from the directory.",
    )
    price_book: SettingPath | None = Field(
        default=None,
        description="What tokens cost (configs/prices.toml), read again as it changes; budgets are counted in it.",
    )
    trusted_proxies: list[Annotated[str, AfterValidator(_network)]] = Field(
        default=[],
        description="Addresses and networks of proxies in front, whose `x-forwarded-for` is believed; no others' is.",
    )
    failed_burst: int = Field(
        default=20,
        ge=1,
        le=100_000,
        description="Wrong keys that one source may send in a row; then 429 in place of 401.",
    )
    failed_per_minute: int = Field(
        default=10, ge=1, le=100_000, description="Wrong keys that one source may send each minute from then on."
    )
    failed_sources: int = Field(
        default=4096, ge=1, le=1_000_000, description="Sources of wrong keys that are remembered; further ones share."
    )
    reservation_timeout_s: float = Field(
        default=7200.0,
        ge=1,
        le=604_800,
        description="Seconds after which what a killed server had reserved is settled at the whole reservation; at "
        "least `limits.answer_timeout_s`.",
    )
    usage_retention_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="Days that single lines of usage are kept, those of this month always; unset: for ever. What "
        "budgets and limits have counted stays.",
    )
    certificates: list[ClientCertificate] = Field(default=[])
    oidc: Oidc = Oidc()

    @model_validator(mode="after")
    def _told_apart(self) -> Access:
        shown = [each.shown for each in self.certificates]
        if len(set(shown)) != len(shown):
            kind, message = "certificate_twice", "two of `certificates` are of the same certificate or name"
            raise PydanticCustomError(kind, message)
        return self


class Content(Section):
    """Prompts and answers of keys that were made with `--record-content`, sealed for the auditor (docs/audit.md)."""

    directory: SettingPath | None = Field(
        default=None,
        description="Where they are kept; unset: $XDG_STATE_HOME/perimeter/content, else "
        "~/.local/state/perimeter/content.",
    )
    public_key: SettingPath | None = Field(
        default=None,
        description="Public key, in PEM, of who may read them (`serve audit content keygen`); unset: nothing is kept, "
        "and no key can be made whose content is recorded.",
    )
    keep_days: int = Field(
        default=0, ge=0, le=36_500, description="Days that they are kept, and at most one more; 0: until erased."
    )
    keep_bytes: int = Field(
        default=0, ge=0, description="Size of all beyond which the oldest are removed, bytes; 0: no limit."
    )
    record_bytes: int = Field(
        default=16 * 1024**2,
        ge=1024,
        le=256 * 1024**2,
        description="Bytes of one prompt or answer that are kept; what is longer is cut there, and marked.",
    )
    held_bytes: int = Field(
        default=256 * 1024**2,
        ge=1024,
        description="Memory for what is collected and not yet on the disk, bytes; prompts beyond it are refused or "
        "served as audit.on_failure says, answers are cut, and marked.",
    )


class Audit(Section):
    """The record of who asked for what, and how it ended (docs/audit.md). Never the text of a prompt or an answer."""

    enabled: bool | None = Field(
        default=None, description="Keep the record; unset: wherever keys are asked for, so that it can say who."
    )
    directory: SettingPath | None = Field(
        default=None,
        description="Where it is kept; unset: $XDG_STATE_HOME/perimeter/audit, else ~/.local/state/perimeter/audit.",
    )
    signing_key: SettingPath | None = Field(
        default=None,
        description="File, of mode 0600, with the key that signs checkpoints (`serve audit keygen`); unset: "
        "$XDG_CONFIG_HOME/perimeter/audit/signing.key, else under ~/.config.",
    )
    fingerprint_key: SettingPath | None = Field(
        default=None,
        description="File, of mode 0600, with the key that fingerprints of prompts and answers are made with; unset: "
        "`fingerprint.key` beside the default place of the other.",
    )
    on_failure: Literal["refuse", "serve"] = Field(
        default="refuse",
        description="What becomes of requests while the record cannot be written: 503 `audit_unwritable`, or served "
        "without; how many went by is recorded as soon as it can be.",
    )
    wait_s: float = Field(
        default=5.0,
        ge=0.1,
        le=600,
        description="Seconds that a request waits for its record to be on the disk; after that the record counts as "
        "one that cannot be written.",
    )
    checkpoint_records: int = Field(
        default=1000, ge=1, le=1_000_000, description="Records after which a checkpoint is signed."
    )
    checkpoint_s: float = Field(
        default=10.0, gt=0, le=3600, description="Seconds after which what is not signed yet is."
    )
    segment_bytes: int = Field(
        default=64 * 1024**2, ge=4096, le=1024**3, description="Size at which a segment is ended, bytes."
    )
    segment_hours: float = Field(default=24.0, gt=0, le=8784, description="Age at which a segment is ended, hours.")
    keep_days: int = Field(
        default=0, ge=0, le=36_500, description="Days that segments are kept after their end; 0: for ever."
    )
    keep_bytes: int = Field(
        default=0, ge=0, description="Size of all segments beyond which the oldest are removed, bytes; 0: no limit."
    )
    undelivered_bytes: int = Field(
        default=4 * 1024**3,
        ge=0,
        description="Size of all segments up to which retention spares what has not left the host, bytes.",
    )
    anchor_file: SettingPath | None = Field(
        default=None,
        description="File on other storage, write-once if there is any, that every record is added to as it arises.",
    )
    syslog: str | None = Field(
        default=None,
        min_length=1,
        description="Syslog server inside the perimeter, such as `audit.example:6514`, that every record is sent to "
        "over TLS as it arises.",
    )
    syslog_ca: SettingPath | None = Field(
        default=None, description="Certificates, in PEM, that the server's is checked against; unset: the system's."
    )
    syslog_certificate: SettingPath | None = Field(
        default=None, description="Our own certificate, in PEM, where the server wants one."
    )
    syslog_key: SettingPath | None = Field(
        default=None, description="Its key, of mode 0600; unset: in the certificate's file."
    )
    content: Content = Content()


class Log(Section):
    """What is written to stderr while serving. Never the text of a prompt or an answer."""

    format: Literal["text", "json"] = Field(
        default="text", description="`text` for people, `json` for one object per line."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe line written."
    )


class Paths(Section):
    """Directories."""

    runtime_dir: SettingPath | None = Field(
        default=None,
        description="Sockets and engine state, mode 0700; unset: $XDG_RUNTIME_DIR/perimeter, else /tmp/perimeter-UID.",
    )
    cache_dir: SettingPath | None = Field(
        default=None,
        description="Synthetic weights (`--dummy-weights`); unset: $XDG_CACHE_HOME/perimeter, else ~/.cache/perimeter.",
    )
    trust_dir: SettingPath | None = Field(
        default=None,
        description="Public keys of those whose bundles are taken (docs/bundles.md); nobody but this user and root may "
        "write there; unset: $XDG_CONFIG_HOME/perimeter/trust, else ~/.config/perimeter/trust.",
    )


class Served(Section):
    """One model of the set that `serve` keeps resident where no --model is given; one such table for each.

    The set is planned as a whole, in this order: what does not fit beside those before it is refused by name.
    """

    name: str = Field(min_length=1, description="Name of a model, or path of a GGUF file or a safetensors directory.")
    url: str | None = Field(
        default=None,
        min_length=1,
        description="A server elsewhere that serves it under this name, such as `http://10.0.0.7:8000`; nothing is "
        "started for it then, and what shapes a plan is not taken.",
    )
    key_file: SettingPath | None = Field(default=None, description="File with the key that this server wants.")
    backend: Literal["llamacpp", "vllm", "transformers"] | None = Field(
        default=None, description="Engine that serves it."
    )
    variant: str | None = Field(default=None, description="Form of the weights, such as `q8_0`.")
    context: int | None = Field(default=None, ge=1, description="Tokens that one sequence may hold.")
    concurrency: int | None = Field(default=None, ge=1, le=256, description="Sequences computed at the same time.")
    kv_dtype: Literal["f16", "bf16", "f32", "q8_0", "fp8"] | None = Field(
        default=None, description="Numbers in the cache."
    )
    parallel: int | None = Field(default=None, ge=1, le=64, description="GPUs that hold one copy of it (vLLM).")
    tensor_parallel: int | None = Field(default=None, ge=1, le=64, description="GPUs that share each layer (vLLM).")
    pipeline_parallel: int | None = Field(default=None, ge=1, le=64, description="Stages of its layers (vLLM).")
    data_parallel: int | None = Field(default=None, ge=1, le=64, description="Copies of it (vLLM).")
    threads: int | None = Field(default=None, ge=1, le=1024, description="Compute threads (llama.cpp).")


class Settings(Section):
    """Everything that can be set. `Settings()` is the defaults."""

    @property
    def keeps_record(self) -> bool:
        """Whether the audit log is kept: as it is set, else wherever keys are asked for."""
        return not self.access.open if self.audit.enabled is None else self.audit.enabled

    @property
    def digest(self) -> str:
        """SHA-256 that stands for all of them: of their JSON, names in order, without spaces."""
        told = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(told.encode()).hexdigest()

    models: list[Served] = Field(default=[])
    sealed: Literal["off", "best-effort", "require"] = Field(
        default="best-effort",
        description="How engines are shut in (docs/sealed.md): `best-effort` with every layer that this host offers, "
        "saying which are missing and why; `require` refuses to start without all of them; `off` with none.",
    )

    server: Server = Server()
    limits: Limits = Limits()
    engines: Engines = Engines()
    hardware: Hardware = Hardware()
    registry: Registry = Registry()
    store: Store = Store()
    mirror: Mirror = Mirror()
    access: Access = Access()
    audit: Audit = Audit()
    egress: Egress = Egress()
    log: Log = Log()
    paths: Paths = Paths()

    @model_validator(mode="after")
    def _certificates_are_asked_for(self) -> Settings:
        if self.access.certificates and self.server.tls.client_ca is None:
            kind, message = "no_certificates", "`access.certificates` needs `server.tls.client_ca`: no client shows one"
            raise PydanticCustomError(kind, message)
        return self
