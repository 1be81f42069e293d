"""The workloads: TinyFlow computes what the rivals computed, and the definitions are the known
networks.

references.json holds the values of the tiny cases; `python -m benchmarks.references` renews it.
"""

import json

import pytest

from benchmarks import networks, references, run
from benchmarks.workloads import (
    alexnet,
    convolution,
    googlenet,
    lenet,
    lstm,
    matmul,
    mlp,
    overfeat,
    resnet20,
    softmax_regression,
    transformer,
    vgg,
)
from benchmarks.workloads.layers import Tally

REFERENCES = json.loads(references.PATH.read_text())
TINY = {key: (module, case) for key, module, case in references.tiny_cases()}


def test_every_workload_has_a_reference():
    assert set(TINY) == set(REFERENCES)
    assert {key.partition("_unrolled")[0] for key in TINY} == set(run.STEPPED)
    assert all(len(reference["by"]) >= 2 for reference in REFERENCES.values())


@pytest.mark.parametrize("key", TINY)
def test_tinyflow_agrees_with_the_rivals(key):
    module, case = TINY[key]
    prepared, _ = module.CONTESTANTS["tinyflow"](case)
    assert prepared.check() == pytest.approx(REFERENCES[key]["values"], rel=2e-5, abs=1e-6)


def tally(module, **changes):
    (case,) = module.CASES.values()
    counted = Tally()
    case = {**case, **changes}
    module.network(counted, (case["batch"], *case["image"]), case)
    return counted


def parameters(module):
    made = 0
    for shape, _ in tally(module).shapes.values():
        size = 1
        for extent in shape:
            size *= extent
        made += size
    return made


@pytest.mark.parametrize(
    ("module", "count"),
    [
        (mlp, 784 * 512 + 512 + 512 * 256 + 256 + 256 * 10 + 10),
        (lenet, 3_274_634),  # TensorFlow's MNIST tutorial
        (alexnet, 61_100_840),
        (vgg, 132_863_336),
    ],
)
def test_known_numbers_of_parameters(module, count):
    assert parameters(module) == count


def test_other_networks_have_the_size_of_their_papers():
    assert parameters(resnet20) == pytest.approx(0.27e6, rel=0.03)
    assert parameters(overfeat) == pytest.approx(145e6, rel=0.01)
    assert parameters(googlenet) == pytest.approx(7e6, rel=0.01)


def test_arithmetic_of_known_networks():
    """Multiply-adds of one image: 7.6e9 for VGG-A; a step is three times that but for the images'
    own gradient."""
    counted = tally(vgg, batch=1)
    assert counted.forward == pytest.approx(2 * 7.609e9, rel=0.001)
    first_layer = 2 * 224 * 224 * 64 * 27
    assert counted.backward == 2 * counted.forward - first_layer


def test_work_of_one_training_step():
    (case,) = mlp.CASES.values()
    forward = 2 * 128 * (784 * 512 + 512 * 256 + 256 * 10)
    assert mlp.work(case).flops == 3 * forward - 2 * 128 * 784 * 512
    weights = 4 * parameters(mlp)
    assert mlp.work(case).size_bytes == 7 * weights + 128 * 784 * 4 + 128 * 4
    assert lstm.work(lstm.CASES["while"]) == lstm.work(lstm.CASES["unrolled"])
    assert lstm.work(lstm.CASES["while"]).flops == pytest.approx(6.64e9, rel=0.01)
    assert transformer.work(transformer.CASES["4 layers"]).flops == pytest.approx(20e9, rel=0.05)
    assert matmul.work({"m": 2, "k": 3, "n": 5}) == (60, 4 * (6 + 15 + 10))
    (case,) = softmax_regression.CASES.values()
    assert softmax_regression.work(case).flops == 4 * 100 * 784 * 10


def test_three_passes_of_a_convolution_do_the_same_work():
    names = list(convolution.CASES)
    assert len(names) == 30
    for start in range(0, 30, 3):
        works = {convolution.work(convolution.CASES[name]) for name in names[start : start + 3]}
        assert len(works) == 1


def test_arrays_are_the_same_for_everybody(tmp_path, monkeypatch):
    from benchmarks import arrays

    program = networks.training(mlp.network, optimizer="sgd", rate=1.0)
    made = program.load(mlp.TINY)
    monkeypatch.setenv(arrays.FOLDER, str(tmp_path))
    for _ in range(2):  # written, then read
        again = program.load(mlp.TINY)
        assert list(again) == ["weights", "batch", "constants"]
        for part, named in made.items():
            assert list(again[part]) == list(named)
            for name, array in named.items():
                assert (again[part][name] == array).all()
                assert again[part][name].dtype == array.dtype
