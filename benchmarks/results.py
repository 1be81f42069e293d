"""What was measured, kept as JSON, so that one workload can be measured again and all tables stay.

Main types: Results. May import: benchmarks.harness, benchmarks.report, benchmarks.work.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import Contest, Timing
from benchmarks.report import Peaks
from benchmarks.work import Work


@dataclass
class Entry:
    """A contest of the workload of that name, and what a step of it has to do."""

    workload: str
    contest: Contest
    work: Work | None


@dataclass
class Results:
    """machine: one line. peaks: operations and bytes per second. entries: as they were measured."""

    machine: str = ""
    peaks: Peaks | None = None
    entries: list[Entry] = field(default_factory=list)

    def of(self, workload: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.workload == workload]

    def replace(self, workload: str, entries: list[Entry]) -> None:
        """These are the workload's entries now; it keeps its place."""
        places = [at for at, entry in enumerate(self.entries) if entry.workload == workload]
        start = places[0] if places else len(self.entries)
        others = [entry for entry in self.entries if entry.workload != workload]
        self.entries = others[:start] + entries + others[start:]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        """What `save` wrote; nothing, where there is no such file."""
        if not path.exists():
            return cls()
        stored = json.loads(path.read_text())
        entries = []
        for each in stored["entries"]:
            timings = [Timing(**timing) for timing in each["contest"].pop("timings")]
            work = Work(*each["work"]) if each["work"] else None
            entries.append(
                Entry(each["workload"], Contest(timings=timings, **each["contest"]), work)
            )
        peaks = tuple(stored["peaks"]) if stored["peaks"] else None
        return cls(stored["machine"], peaks, entries)
