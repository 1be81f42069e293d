"""Compiled kernels by key: in memory, and on disk across processes.

Main types: KernelCache, CacheStats; cache_key makes keys, default_cache() is the process's cache.
Imports the standard library only.

An entry file is MAGIC + sha256(key + payload) + payload. Whatever does not check is deleted and
rebuilt, so a torn write or a flipped bit costs a compilation and never a crash. Entries hold
machine code, so a directory that another user owns is not used. Without a usable directory the
cache works in memory, and says so once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
import threading
import time
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MAGIC = b"TFKC\x00\x00\x00\x01"
_DIGEST_BYTES = 32
_HEADER_BYTES = len(MAGIC) + _DIGEST_BYTES
_SUFFIX = ".kernel"
_PARTIAL = ".partial"
_STALE_PARTIAL_S = 3600.0
# One put in this many looks at the directory's size. Drawn from the key, so that many short
# processes together look as often as one long one.
_PUTS_PER_SWEEP = 64


def cache_key(kernel_text: str, target: str) -> str:
    """sha256 (hex) of everything the machine code depends on.

    target: triple, cpu, features and lanes as one string. The versions of TinyFlow and llvmlite
    (hence LLVM) are added here.
    """
    import llvmlite

    digest = hashlib.sha256()
    # Looked up, not imported: the package's face is above this module.
    version = str(getattr(sys.modules.get("tinyflow"), "__version__", "0"))
    for part in (kernel_text, target, version, llvmlite.__version__):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def default_directory() -> Path:
    """$TINYFLOW_CACHE, else $XDG_CACHE_HOME/tinyflow/kernels, else ~/.cache/tinyflow/kernels."""
    chosen = os.environ.get("TINYFLOW_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache")) / "tinyflow" / "kernels"


@dataclass(frozen=True)
class CacheStats:
    """Counts since the cache object was made.

    hits: gets answered from memory or disk; disk_hits: those from disk. misses: gets without an
    answer. bytes: payload bytes put.
    """

    hits: int
    disk_hits: int
    misses: int
    bytes: int


class KernelCache:
    """Maps hex keys to bytes. Safe for threads; safe for processes that share the directory.

    directory: None takes ``default_directory()``.
    limit_bytes: bound of the directory; least recently used entries go first.
    memory_bytes: bound of the layer in memory.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        limit_bytes: int = 256 << 20,
        memory_bytes: int = 32 << 20,
    ) -> None:
        self.limit_bytes = limit_bytes
        self.memory_bytes = memory_bytes
        self._chosen = Path(directory) if directory is not None else None
        self._directory: Path | None = None
        self._opened = False
        self._memory: OrderedDict[str, bytes] = OrderedDict()
        self._memory_used = 0
        self._unswept_bytes = 0
        self._hits = self._disk_hits = self._misses = self._bytes = 0
        self._reset_locks()
        _caches.add(self)

    def _reset_locks(self) -> None:
        self._lock = threading.RLock()
        self._building: dict[str, threading.Lock] = {}

    @property
    def directory(self) -> Path | None:
        """Where entries are kept, or None when the cache works in memory only."""
        with self._lock:
            if not self._opened:
                self._opened = True
                self._directory = self._open_directory()
            return self._directory

    @property
    def stats(self) -> CacheStats:
        with self._lock:
            return CacheStats(self._hits, self._disk_hits, self._misses, self._bytes)

    def get(self, key: str) -> bytes | None:
        """The payload, or None. A hit makes the entry the most recently used."""
        with self._lock:
            payload = self._memory.get(key)
            if payload is not None:
                self._memory.move_to_end(key)
                self._hits += 1
                return payload
        payload = self._read(key)
        with self._lock:
            if payload is None:
                self._misses += 1
            else:
                self._hits += 1
                self._disk_hits += 1
                self._remember(key, payload)
        return payload

    def put(self, key: str, payload: bytes) -> None:
        """Keep the payload, in memory and, if possible, on disk."""
        path = self._path(key)
        with self._lock:
            self._remember(key, payload)
            self._bytes += len(payload)
            self._unswept_bytes += len(payload)
            # Entries of a sixteenth of the bound or more must not slip past the 1-in-64 draw.
            sweep = (
                self._unswept_bytes > self.limit_bytes // 16
                or int(key[-4:], 16) % _PUTS_PER_SWEEP == 0
            )
            if sweep:
                self._unswept_bytes = 0
        if path is None:
            return
        partial = path.with_name(f".{key}.{os.getpid()}.{threading.get_ident()}{_PARTIAL}")
        try:
            with open(partial, "wb") as file:
                file.write(MAGIC + _checksum(key, payload) + payload)
            os.replace(partial, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            self._give_up(f"cannot write {path.parent}: {error.strerror or error}")
            return
        if sweep:
            self.sweep()

    def get_or_build(self, key: str, build: Callable[[], bytes]) -> bytes:
        """The payload of ``key``; ``build()`` makes it if nobody has.

        Threads that ask for the same key build it once: the others wait, and if the builder fails
        the next one tries. Errors of ``build`` pass through.
        """
        payload = self.get(key)
        if payload is not None:
            return payload
        with self._lock:
            turn = self._building.setdefault(key, threading.Lock())
        with turn:
            with self._lock:
                payload = self._memory.get(key)
            if payload is None:
                payload = build()
                self.put(key, payload)
        with self._lock:
            self._building.pop(key, None)
        return payload

    def sweep(self) -> int:
        """Delete least recently used entries until the directory fits; returns bytes deleted."""
        directory = self.directory
        if directory is None:
            return 0
        entries: list[tuple[float, int, str]] = []
        deleted = 0
        try:
            with os.scandir(directory) as listing:
                for entry in listing:
                    with contextlib.suppress(OSError):  # another process deleted it first
                        status = entry.stat(follow_symlinks=False)
                        if entry.name.endswith(_SUFFIX):
                            entries.append((status.st_mtime, status.st_size, entry.path))
                        elif (
                            entry.name.endswith(_PARTIAL)
                            and time.time() - status.st_mtime > _STALE_PARTIAL_S
                        ):
                            os.unlink(entry.path)  # its writer was killed
        except OSError:
            return 0
        excess = sum(size for _, size, _ in entries) - self.limit_bytes
        if excess <= 0:
            return 0
        # A little further than needed, or the next sweep would have to do the same again.
        excess += self.limit_bytes // 8
        for _, size, path in sorted(entries):
            if deleted >= excess:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
                deleted += size
        return deleted

    def clear(self) -> None:
        """Forget every entry, in memory and on disk."""
        with self._lock:
            self._memory.clear()
            self._memory_used = 0
        directory = self.directory
        if directory is not None:
            for path in directory.glob(f"*{_SUFFIX}"):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _remember(self, key: str, payload: bytes) -> None:
        before = self._memory.pop(key, None)
        if before is not None:
            self._memory_used -= len(before)
        self._memory[key] = payload
        self._memory_used += len(payload)
        while self._memory_used > self.memory_bytes and len(self._memory) > 1:
            _, dropped = self._memory.popitem(last=False)
            self._memory_used -= len(dropped)

    def _path(self, key: str) -> Path | None:
        if not key or not set(key) <= set("0123456789abcdef"):
            raise ValueError(f"cache key: expected lower-case hex digits, got {key!r}")
        directory = self.directory
        return None if directory is None else directory / (key + _SUFFIX)

    def _read(self, key: str) -> bytes | None:
        path = self._path(key)
        if path is None:
            return None
        try:
            with open(path, "rb", buffering=0) as file:
                content = file.read()
        except OSError:
            return None
        payload = content[_HEADER_BYTES:]
        if content[:_HEADER_BYTES] != MAGIC + _checksum(key, payload):
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return payload

    def _open_directory(self) -> Path | None:
        try:
            directory = (self._chosen or default_directory()).expanduser()
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = directory.stat()
        except (OSError, RuntimeError) as error:  # RuntimeError: no home directory
            _warn_once(f"no cache directory: {error}")
            return None
        if status.st_uid != os.geteuid() or status.st_mode & stat.S_IWOTH:
            _warn_once(f"others can write machine code into {directory}")
            return None
        if not os.access(directory, os.W_OK | os.X_OK):
            _warn_once(f"{directory} is not writable")
            return None
        return directory

    def _give_up(self, reason: str) -> None:
        with self._lock:
            self._directory = None
        _warn_once(reason)


def default_cache() -> KernelCache:
    """The process's cache."""
    global _default
    if _default is None:
        with _default_lock:
            if _default is None:
                _default = KernelCache()
    return _default


def _checksum(key: str, payload: bytes) -> bytes:
    return hashlib.sha256(key.encode() + payload).digest()


def _warn_once(reason: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"tinyflow: compiled kernels are kept in memory only ({reason}); "
            "set TINYFLOW_CACHE to a directory of your own",
            RuntimeWarning,
            stacklevel=2,
        )


_warned = False
_default: KernelCache | None = None
_default_lock = threading.Lock()
_caches: weakref.WeakSet[KernelCache] = weakref.WeakSet()


def _after_fork() -> None:
    """Locks another thread held at the fork have no owner in the child."""
    global _default_lock
    _default_lock = threading.Lock()
    for cache in list(_caches):
        cache._reset_locks()


os.register_at_fork(after_in_child=_after_fork)
