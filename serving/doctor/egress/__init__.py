"""Whether anything of the stack tries to reach out: observed by the kernel, judged by pure functions (docs/egress.md).

lines      strace's lines → calls and ends
addresses  what a call names as its destination
processes  calls and ends → every process, and whether it was watched from its first instruction to its end
judge      calls → attempts
verdict    attempts, processes, phases → passed, failed, not proven
watchers   which watcher can work here; its command line                    (looks and tries)
namespace  a network namespace of its own, and its counters                 (acts)
stack      `serve` under a watcher                                          (acts)
walk       the phases that it is walked through                             (acts)
proof      all of it in order                                               (acts)
"""
