"""Results kept as JSON, tables in pages, the plot."""

import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks import pages, plot, report
from benchmarks.harness import Contest, Timing
from benchmarks.results import Entry, Results
from benchmarks.work import Work


def contest(case_name="one", mine=1e-3, rival=2e-3, title="toy: one training step"):
    timings = [
        Timing("tinyflow", "0.1", [mine], [1.0], cold_seconds=0.5),
        Timing("torch eager", "2.0", [rival], [1.0], memory_bytes=5),
        Timing("jax.jit", trouble="absent"),
    ]
    return Contest(title, case_name, {"size": 1}, "ms", timings)


@pytest.fixture
def results():
    return Results(
        "a machine",
        (1e9, 1e9),
        [
            Entry("toy", contest(), Work(500_000, 10)),
            Entry("many", contest("a", title="many"), None),
            Entry("many", contest("b", mine=8e-3, title="many"), None),
            Entry("two", contest("slow", title="two"), Work(1, 10)),
            Entry("two", contest("fast", title="two"), Work(1, 10)),
        ],
    )


def test_results_survive_a_file(results, tmp_path):
    path = tmp_path / "results.json"
    assert Results.read(path) == Results()
    results.save(path)
    assert Results.read(path) == results


def test_measuring_again_replaces_one_workload(results):
    new = [Entry("toy", contest("new"), None)]
    results.replace("toy", new)
    results.replace("last", [Entry("last", contest(), None)])
    assert [entry.workload for entry in results.entries] == [
        "toy",
        "many",
        "many",
        "two",
        "two",
        "last",
    ]
    assert results.of("toy") == new


def test_sections_are_renewed_and_words_stay(results, tmp_path):
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "performance.md"
    page.write_text(
        "before\n<!-- bench:toy -->\nMedians.\n\n| old |\n| --- |\n\nbehind\n<!-- /bench -->\n"
        "<!-- bench:many -->\n<!-- /bench -->\n<!-- bench:unknown -->\n| kept |\n<!-- /bench -->\n"
        "<!-- bench:two -->\n<!-- /bench -->\n<!-- bench:training summary -->\n<!-- /bench -->\n"
    )
    readme = tmp_path / "README.md"
    readme.write_text("<!-- bench:plot -->\n<!-- /bench -->\n")
    written = pages.write_pages(results, tmp_path)
    picture = tmp_path / "docs" / "performance.svg"
    assert written == [picture, readme, page]
    assert "](docs/performance.svg)\n<!-- /bench -->" in readme.read_text()
    text = page.read_text()
    assert "| old |" not in text
    assert "Medians.\n\n| contestant | median ms" in text
    assert "\n\nbehind\n<!-- /bench -->" in text
    assert "| kept |" in text
    assert text.index("| slow | median ms") < text.index("| fast | median ms")
    assert "| a | **1.00** | 2.00 | - |" in text
    assert "| b | 8.00 | **2.00** | - |" in text
    assert "| toy: one | 1.00 ms | torch eager | 2.00 ms | 2.00x | 50% |" in text
    assert pages.write_pages(results, tmp_path) == [picture]
    assert page.read_text() == text


def test_one_that_disagrees_is_no_rival():
    found = contest(rival=1e-4)
    found.timings[1].trouble = "disagrees"
    assert report.best_rival(found) is None
    assert report.speedup(found) != report.speedup(found)  # nan
    found.timings[1].trouble = ""
    assert report.speedup(found) == pytest.approx(0.1)


def test_plot_is_xml_with_a_bar_per_contestant(results):
    drawing = plot.speedups([(entry.workload, entry.contest) for entry in results.entries])
    root = ElementTree.fromstring(drawing)
    titles = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
    usual = ["tinyflow 1.00x", "torch eager 2.00x"]
    assert titles == usual * 2 + ["tinyflow 1.00x", "torch eager 0.25x"] + usual * 2
    assert plot.speedups([]) == ""
