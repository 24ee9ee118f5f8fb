"""Retryable failures: the same command predicts their galaxies again."""

import dataclasses
import os
from collections.abc import Iterator

from beam_zoo.plan.plan import Plan
from beam_zoo.plan.snippet import Snippet
from beam_zoo.samples import parts
from beam_zoo.samples.records import PartRef
from beam_zoo.storage import files, layout


def to_retry(plan: Plan, output: str, stored: dict[int, list[PartRef]]) -> Iterator[Snippet]:
    """Snippets with retryable failures, each with the galaxies of those failures only.

    Args:
        plan: the plan of the run.
        output: folder of the output.
        stored: snippet number -> its parts.
    """
    folder = os.path.join(output, layout.RETRY)
    for name in files.names(folder):
        refs = stored.get(int(name)) if name.isdecimal() else None
        if not refs:
            continue
        read = [parts.read_part(plan, output, parts.folders(plan)[0], ref) for ref in refs]
        # Of a galaxy that failed twice, the last failure says whether it is retryable.
        last = {failure.offset: failure for part in read for failure in part.failures}
        waiting = {offset for offset, failure in last.items() if failure.may_pass}
        waiting -= {int(offset) for part in read for offset in part.offsets}
        if waiting:
            attempt = layout.attempt_of(refs[-1].name) + 1
            yield dataclasses.replace(plan.snippet(int(name)), only=tuple(sorted(waiting)), attempt=attempt)
        else:
            files.remove(os.path.join(folder, name))
