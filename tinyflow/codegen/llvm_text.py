"""LLVM's spelling of types, constants and intrinsics.

Main functions: ``type_name``, ``memory_type``, ``literal``. Imports core only.
"""

from __future__ import annotations

import functools
import struct
from typing import Any

from tinyflow.core.dtype import COMPILED, DType, float16
from tinyflow.core.error import Unsupported

#: bool is i1 in registers and one byte, 0 or 1, in memory; bfloat16 is its bits (ir.scalar.narrow).
_SCALARS = {"bool": "i1", "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64",
            "uint8": "i8", "uint16": "i16", "uint32": "i32", "uint64": "i64", "bfloat16": "i16",
            "float16": "half", "float32": "float", "float64": "double"}  # fmt: skip
_SUFFIXES = {"i1": "i1", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64", "half": "f16",
             "float": "f32", "double": "f64"}  # fmt: skip


@functools.cache
def type_name(dtype: DType, lanes: int = 0) -> str:
    """``float``, ``<16 x float>``; 0 lanes is a scalar. Errors: Unsupported for other dtypes."""
    scalar = _SCALARS.get(dtype.name)
    if scalar is None:
        raise Unsupported(
            f"native code for {dtype.name} is not generated",
            hint="cast to float32 before computing",
            choices=[d.name for d in COMPILED],
        )
    return f"<{lanes} x {scalar}>" if lanes else scalar


@functools.cache
def memory_type(dtype: DType, lanes: int = 0) -> str:
    """The type of an element in memory."""
    scalar = "i8" if dtype.kind == "bool" else type_name(dtype)
    return f"<{lanes} x {scalar}>" if lanes else scalar


@functools.cache
def suffix(dtype: DType, lanes: int = 0) -> str:
    """How intrinsics name the type: ``f32``, ``v16f32``."""
    return vector_suffix(type_name(dtype), lanes)


def vector_suffix(scalar: str, lanes: int) -> str:
    return f"v{lanes}{_SUFFIXES[scalar]}" if lanes else _SUFFIXES[scalar]


def literal(value: Any, dtype: DType) -> str:
    """A scalar constant; floats as the bits of a double, which LLVM takes for every float type."""
    kind = dtype.kind
    if dtype.size_bytes == 2 and kind == "float":
        bits = int(dtype.numpy.type(value).view("uint16"))
        return f"0xH{bits:04X}" if dtype is float16 else str(bits)
    if kind == "float":
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
    if kind == "bool":
        return "true" if value else "false"
    if kind == "uint" and value >> (dtype.bits - 1):
        return str(value - (1 << dtype.bits))
    return str(value)


def is_literal(operand: str) -> bool:
    return operand[0] != "%"


@functools.cache
def lane_numbers(scalar: str, lanes: int, start: int = 0, step: int = 1) -> str:
    """The constant vector start, start + step, ... (without its type)."""
    return "<" + ", ".join(f"{scalar} {start + step * n}" for n in range(lanes)) + ">"
