"""The ensemble: which samples, one for each (member, pass), a complete galaxy has, and which each run holds.

A run holds all samples of its own ensemble. An aggregate of several runs has the union of their samples.
"""

import dataclasses

from beam_zoo.plan.plan import Plan

REFUSE, DROP, KEEP = "refuse", "drop", "keep"


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """The samples of complete galaxies, and the runs that they come from.

    Attributes:
        samples: (member, pass) of all samples, in the order in which the statistics take them.
        by_source: for each run, the indices in `samples` of the samples that it holds, in its own order.
        outputs: number of answers, classes or values of a sample.
        source_names: for each run, its name in error messages.
        incomplete: `refuse`, `drop` or `keep` galaxies that lack samples and failed in no run.
    """

    samples: tuple[tuple[str, int], ...]
    by_source: tuple[tuple[int, ...], ...]
    outputs: int
    source_names: tuple[str, ...] = ("the stored parts",)
    incomplete: str = REFUSE

    @classmethod
    def of(cls, plan: Plan) -> "Ensemble":
        """The ensemble of a single run."""
        if plan.command == "represent":
            return cls((), ((),), 0)
        samples = tuple((member.name, number) for member in plan.members for number in plan.pass_numbers)
        return cls(samples, (tuple(range(len(samples))),), len(plan.outputs))

    def held(self, sources: tuple[int, ...]) -> tuple[int, ...]:
        """The indices of the samples that these runs hold together, ascending."""
        return tuple(sorted({index for source in sources for index in self.by_source[source]}))

    def missing(self, sources: tuple[int, ...]) -> str:
        """The samples that these runs do not hold, for example `b passes 0-4, c pass 7`; may be empty."""
        held = set(self.held(sources))
        by_member: dict[str, list[int]] = {}
        for index, (member, number) in enumerate(self.samples):
            if index not in held:
                by_member.setdefault(member, []).append(number)
        return ", ".join(f"{member} {passes_text(numbers)}" for member, numbers in by_member.items())


def passes_text(numbers: list[int]) -> str:
    """Numbers of passes in words: `pass 3` or `passes 0-2 5`."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    text = " ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
    return f"{'pass' if len(numbers) == 1 else 'passes'} {text}"
