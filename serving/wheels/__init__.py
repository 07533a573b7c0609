"""What a compiled wheel takes for granted of the processor: read from the wheel, compared with a host's flags.

Here and not beside the recipe that builds wheels, since the host that must judge them has this package and no more.
"""

from serving.wheels.levels import LEVELS, NUMPY_LEVEL, flags_of, lacking, level_of, require_level
from serving.wheels.llamacpp import LlamaCppWheel, Variant, read_wheel, require_processor

__all__ = [
    "LEVELS",
    "NUMPY_LEVEL",
    "LlamaCppWheel",
    "Variant",
    "flags_of",
    "lacking",
    "level_of",
    "read_wheel",
    "require_level",
    "require_processor",
]
