"""The audit of a run's output: its plan's rows, and table part by table part what its stored parts make of them."""

import os

import numpy as np

from beam_zoo.audit.audit import Findings, PlanRows, TablePart
from beam_zoo.audit.parts import PartChecks
from beam_zoo.audit.plan import check_rows
from beam_zoo.audit.tables import Gathered, Summaries, TableChecks
from beam_zoo.catalogue.read import ID
from beam_zoo.errors import one_line
from beam_zoo.images.failure import Failure
from beam_zoo.plan.plan import Plan
from beam_zoo.tables.tables import Statistics


class RunChecks:
    """Checks of a run, one element after the other, snippet by snippet: memory is that of a part and its tables.

    Args:
        plan: the plan of the run.
        output: its folder.
        tables: whether its tables are checked too, or only what is stored.
    """

    def __init__(self, plan: Plan, output: str, tables: bool = True) -> None:
        self._plan, self._output, self._check_tables = plan, output, tables
        self._statistics = Statistics(plan)
        self._tables = TableChecks(plan, output, self._statistics)

    def check(self, element: PlanRows | TablePart, findings: Findings) -> dict[str, int]:
        """Check the plan's rows, or a table part and the parts that it is made of; returns counts."""
        if isinstance(element, PlanRows):
            check_rows(self._plan, self._output, findings)
            return {}
        counts: dict[str, int] = {}
        gathered = self._gather(element, findings, counts)
        if gathered is not None and self._check_tables:
            counts["table files"] = self._tables.check(element, gathered, findings)
        return counts

    def _gather(self, task: TablePart, findings: Findings, counts: dict[str, int]) -> Gathered | None:
        """Read and check the stored parts."""
        plan = self._plan
        try:
            rows = plan.read_table_rows(self._output, task.number)
            if rows.num_rows != len(plan.table_rows(task.number)):
                raise ValueError(f"they are {rows.num_rows:,}")
        except Exception as error:
            text = one_line(error, 300).replace(self._output + os.sep, "")
            findings.add(task.what, f"cannot be checked: its rows of _plan ({text})")
            return None
        checks = PartChecks(plan, self._output, task, rows, findings)
        ids = rows.column(ID).to_pylist()
        predicted: list[np.ndarray] = []
        failures: dict[int, list[Failure]] = {}
        unknown: set[str] = set()
        summaries = Summaries(plan, self._statistics)
        start = plan.table_rows(task.number).start
        first = task.number * plan.snippets_per_table
        for number in range(first, min(plan.snippets, first + plan.snippets_per_table)):
            snippet = plan.snippet(number)
            found, samples = checks.snippet(snippet)
            begin = snippet.start - start
            if not found.complete:
                unknown |= set(ids[begin : begin + len(snippet.offsets)])
            else:  # else a part that cannot be read may have the galaxy
                failures |= {begin + o: them for o, them in found.failures.items() if o not in found.where}
            for member, lengths in found.lengths.items():
                for length in lengths:
                    counts[f"features\t{member}\t{length}"] = 1
            if plan.command != "predict":
                predicted.append(np.array(sorted(found.where), np.int64) + begin)
                continue
            offsets = np.concatenate([np.zeros(0, np.int64), *(some for some, _ in samples)])
            order = np.argsort(offsets, kind="stable")
            predicted.append(offsets[order] + begin)
            if samples and self._check_tables:
                summaries.add(np.concatenate([values for _, values in samples])[order])
        gathered = Gathered(
            rows,
            ids,
            np.concatenate(predicted),
            dict(sorted(failures.items())),
            unknown,
            *summaries.numbers(),
        )
        counts |= {
            "rows": rows.num_rows,
            "predicted": len(gathered.predicted),
            "failed": len(failures),
            "part files": checks.files,
            "part rows": checks.samples,
        }
        return gathered
