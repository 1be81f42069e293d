"""The cache of compiled kernels: layers, damage, bounds, threads and processes."""

import os
import threading
import time
import warnings

import pytest

from tinyflow.runtime import kernel_cache
from tinyflow.runtime.kernel_cache import KernelCache, cache_key


def key_of(number):
    return f"{number:064x}"


def entry_files(directory):
    return sorted(path for path in directory.iterdir() if path.suffix == ".kernel")


@pytest.fixture
def cache(tmp_path):
    return KernelCache(tmp_path / "kernels")


def never():
    raise AssertionError("must not be built")


def test_get_after_put_and_counts(cache):
    assert cache.get(key_of(1)) is None
    cache.put(key_of(1), b"code")
    assert cache.get(key_of(1)) == b"code"
    stats = cache.stats
    assert (stats.hits, stats.disk_hits, stats.misses, stats.bytes) == (1, 0, 1, 4)


def test_another_cache_object_reads_the_disk(cache):
    cache.put(key_of(1), b"code")
    other = KernelCache(cache.directory)
    assert other.get_or_build(key_of(1), never) == b"code"
    assert other.get_or_build(key_of(1), never) == b"code"
    assert (other.stats.hits, other.stats.disk_hits) == (2, 1)


def test_an_empty_payload_is_a_hit(cache):
    cache.put(key_of(1), b"")
    assert KernelCache(cache.directory).get(key_of(1)) == b""


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:3],
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: b"XXXX" + content[4:],
        lambda content: content[:-2] + bytes([content[-2] ^ 1]) + content[-1:],
        lambda content: content[:10] + bytes([content[10] ^ 1]) + content[11:],
    ],
    ids=["empty", "short", "truncated", "longer", "magic", "payload bit", "checksum bit"],
)
def test_damaged_entry_is_deleted_and_rebuilt(cache, damage):
    cache.put(key_of(1), b"machine code")
    (path,) = entry_files(cache.directory)
    path.write_bytes(damage(path.read_bytes()))
    other = KernelCache(cache.directory)
    assert other.get(key_of(1)) is None
    assert entry_files(cache.directory) == []
    assert other.get_or_build(key_of(1), lambda: b"rebuilt") == b"rebuilt"
    assert KernelCache(cache.directory).get(key_of(1)) == b"rebuilt"


def test_entry_under_another_name_is_refused(cache):
    cache.put(key_of(1), b"one")
    (path,) = entry_files(cache.directory)
    os.rename(path, path.with_name(key_of(2) + ".kernel"))
    assert KernelCache(cache.directory).get(key_of(2)) is None


@pytest.mark.parametrize("key", ["", "../escape", "ABC", "a/b", "g0"])
def test_keys_are_hex_digits(cache, key):
    with pytest.raises(ValueError, match="hex"):
        cache.put(key, b"code")


def test_no_partial_files_remain(cache):
    for number in range(20):
        cache.put(key_of(number), b"code")
    assert {path.suffix for path in cache.directory.iterdir()} == {".kernel"}


def test_least_recently_used_entries_go_first(tmp_path):
    cache = KernelCache(tmp_path, limit_bytes=10_000)
    for number in range(9):
        cache.put(key_of(number), bytes(1000))
    now = time.time()
    for number in range(9):
        os.utime(tmp_path / (key_of(number) + ".kernel"), (now - 100 + number,) * 2)
    # A hit from disk makes the oldest entry the newest.
    assert KernelCache(tmp_path).get(key_of(0)) is not None
    for number in range(9, 13):
        cache.put(key_of(number), bytes(1000))
    cache.sweep()
    left = [number for number in range(13) if (tmp_path / (key_of(number) + ".kernel")).exists()]
    assert 0 in left and 12 in left
    assert 1 not in left and 2 not in left
    assert sum(path.stat().st_size for path in entry_files(tmp_path)) <= 10_000


def test_many_small_processes_stay_within_the_bound(tmp_path):
    for number in range(600):
        # Keys that count, not hashes: one in 64 draws a sweep, evenly, whatever the version is.
        KernelCache(tmp_path, limit_bytes=50_000).put(f"{number:064x}", bytes(900))
    total = sum(path.stat().st_size for path in entry_files(tmp_path))
    assert total < 50_000 + 64 * 950  # the bound, plus what falls between two sweeps


def test_the_directory_is_not_walked_at_each_put(tmp_path, monkeypatch):
    cache = KernelCache(tmp_path)
    sweeps = []
    monkeypatch.setattr(cache, "sweep", lambda: sweeps.append(1))
    for number in range(640):
        cache.put(cache_key(str(number), "t"), b"code")
    assert len(sweeps) < 40


