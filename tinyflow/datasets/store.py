"""Where data files come from: the user's folder, our cache, the network.

Main types: RemoteFile (name, size, checksums), DatasetUnavailable.
May import: the standard library, inside functions where it is heavy.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

FOLDER_VARIABLE = "TINYFLOW_DATA"
_TIMEOUT_SECONDS = 30
_CHUNK_BYTES = 1 << 16


class DatasetUnavailable(RuntimeError):
    """A data set is not on this machine and could not be fetched. The text says what to do."""


class ChecksumError(OSError):
    """A download is not the file that was asked for."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as its publisher made it. md5 is what most pages quote; sha256 is what protects."""

    name: str
    size_bytes: int
    md5: str
    sha256: str

    def verify(self, content: bytes) -> None:
        """Raise ChecksumError unless `content` is this file."""
        import hashlib

        if len(content) != self.size_bytes:
            raise ChecksumError(f"{self.name}: {len(content)} bytes, expected {self.size_bytes}")
        for kind, expected in (("sha256", self.sha256), ("md5", self.md5)):
            found = hashlib.new(kind, content, usedforsecurity=False).hexdigest()
            if found != expected:
                raise ChecksumError(f"{self.name}: {kind} is {found}, expected {expected}")


def user_folder() -> Path | None:
    """The folder that TINYFLOW_DATA names, if it is set."""
    folder = os.environ.get(FOLDER_VARIABLE, "").strip()
    return Path(folder).expanduser() if folder else None


def cache_folder(dataset: str) -> Path:
    """Where downloads of one data set are kept: $XDG_CACHE_HOME/tinyflow/datasets/<dataset>."""
    base = os.environ.get("XDG_CACHE_HOME", "").strip()
    root = Path(base) if base else Path("~/.cache").expanduser()
    return root / "tinyflow" / "datasets" / dataset


def find_file(name: str, dataset: str) -> Path | None:
    """The first of: TINYFLOW_DATA/<dataset>/<name>, TINYFLOW_DATA/<name>, the cache.

    A file unpacked by hand (`name` without .gz) is as good.
    """
    folders = [cache_folder(dataset)]
    if (given := user_folder()) is not None:
        folders = [given / dataset, given, *folders]
    for folder in folders:
        for candidate in (folder / name, folder / name.removesuffix(".gz")):
            if candidate.is_file():
                return candidate
    return None


def obtain(files: list[RemoteFile], dataset: str, mirrors: list[str], instead: str) -> list[Path]:
    """A path for each file, found here or downloaded into the cache.

    mirrors: address prefixes, tried in order. instead: what the user can do without the files.
    Errors: DatasetUnavailable, which lists the three ways to get them.
    """
    missing = [file for file in files if find_file(file.name, dataset) is None]
    failures: list[str] = []
    for file in missing:
        if not _download_from_any(file, dataset, mirrors, failures):
            # Every further file would wait for the same time-outs.
            raise DatasetUnavailable(_advice(dataset, missing, failures, mirrors, instead))
    return [path for file in files if (path := find_file(file.name, dataset)) is not None]


def _download_from_any(
    file: RemoteFile, dataset: str, mirrors: list[str], failures: list[str]
) -> bool:
    from http.client import HTTPException

    for mirror in mirrors:
        address = mirror + file.name
        try:
            content = _download(address, file)
            file.verify(content)
            _write_atomically(cache_folder(dataset) / file.name, content)
        except (OSError, HTTPException) as failure:  # urllib's errors and ours are OSErrors
            failures.append(f"{address}: {str(failure) or repr(failure)}")
        else:
            return True
    return False


def open_address(address: str):
    """A readable binary stream of what is at `address`."""
    from urllib.request import urlopen

    return urlopen(address, timeout=_TIMEOUT_SECONDS)


def _download(address: str, file: RemoteFile) -> bytes:
    """At most one byte more than the file has, so a wrong address cannot fill the memory."""
    import sys

    show = sys.stderr.isatty()
    received = bytearray()
    print(f"tinyflow: downloading {address} ({file.size_bytes / 1e6:.1f} MB)", file=sys.stderr)
    with open_address(address) as stream:
        while len(received) <= file.size_bytes:
            chunk = stream.read(min(_CHUNK_BYTES, file.size_bytes + 1 - len(received)))
            if not chunk:
                break
            received += chunk
            if show:
                percent = 100 * len(received) / file.size_bytes
                print(f"\r  {percent:3.0f} %", end="", file=sys.stderr, flush=True)
    if show:
        print(file=sys.stderr)
    return bytes(received)


def _write_atomically(path: Path, content: bytes) -> None:
    """Readers, and a second process that downloads too, see the whole file or none."""
    import tempfile

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _advice(
    dataset: str,
    missing: list[RemoteFile],
    failures: list[str],
    mirrors: list[str],
    instead: str,
) -> str:
    names = ", ".join(file.name for file in missing)
    given = user_folder()
    searched = f"{FOLDER_VARIABLE} ({given or 'not set'}), {cache_folder(dataset)}"
    lines = [
        f"{dataset}: not on this machine, and the download failed",
        f"  missing: {names}",
        f"  looked in: {searched}",
        *(f"  tried: {failure}" for failure in failures),
        "  three ways out:",
        f"    1. set {FOLDER_VARIABLE} to a folder that holds these files, or holds {dataset}/ "
        "with them",
        f"    2. put the files into {cache_folder(dataset)}",
        f"    3. go online and run again: they are fetched from {mirrors[0]} and verified",
        f"  hint: {instead}",
    ]
    return "\n".join(lines)
