"""What vLLM's output is understood to say; the lines are those that vLLM 0.32 wrote."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.engines.vllm_output import capacity_of, failure_of, stage_of
from serving.errors import BadFile, FileMissing, NoFitError

START = """
(EngineCore pid=7) INFO 11-22 06:05:20 [core.py:112] Initializing a V1 LLM engine (v0.32.0) with config: model='m'
(Worker pid=9) INFO 11-22 06:05:35 [gpu_model_runner.py:68] Starting to load model m...
Loading safetensors checkpoint shards:   0% Completed | 0/4 [00:00<?, ?it/s]
Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:00<00:00, 23.58it/s]
(Worker pid=9) INFO 11-22 06:05:35 [default_loader.py:501] Loading weights took 0.04 seconds
(Worker pid=9) INFO 11-22 06:05:50 [monitor.py:34] torch.compile takes 22.19 s in total
(EngineCore pid=7) INFO 11-22 06:05:36 [kv_cache_utils.py:2327] GPU KV cache size: 524,288 tokens, Maximum concurrency
Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  40%|####      | 27/67 [00:01<00:02, 19.45it/s]
(EngineCore pid=7) INFO 11-22 06:05:38 [core.py:402] init engine (profile, create kv cache, warmup model) took 1.67 s
(APIServer pid=4) INFO 11-22 06:05:38 [entry.py:140] Starting vLLM server on unix:/run/s.sock
""".strip().splitlines()


def test_a_start_is_told_in_stages_that_go_forward() -> None:
    """Line by line the share grows, and every stage has its name."""
    seen = [found for count in range(1, len(START) + 1) if (found := stage_of(START[:count]))]
    assert [share for share, _ in seen] == sorted(share for share, _ in seen)
    names = [name for _, name in seen]
    assert list(dict.fromkeys(names)) == [
        "starting processes",
        "weights",
        "compiling",
        "KV cache",
        "CUDA graphs",
        "warming up",
        "opening",
    ]
    assert seen[3] == (0.35, "weights")


def test_the_caches_real_size_is_read_back() -> None:
    """In tokens, from the line that states it."""
    assert capacity_of(START) == 524288
    assert capacity_of(START[:3]) is None


def test_copies_caches_are_counted_together() -> None:
    """Each engine core states its own, the last time as it is."""
    lines = [
        f"(EngineCore_DP{copy} pid={copy}) INFO [kv_cache_utils.py:2327] GPU KV cache size: {size} tokens"
        for copy, size in ((0, "1,000"), (1, "2,000"), (0, "3,000"))
    ]
    assert capacity_of(lines) == 5000


def test_an_adapter_that_does_not_fit_is_named() -> None:
    """In vLLM's words: which of its parts the model does not have."""
    said = "Call to add_lora method failed: Worker failed with error 'While loading <path>, expected target modules in"
    error = failure_of("m", [f"ValueError: {said} {{'q_proj'}} but received ['nope_proj']"])
    assert isinstance(error, BadFile)
    assert "cannot load an adapter of `m`: While loading <path>" in error.message
    assert "nope_proj" in error.message


def test_memory_that_others_hold_is_a_refusal_with_numbers() -> None:
    """How much is free, how much was wanted, and the share that could be had."""
    line = (
        "ValueError: Free memory on device cuda:0 (11.5/79.1 GiB) on startup is less than desired GPU memory "
        "utilization (0.9, 71.19 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
    )
    error = failure_of("m", [line])
    assert isinstance(error, NoFitError)
    assert "11.5 GiB of 79.1 GiB are free" in error.message
    assert "12%" in (error.hint or "")


def test_a_context_that_is_too_long_names_the_one_that_fits() -> None:
    """vLLM's own estimate becomes a flag."""
    line = (
        "ValueError: To serve at least one request with the model's max seq len (131072), (16.0 GiB KV cache is "
        "needed, which is larger than the available KV cache memory (2.41 GiB). Based on the available memory, the "
        "estimated maximum model length is 19728. Try increasing `gpu_memory_utilization`"
    )
    error = failure_of("m", [line])
    assert isinstance(error, NoFitError)
    assert "131072 tokens needs 16.0 GiB" in error.message
    assert error.hint == "use `--context 19728`"


def test_other_known_deaths_are_named() -> None:
    """No room for any cache, a crash for lack of memory, and a Python without vLLM; anything else is not guessed at."""
    assert isinstance(failure_of("m", ["ValueError: No available memory for the cache blocks. Try"]), NoFitError)
    assert isinstance(failure_of("m", ["torch.OutOfMemoryError: CUDA out of memory. Tried to"]), NoFitError)
    assert isinstance(failure_of("m", ["/usr/bin/python3: No module named vllm"]), FileMissing)
    assert failure_of("m", ["RuntimeError: something else"]) is None


@given(st.lists(st.text(max_size=80), max_size=20))
def test_any_output_is_survived(lines: list[str]) -> None:
    """It is somebody else's text."""
    stage_of(lines)
    capacity_of(lines)
    failure_of("m", lines)
