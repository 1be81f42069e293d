"""Schedule parameters that a search on some machine found better than the default ones.

Main types: ``ContractionTuning``, ``SweepTuning``; ``tuning_for``, ``sweep_tuning_for`` look them
up, ``override`` sets them for a measurement. Imports ir.scalar and targets.

The log is a file of JSON lines, one finding each; a later line replaces an earlier one::

    {"target": "znver4 lanes=16 ...", "kernel": "dot f32 m=49 ...", "tuning": {"rows": 7}, ...}

It is only ever parsed and its numbers are checked, so a damaged or foreign file costs speed and
never a wrong result: no parameter decides in which order anything is added up.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.text import show
from tinyflow.schedule.targets import Target

#: Where the log is; empty turns tuning off.
TUNING_LOG = "TINYFLOW_TUNING_LOG"
#: A log beyond this size is not read: no search writes a thousandth of it.
LOG_LIMIT_BYTES = 64 << 20


@dataclass(frozen=True)
class ContractionTuning:
    """Parameters of a contraction's schedule; None keeps the automatic scheduler's choice.

    rows, vectors: accumulators of a register tile.   kc: terms between two visits of a tile.
    group: panels of b per pass over a band.   band_bytes: size of a's packed band.
    form: one of FORMS, where the problem allows it.   order: which of ORDERS is the outer loop.
    """

    rows: int | None = None
    vectors: int | None = None
    kc: int | None = None
    group: int | None = None
    band_bytes: int | None = None
    form: str | None = None
    order: str | None = None


@dataclass(frozen=True)
class SweepTuning:
    """Parameters of element-wise, row and reduction schedules; None keeps the default.

    block: elements per task.   lanes: elements per vector.   prefetch: whether streams are asked
    for ahead of time (1 or 0).
    """

    block: int | None = None
    lanes: int | None = None
    prefetch: int | None = None


UNTUNED = ContractionTuning()
#: See schedule.contraction.
FORMS = ("blocked", "in_place", "long", "panels", "row_tiles")
ORDERS = ("rows", "columns")

Tuning = ContractionTuning | SweepTuning
T = TypeVar("T", bound="ContractionTuning | SweepTuning")

#: Largest sensible value of each number; beyond it a line of the log is damaged.
_MOST = {
    "rows": 32, "vectors": 8, "kc": 1 << 14, "group": 1 << 12, "band_bytes": 1 << 18,
    "block": 1 << 24, "lanes": 64, "prefetch": 1,
}  # fmt: skip
_LEAST = {"prefetch": 0}
_WORDS = {"form": FORMS, "order": ORDERS}

_lock = threading.Lock()
_overrides: dict[str, Tuning] = {}
_chosen_log: list[Path | None] = []
_logs: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
#: signatures that schedules have asked for while a recorder listens, in order
_recorders: list[dict[str, Any]] = []


def target_key(target: Target) -> str:
    """What two machines must share for one to use the other's findings."""
    return (
        f"{target.cpu} {target.triple.partition('-')[0]} lanes={target.lanes} "
        f"registers={target.vector_registers} l1={target.l1_bytes} l2={target.l2_bytes}"
    )


def log_path() -> Path | None:
    """$TINYFLOW_TUNING_LOG, else tuning.jsonl beside the compiled kernels; None when off."""
    if _chosen_log:
        return _chosen_log[-1]
    chosen = os.environ.get(TUNING_LOG)
    if chosen is not None:
        return Path(chosen) if chosen else None
    cache = os.environ.get("TINYFLOW_CACHE")
    if cache:
        return Path(cache) / "tuning.jsonl"
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "tinyflow" / "tuning.jsonl"


@contextlib.contextmanager
def log_at(path: Path | None) -> Iterator[None]:
    """Inside the block the log is this file (None: there is none)."""
    _chosen_log.append(path)
    try:
        yield
    finally:
        _chosen_log.pop()


def checked_tuning(kind: type[T], numbers: Mapping[str, Any]) -> T | None:
    """The tuning with these fields, or None when one of them cannot be right."""
    names = {f.name for f in fields(kind)}
    if not set(numbers) <= names:
        return None
    for name, value in numbers.items():
        if name in _WORDS:
            if value not in _WORDS[name]:
                return None
        elif type(value) is not int or not _LEAST.get(name, 1) <= value <= _MOST[name]:
            return None
    return kind(**numbers)


