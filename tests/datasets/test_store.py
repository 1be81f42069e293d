"""Finding, downloading and refusing data files. No test goes online."""

import hashlib
import io
import os

import pytest

from tinyflow.datasets import DatasetUnavailable, get_mnist, mnist, store

CONTENT = b"0123456789" * 1000
FILE = store.RemoteFile(
    name="images.gz",
    size_bytes=len(CONTENT),
    md5=hashlib.md5(CONTENT, usedforsecurity=False).hexdigest(),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)
MIRRORS = ["https://one.example/", "https://two.example/"]


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An empty TINYFLOW_DATA and an empty cache; (folder, cache folder of data set "toy")."""
    folder = tmp_path / "given"
    folder.mkdir()
    monkeypatch.setenv("TINYFLOW_DATA", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder, tmp_path / "cache" / "tinyflow" / "datasets" / "toy"


@pytest.fixture
def network(monkeypatch):
    """A dictionary from address to content that stands for the network; asked addresses."""
    pages, asked = {}, []

    def open_address(address):
        asked.append(address)
        if address not in pages:
            raise OSError("network is unreachable")
        return io.BytesIO(pages[address])

    monkeypatch.setattr(store, "open_address", open_address)
    return pages, asked


def obtain():
    return store.obtain([FILE], "toy", MIRRORS, "use something else")


def test_looks_in_the_given_folder_before_the_cache(places, network):
    folder, cache = places
    for place in (cache, folder, folder / "toy"):
        place.mkdir(parents=True, exist_ok=True)
        (place / FILE.name).write_bytes(b"any")
        assert obtain() == [place / FILE.name]
    assert network[1] == []


def test_accepts_an_unpacked_file(places):
    folder, _ = places
    (folder / "images").write_bytes(b"any")
    assert obtain() == [folder / "images"]


def test_downloads_once_into_the_cache(places, network, capsys):
    pages, asked = network
    pages[MIRRORS[0] + FILE.name] = CONTENT
    path = places[1] / FILE.name
    assert obtain() == [path]
    assert path.read_bytes() == CONTENT
    assert os.listdir(places[1]) == [FILE.name]
    assert "downloading https://one.example/images.gz" in capsys.readouterr().err
    obtain()
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (b"x" + CONTENT[1:], "sha256 is"),
        (CONTENT[:-1], "9999 bytes, expected 10000"),
        (CONTENT * 3, "10001 bytes, expected 10000"),
    ],
    ids=["content", "short", "long"],
)
def test_refuses_a_wrong_download(places, network, wrong, complaint):
    pages, asked = network
    for mirror in MIRRORS:
        pages[mirror + FILE.name] = wrong
    with pytest.raises(DatasetUnavailable, match=complaint):
        obtain()
    assert asked == [mirror + FILE.name for mirror in MIRRORS]
    assert not places[1].exists()


def test_second_mirror_serves_when_the_first_is_wrong(places, network):
    network[0].update({MIRRORS[0] + FILE.name: b"no", MIRRORS[1] + FILE.name: CONTENT})
    assert obtain()[0].read_bytes() == CONTENT


def test_unwritable_cache_is_reported(places, network, monkeypatch):
    network[0][MIRRORS[0] + FILE.name] = CONTENT
    places[1].parent.parent.parent.mkdir()
    places[1].parent.parent.write_text("a file where the folder should be")
    with pytest.raises(DatasetUnavailable, match="three ways out"):
        obtain()


def test_offline_message(places, network):
    folder, cache = places
    with pytest.raises(DatasetUnavailable) as caught:
        obtain()
    assert str(caught.value).splitlines() == [
        "toy: not on this machine, and the download failed",
        "  missing: images.gz",
        f"  looked in: TINYFLOW_DATA ({folder}), {cache}",
        "  tried: https://one.example/images.gz: network is unreachable",
        "  tried: https://two.example/images.gz: network is unreachable",
        "  three ways out:",
        "    1. set TINYFLOW_DATA to a folder that holds these files, or holds toy/ with them",
        f"    2. put the files into {cache}",
        "    3. go online and run again: they are fetched from https://one.example/ and verified",
        "  hint: use something else",
    ]


def test_mnist_offline_names_the_ways_out(places, network, monkeypatch):
    monkeypatch.delenv("TINYFLOW_DATA")
    with pytest.raises(DatasetUnavailable) as caught:
        get_mnist()
    text = str(caught.value)
    for part in ("TINYFLOW_DATA (not set)", "tinyflow/datasets/mnist", "get_digits()"):
        assert part in text
    assert len(network[1]) == 2  # the first file at each mirror; the others would fail alike


def test_mnist_damaged_file_is_named(places, network):
    folder, _ = places
    for file in mnist._FILES:
        (folder / file.name).write_bytes(b"not an idx file")
    with pytest.raises(
        DatasetUnavailable, match=r"train-images-idx3-ubyte\.gz: expected idx magic"
    ):
        get_mnist()