def test_memory_layer_is_bounded(tmp_path):
    cache = KernelCache(tmp_path, memory_bytes=3000)
    for number in range(10):
        cache.put(key_of(number), bytes(1000))
    assert cache._memory_used <= 3000
    assert cache.get(key_of(0)) == bytes(1000)  # from disk
    assert cache.stats.disk_hits == 1


def test_stale_partial_files_are_swept(cache):
    cache.put(key_of(1), b"code")
    stale = cache.directory / ".abc.1.2.partial"
    fresh = cache.directory / ".abc.1.3.partial"
    stale.write_bytes(b"half")
    fresh.write_bytes(b"half")
    os.utime(stale, (time.time() - 10_000,) * 2)
    cache.sweep()
    assert not stale.exists() and fresh.exists()


def test_clear_forgets_everything(cache):
    cache.put(key_of(1), b"code")
    cache.clear()
    assert cache.get(key_of(1)) is None


def test_unusable_directory_warns_once_and_works_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel_cache, "_warned", False)
    (tmp_path / "file").write_text("in the way")
    cache = KernelCache(tmp_path / "file" / "kernels")
    with pytest.warns(RuntimeWarning, match="memory only"):
        cache.put(key_of(1), b"code")
    assert cache.directory is None
    assert cache.get(key_of(1)) == b"code"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = KernelCache(tmp_path / "file" / "kernels")
        assert second.get_or_build(key_of(2), lambda: b"two") == b"two"


def test_directory_that_vanishes_turns_the_cache_to_memory(cache, monkeypatch):
    monkeypatch.setattr(kernel_cache, "_warned", False)
    cache.put(key_of(1), b"code")
    cache.directory.joinpath(key_of(1) + ".kernel").unlink()
    cache.directory.rmdir()
    with pytest.warns(RuntimeWarning, match="cannot write"):
        cache.put(key_of(2), b"two")
    assert cache.get(key_of(2)) == b"two"


def test_directory_open_to_others_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel_cache, "_warned", False)
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    cache = KernelCache(shared)
    with pytest.warns(RuntimeWarning, match="others can write"):
        cache.put(key_of(1), b"code")
    assert list(shared.iterdir()) == []


def test_threads_with_one_key_build_once(cache):
    built = []
    barrier = threading.Barrier(6)
    answers = []

    def build():
        built.append(1)
        time.sleep(0.02)
        return b"code"

    def ask():
        barrier.wait()
        answers.append(cache.get_or_build(key_of(1), build))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [b"code"] * 6
    assert len(built) == 1
    assert cache._building == {}


def test_a_failed_build_is_tried_again(cache):
    with pytest.raises(ZeroDivisionError):
        cache.get_or_build(key_of(1), lambda: bytes(1 // 0))
    assert cache.get_or_build(key_of(1), lambda: b"code") == b"code"


def test_processes_share_the_directory(cache, run_python, tmp_path):
    code = (
        "import sys\n"
        "from tinyflow.runtime.kernel_cache import KernelCache, cache_key\n"
        f"cache = KernelCache({str(cache.directory)!r}, memory_bytes=0)\n"
        "for turn in range(4):\n"
        "    for number in range(25):\n"
        "        key = cache_key(str(number), 't')\n"
        "        payload = str(number).encode() * 500\n"
        "        if cache.get(key) not in (None, payload): sys.exit('torn read')\n"
        "        cache.put(key, payload)\n"
    )
    failures = []

    def process():
        try:
            run_python(code)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=process) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(entry_files(cache.directory)) == 25


def test_key_depends_on_every_part(monkeypatch):
    key = cache_key("text", "target")
    assert key == cache_key("text", "target")
    assert len(key) == 64
    assert len({key, cache_key("text2", "target"), cache_key("textt", "arget")}) == 3
    import llvmlite

    monkeypatch.setattr(llvmlite, "__version__", "0.0")
    assert cache_key("text", "target") != key


def test_directory_follows_the_environment(monkeypatch):
    monkeypatch.setenv("TINYFLOW_CACHE", "/a")
    assert str(kernel_cache.default_directory()) == "/a"
    monkeypatch.delenv("TINYFLOW_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert str(kernel_cache.default_directory()) == "/b/tinyflow/kernels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert str(kernel_cache.default_directory()) == "~/.cache/tinyflow/kernels"


def test_the_runtime_itself_is_cached(run_python):
    code = (
        "from tinyflow.runtime import jit, kernel_cache, native\n"
        "compiled = []\n"
        "compile_object = jit.compile_object\n"
        "jit.compile_object = lambda *a: compiled.append(1) or compile_object(*a)\n"
        "native.native_runtime()\n"
        "print(len(compiled))\n"
    )
    assert run_python(code).strip() == "1"
    assert run_python(code).strip() == "0"
