"""Random weights in ggml's block formats: every block valid, every scale finite, no two pages alike.

Each format is its raw bytes at random with the scales set, so that the weights of a row of n numbers have a spread of
about 1/sqrt(n): activations stay in range through any number of layers, and the time a pass takes is that of real
weights. Block layouts are ggml's (ggml/src/ggml-common.h).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_F16_ONE: Final = 15 << 10
"""Exponent bits of 1.0 in 16-bit floats."""


def noise(rng: np.random.Generator, kind: str, blocks: int, row: int, block_bytes: int) -> Bytes:
    """`blocks` blocks of a type, for rows of `row` numbers, as bytes. Raises KeyError for a type that is not here."""
    fill = _FILL[kind]
    raw: Bytes = np.frombuffer(rng.bytes(blocks * block_bytes), np.uint8).reshape(blocks, block_bytes).copy()
    fill(raw, 1 / math.sqrt(max(1, row)))
    return raw.reshape(-1)


def _scale(raw: Bytes, at: int, value: float) -> None:
    """Set a 16-bit float at byte `at` of every block, no smaller than the least that is not zero."""
    bits = int(np.array([max(abs(value), 6e-8) * (1 if value >= 0 else -1)], np.float16).view(np.uint16)[0])
    raw[:, at] = bits & 0xFF
    raw[:, at + 1] = bits >> 8


def _floats(exponent_bits: int, exponent_one: int, mantissa_bits: int) -> Callable[[Bytes, float], None]:
    """16-bit floats of random sign and mantissa, all of one exponent."""

    def fill(raw: Bytes, spread: float) -> None:
        words = raw.reshape(-1).view(np.uint16)
        exponent = exponent_one + round(math.log2(spread))
        words &= np.uint16(~(((1 << exponent_bits) - 1) << mantissa_bits) & 0xFFFF)
        words |= np.uint16(exponent << mantissa_bits)

    return fill


def _f32(raw: Bytes, spread: float) -> None:
    words = raw.reshape(-1).view(np.uint32)
    exponent = 127 + round(math.log2(spread))
    words &= np.uint32(~(0xFF << 23) & 0xFFFFFFFF)
    words |= np.uint32(exponent << 23)


def _one_scale(at: int, spread_of_quants: float) -> Callable[[Bytes, float], None]:
    def fill(raw: Bytes, spread: float) -> None:
        _scale(raw, at, spread / spread_of_quants)

    return fill


def _scale_and_least(at: int, spread_of_quants: float, middle: float) -> Callable[[Bytes, float], None]:
    """A scale, and beside it what is taken away or added so that the middle of the range is zero."""

    def fill(raw: Bytes, spread: float) -> None:
        _scale(raw, at, spread / spread_of_quants)
        _scale(raw, at + 2, middle * spread / spread_of_quants)

    return fill


def _mxfp4(raw: Bytes, spread: float) -> None:
    # One byte of exponent for 32 numbers whose spread is about 3.
    raw[:, 0] = 127 + round(math.log2(spread / 3))


_FILL: Final[dict[str, Callable[[Bytes, float], None]]] = {
    "F32": _f32,
    "F16": _floats(5, 15, 10),
    "BF16": _floats(8, 127, 7),
    "Q4_0": _one_scale(0, 4.6),
    "Q4_1": _scale_and_least(0, 4.6, -7.5),
    "Q5_0": _one_scale(0, 9.2),
    "Q5_1": _scale_and_least(0, 9.2, -15.5),
    "Q8_0": _one_scale(0, 74),
    # d × (6-bit scale) × quant, less dmin × (6-bit least); Q2_K's are of 4 bits and stand last.
    "Q2_K": _scale_and_least(80, 14, 1.5),
    "Q3_K": _one_scale(108, 42),
    "Q4_K": _scale_and_least(0, 220, 7.5),
    "Q5_K": _scale_and_least(0, 430, 15.5),
    "Q6_K": _one_scale(208, 1370),
    "MXFP4": _mxfp4,
}
TYPES: Final = frozenset(_FILL)
"""Number types that can be written."""
