"""The unit of work: a slice of the catalogue."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Snippet:
    """An ordered slice of the catalogue: what one part holds, and what a resumed run does or skips.

    Attributes:
        number: position in the catalogue, from 0.
        start, stop: the catalogue rows [start, stop) that it holds.
        only: offsets within the snippet to predict again, or None for the whole snippet.
        attempt: which added part holds the galaxies of `only` (0 for the whole snippet).
    """

    number: int
    start: int
    stop: int
    only: tuple[int, ...] | None = None
    attempt: int = 0

    @property
    def size(self) -> int:
        """Number of galaxies to predict."""
        return self.stop - self.start if self.only is None else len(self.only)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Offsets within the snippet of the galaxies to predict."""
        return tuple(range(self.stop - self.start)) if self.only is None else self.only
