"""Gathered frames become arrays of samples: which (member, pass) each is, and what a galaxy lacks.

A layout says which members and passes the samples of one source are. A run has one layout; an aggregate of several
runs has one a run, and a galaxy's samples are the union of what its layouts hold.
"""

import dataclasses
import functools

import numpy as np

from beam_zoo.errors import UserError
from beam_zoo.images.failure import Failure
from beam_zoo.plan.plan import Plan
from beam_zoo.samples import ensemble

REFUSE, DROP, KEEP = "refuse", "drop", "keep"
STAGE = "aggregate"
# The same pass of the same member is predicted to float noise only where batches were cut in another way.
RELATIVE, ABSOLUTE = 1e-4, 1e-6


@dataclasses.dataclass(frozen=True)
class Layouts:
    """Which samples a complete galaxy has, and which of them each layout holds.

    Attributes:
        samples: (member, pass) of all, in the order in which statistics take them.
        slots: per layout, the place among `samples` of each of its own.
        outputs: number of answers, classes or values of a sample.
        sources: per layout, how an error line calls it.
        incomplete: what becomes of a galaxy that lacks samples and failed nowhere: `refuse`, `drop` or `keep`.
    """

    samples: tuple[tuple[str, int], ...]
    slots: tuple[tuple[int, ...], ...]
    outputs: int
    sources: tuple[str, ...] = ("the stored parts",)
    incomplete: str = REFUSE

    @classmethod
    def of(cls, plan: Plan) -> "Layouts":
        """The one layout of a run."""
        if plan.command == "represent":
            return cls((), ((),), 0)
        samples = tuple((member.name, number) for member in plan.members for number in plan.pass_numbers)
        return cls(samples, (tuple(range(len(samples))),), len(plan.outputs))

    def present(self, layouts: tuple[int, ...]) -> tuple[int, ...]:
        """The places among `samples` that these layouts hold together."""
        return tuple(sorted({slot for layout in layouts for slot in self.slots[layout]}))

    def lacking(self, layouts: tuple[int, ...]) -> str:
        """What these layouts lack together, for example `b passes 0-4, c pass 7`; empty if nothing."""
        held = set(self.present(layouts))
        by_member: dict[str, list[int]] = {}
        for slot, (member, number) in enumerate(self.samples):
            if slot not in held:
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


@dataclasses.dataclass(frozen=True)
class Galaxies:
    """Predicted galaxies that have the same samples.

    Attributes:
        rows: rows of the tables, int64, shape (galaxy,).
        ids: their ids.
        present: the places among `Layouts.samples` of what they have.
        samples: float32, shape (galaxy, sample, output).
    """

    rows: np.ndarray
    ids: list[str]
    present: tuple[int, ...]
    samples: np.ndarray


class Assembler:
    """Takes galaxies one by one and gives them back many at once, those with the same samples together.

    Args:
        layouts: the layouts of the frames.

    Attributes:
        failures: (row, id, failure) of the galaxies so far that have no prediction.
        waiting: number of galaxies that the next `take` gives.
    """

    def __init__(self, layouts: Layouts) -> None:
        self.failures: list[tuple[int, str, Failure]] = []
        self.waiting = 0
        self._layouts = layouts
        self._lacking = functools.cache(layouts.lacking)
        # By the layouts that galaxies have samples of: their ids, and the frames of those samples.
        self._waiting: dict[tuple[int, ...], tuple[list[bytes], list[bytes]]] = {}

    def add(self, name: bytes, frames: bytes) -> None:
        """Take a galaxy.

        Args:
            name: its id.
            frames: all of its frames, as `Ensemble` orders them.

        Raises:
            UserError: it has two different sets of samples in one source, or lacks some and that is refused.
        """
        length, kind, layout, row = ensemble.header(frames)
        layouts: tuple[int, ...] = (layout,)
        samples, failure = frames, None
        if length != len(frames) or kind != ensemble.SAMPLES:
            layouts, samples, failure = self._several(name, frames)
        lacking = self._lacking(layouts)
        if layouts and (not lacking or self._layouts.incomplete == KEEP):
            if layouts not in self._waiting:
                self._waiting[layouts] = [], []
            ids, waiting = self._waiting[layouts]
            ids.append(name)
            waiting.append(samples)
            self.waiting += 1
            return
        self.failures.append((row, name.decode(), failure or self._incomplete(name, lacking)))

    def _several(self, name: bytes, frames: bytes) -> tuple[tuple[int, ...], bytes, Failure | None]:
        """The layouts of a galaxy's samples, the frames of those alone, and its first failure."""
        failure: Failure | None = None
        samples: dict[int, bytes] = {}
        for frame in ensemble.split(frames):
            _, kind, layout, _ = ensemble.header(frame)
            if kind == ensemble.FAILURE:
                failure = failure or ensemble.read_failure(frame)
            elif layout in samples:
                where = self._layouts.sources[layout]
                raise UserError(f"galaxy {name.decode()!r} has two different sets of samples in {where}")
            else:
                samples[layout] = frame
        return tuple(samples), b"".join(samples.values()), failure

    def _incomplete(self, name: bytes, lacking: str) -> Failure:
        if self._layouts.incomplete != DROP:
            raise UserError(f"galaxy {name.decode()!r} lacks samples: {lacking}")
        return Failure(0, STAGE, f"no samples of {lacking}", False)

    def take(self) -> list[Galaxies]:
        """All that was taken since the last call.

        Raises:
            UserError: two layouts hold different values of one sample.
        """
        done = [self._assemble(layouts, *galaxies) for layouts, galaxies in sorted(self._waiting.items())]
        self._waiting, self.waiting = {}, 0
        return done

    def _assemble(self, layouts: tuple[int, ...], names: list[bytes], frames: list[bytes]) -> Galaxies:
        ids, outputs = [name.decode() for name in names], self._layouts.outputs
        counts = [len(self._layouts.slots[layout]) for layout in layouts]
        rows, flat = ensemble.stack(frames, [count * outputs for count in counts])
        arrays = [
            values.reshape(len(ids), count, outputs) for count, values in zip(counts, flat, strict=True)
        ]
        return Galaxies(rows, ids, self._layouts.present(layouts), self._union(layouts, ids, arrays))

    def _union(self, layouts: tuple[int, ...], ids: list[str], arrays: list[np.ndarray]) -> np.ndarray:
        """The samples of all layouts in their order, each once."""
        samples = self._layouts.samples
        if len(layouts) == 1 and self._layouts.slots[layouts[0]] == self._layouts.present(layouts):
            return arrays[0]  # in order already
        union = np.zeros((len(ids), len(samples), self._layouts.outputs), np.float32)
        source = np.full(len(samples), -1)
        for layout, values in zip(layouts, arrays, strict=True):
            slots = np.array(self._layouts.slots[layout], np.int64)
            again = source[slots] >= 0
            both = union[:, slots[again]], values[:, again]
            equal = np.isclose(*both, rtol=RELATIVE, atol=ABSOLUTE).all(-1)
            if not equal.all():
                galaxy, which = np.argwhere(~equal)[0]
                slot = slots[again][which]
                member, number = samples[slot]
                names = self._layouts.sources
                raise UserError(
                    f"galaxy {ids[galaxy]!r}, member {member}, pass {number} has different values in "
                    f"{names[source[slot]]} and {names[layout]}: leave one of them out"
                )
            union[:, slots[~again]] = values[:, ~again]
            source[slots[~again]] = layout
        return union[:, source >= 0]
