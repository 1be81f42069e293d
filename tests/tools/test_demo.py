import re
import threading
import types

import numpy as np
import pytest

import tinyflow.datasets
from tinyflow.__main__ import main
from tinyflow.datasets import DatasetUnavailable
from tinyflow.datasets.mnist import _FILES
from tinyflow.datasets.store import find_file
from tinyflow.tools import demo
from tinyflow.tools.layout import WIDTH


def test_the_demo_on_digits(capsys):
    assert main(["demo", "--digits", "--steps", "200"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "digits: 1,437 images of 64 pixels to learn from, 360 to be judged by" in text
    accuracy = re.search(r"accuracy  (0\.\d+) on the digits test images", text)
    assert accuracy and float(accuracy[1]) >= 0.9
    assert "step   200 of 200, loss " in text
    found = re.search(r"200 runs made 200 native calls \(one per step\) of (\d) kernels\.", text)
    assert found and int(found[1]) <= 6
    assert re.search(r"dot_matmul_\w+ +:\d+ .*% (fma|memory)", text)


def test_wrong_number_of_steps(capsys):
    assert main(["demo", "--steps", "0"]) == 2
    assert "--steps must be 1 or more, got 0" in capsys.readouterr().err


def test_without_mnist_the_digits_are_taken_and_named(monkeypatch):
    def unavailable(**options):
        raise DatasetUnavailable("mnist: not on this machine")

    monkeypatch.setattr(tinyflow.datasets, "get_mnist", unavailable)
    images = demo.load_images()
    assert images.name == "digits" and images.features == 64
    assert images.remark.startswith("MNIST could not be had;")


def test_a_slow_download_is_not_waited_for(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(tinyflow.datasets, "get_mnist", lambda **options: release.wait(10))
    images = demo.load_images(patience_s=0.05)
    release.set()
    assert images.name == "digits" and "did not arrive within" in images.remark


def test_mnist_is_taken_when_it_is_there(monkeypatch):
    split = types.SimpleNamespace(images=np.zeros((2, 784), np.float32))
    splits = types.SimpleNamespace(train=split, test=split)
    monkeypatch.setattr(tinyflow.datasets, "get_mnist", lambda **options: splits)
    assert demo.load_images() == demo.Images("MNIST", splits, "")


def test_accuracy_on_mnist(capsys):
    if any(find_file(file.name, "mnist") is None for file in _FILES):
        pytest.skip("MNIST is not on this machine")
    assert demo.run_demo(demo.load_images()) >= 0.91
    assert "MNIST: 60,000 images of 784 pixels" in capsys.readouterr().out
