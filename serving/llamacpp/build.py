"""`python -m serving.llamacpp.build`: how the installed llama.cpp was built, as one JSON object on stdout.

A process of its own, since importing llama.cpp loads its library: a build for another processor ends the process that
does (SIGILL), and whoever only wants to know should outlive that.
"""

from __future__ import annotations

import json
import re
import sys

from serving.llamacpp import binding


def describe_build() -> dict[str, object]:
    """What llama.cpp says of itself.

    `flags` are the names that its system info gives the value 1, such as `AVX512_VNNI`: what it was compiled with,
    not what this processor has. `variant` is which of a portable build's parts was chosen, None for a build of one.
    """
    binding.start_backend()
    info = binding.system_info()
    return {
        "version": binding.library_version(),
        "system_info": info,
        "flags": [name for name, value in re.findall(r"(\w+) = (\d+)", info) if value == "1"],
        "variant": binding.cpu_variant(),
        **binding.supports(),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(describe_build()) + "\n")
