import json

import pytest

from tinyflow.__main__ import main
from tinyflow.tools import doctor, self_test
from tinyflow.tools.layout import WIDTH


def test_the_whole_report(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= WIDTH
    for part in ("== versions", "llvmlite", ", LLVM ", "lanes of 4 bytes", "== kernel cache",
                 "fused multiply-add, float32", "triad, 1 MiB", "agrees with NumPy",
                 "from the cache", "digits", "== extras", "No problems found."):  # fmt: skip
        assert part in text, part


def test_one_section(capsys):
    assert main(["doctor", "--only", "versions"]) == 0
    text = capsys.readouterr().out
    assert text.count("\n== ") == 1 and "tinyflow" in text


def test_a_wrong_result_is_a_problem(monkeypatch, capsys):
    wrong = {"first_run_s": 0.1, "import_s": 0.1, "error": 0.25}
    monkeypatch.setattr(self_test, "cold_and_warm", lambda: (wrong, wrong))
    assert main(["doctor", "--only", "self-test"]) == 1
    assert "1 problem: differs from NumPy by 2.5e-01" in capsys.readouterr().out


def test_nan_is_a_problem(monkeypatch, capsys):
    wrong = {"first_run_s": 0.1, "import_s": 0.1, "error": float("nan")}
    monkeypatch.setattr(self_test, "cold_and_warm", lambda: (wrong, wrong))
    assert main(["doctor", "--only", "self-test"]) == 1


def test_a_crash_of_the_self_test_is_a_problem(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(self_test, "_PROGRAM", "raise SystemExit('no kernel today')")
    with pytest.raises(RuntimeError, match="no kernel today"):
        self_test.in_fresh_process(str(tmp_path))
    assert main(["doctor", "--only", "self-test"]) == 1
    assert "PROBLEM: no kernel today" in capsys.readouterr().out


def test_the_number_of_threads_names_its_reason(monkeypatch):
    monkeypatch.setenv("TINYFLOW_NUM_THREADS", "3")
    assert "TINYFLOW_NUM_THREADS=3" in doctor._threads()
    monkeypatch.delenv("TINYFLOW_NUM_THREADS")
    assert "TINYFLOW_NUM_THREADS changes it" in doctor._threads()


def test_the_self_test_agrees_with_numpy():
    found = self_test.run()
    assert found["error"] <= self_test.TOLERANCE
    json.dumps(found)
