"""Why a galaxy has no prediction."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Failure:
    """A galaxy that has no prediction, and why.

    Attributes:
        offset: its row within the snippet.
        stage: the step that failed: `image`, `view` or `inference`.
        error: the reason, on one line.
        may_pass: whether the same command may succeed later (a missing or unreadable file).
    """

    offset: int
    stage: str
    error: str
    may_pass: bool
