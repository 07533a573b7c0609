"""`examine`: facts in, findings out. Pure: it reads nothing."""

from __future__ import annotations

from serving.doctor.engine_checks import check_engines
from serving.doctor.facts import Facts
from serving.doctor.finding import Finding
from serving.doctor.gpu_checks import check_gpus
from serving.doctor.host_checks import check_host
from serving.doctor.memory_checks import check_memory
from serving.doctor.process_checks import check_process
from serving.doctor.storage_checks import check_storage
from serving.doctor.surroundings_checks import check_surroundings


def examine(facts: Facts) -> tuple[Finding, ...]:
    """Everything worth a line, in the order in which a host is looked over: GPUs first, this process last."""
    return (
        *check_gpus(facts),
        *check_engines(facts),
        *check_surroundings(facts),
        *check_host(facts),
        *check_memory(facts),
        *check_storage(facts),
        *check_process(facts),
    )