def settings(tuning: Tuning) -> dict[str, Any]:
    """The fields that are set."""
    return {name: value for name, value in asdict(tuning).items() if value is not None}


def read_log(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """(target, kernel) -> the last line about it. Lines that cannot be read are skipped."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    try:
        if path.stat().st_size > LOG_LIMIT_BYTES:
            return found
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            record = json.loads(line)
            key = record["target"], record["kernel"]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        if isinstance(record.get("tuning"), dict) and all(isinstance(k, str) for k in key):
            found[key] = record
    return found


def append_log(path: Path, record: Mapping[str, Any]) -> None:
    """Adds one finding: a single write of one line, so that processes may share the file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    line = json.dumps(dict(record), sort_keys=True) + "\n"
    with open(path, "ab") as file:
        file.write(line.encode())
    forget_log()


def forget_log() -> None:
    """Read the log again at the next question."""
    with _lock:
        _logs.clear()


def known_findings() -> dict[tuple[str, str], dict[str, Any]]:
    """The log's findings, read once per process and path."""
    path = log_path()
    if path is None:
        return {}
    with _lock:
        known = _logs.get(str(path))
        if known is None:
            known = _logs[str(path)] = read_log(path)
        return known


def tuning_for(signature: str, target: Target) -> ContractionTuning:
    """The contraction parameters found for this kernel on this kind of machine; else empty."""
    return _lookup(ContractionTuning, signature, target)


def sweep_tuning_for(signature: str, target: Target) -> SweepTuning:
    """The same for an element-wise, row or reduction kernel."""
    return _lookup(SweepTuning, signature, target)


def is_active() -> bool:
    """Whether any question can have an answer: if not, signatures need not be made."""
    return bool(_recorders or _overrides or known_findings())


def is_overridden() -> bool:
    """Whether somebody sets tunings or listens to what is asked: a search is under way."""
    return bool(_recorders or _overrides)


def contraction_signature(
    a: Expr, b: Expr, outer: Iterable[tuple[Expr, Any]], terms: Iterable[tuple[Expr, Any]]
) -> str:
    """Extents, element type and access of a contraction's operands; empty when nobody asks.

    What follows the sum (bias, activation) is left out: it does not move the best tile.
    """
    if not is_active():
        return ""
    axes = " ".join(f"{v.attr}={n}" for v, n in outer)
    summed = " ".join(f"{v.attr}={n}" for v, n in terms)
    return f"dot {a.dtype.name} {axes} | {summed} #{_digest(f'{show(a)} * {show(b)}')}"


def sweep_signature(kind: str, domain: Iterable[Any], bodies: Iterable[Expr]) -> str:
    """Kind, domain and element expressions of a group; empty when nobody asks."""
    if not is_active():
        return ""
    shape = "x".join(map(str, domain))
    return f"{kind} {shape} #{_digest(' ; '.join(show(body) for body in bodies))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _lookup(kind: type[T], signature: str, target: Target) -> T:
    if not signature:
        return kind()
    for recorder in _recorders:
        recorder.setdefault(signature, kind)
    chosen = _overrides.get(signature)
    if chosen is not None:
        return chosen if isinstance(chosen, kind) else kind()
    record = known_findings().get((target_key(target), signature))
    if record is None:
        return kind()
    return checked_tuning(kind, record["tuning"]) or kind()


@contextlib.contextmanager
def override(signature: str, tuning: Tuning) -> Iterator[None]:
    """Inside the block schedules of this kernel use ``tuning``, in every thread."""
    before = _overrides.get(signature)
    _overrides[signature] = tuning
    try:
        yield
    finally:
        if before is None:
            del _overrides[signature]
        else:
            _overrides[signature] = before


@contextlib.contextmanager
def recorded() -> Iterator[dict[str, Any]]:
    """Signature -> class of tuning, for what schedules ask inside the block."""
    found: dict[str, Any] = {}
    _recorders.append(found)
    try:
        yield found
    finally:
        _recorders.remove(found)
