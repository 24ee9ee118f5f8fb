"""A plan of galaxies that have no images, for benchmarks of everything else."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from beam_zoo.plan.plan import Plan


def write_plan(
    output: Path,
    checkpoint: Path,
    rows: int,
    members: Sequence[str],
    passes: int,
    *,
    first_pass: int = 0,
    shuffled: bool = False,
) -> "Plan":
    """Write the plan of an output.

    Args:
        output: its folder.
        checkpoint: of every member; their YAML files are written beside it.
        rows: number of galaxies.
        members: their names.
        passes: of each member.
        first_pass: number of the first.
        shuffled: whether the galaxies stand in another order.

    Returns:
        The plan.
    """
    from beam_zoo.members.member import read_member
    from beam_zoo.members.resolve import resolve
    from beam_zoo.plan import plan as plans
    from beam_zoo.plan import plan_file
    from beam_zoo.plan.planned_catalogue import PlannedCatalogue
    from beam_zoo.runtime.versions import versions
    from tests import checkpoints

    yamls = [checkpoints.member(checkpoint.with_name(f"{name}.yaml"), checkpoint) for name in members]
    resolved = tuple(resolve(read_member(str(y)), None, str(output), represent=False)[0] for y in yamls)
    order = np.random.default_rng(1).permutation(rows) if shuffled else np.arange(rows)
    ids = pa.array([f"galaxy-{number:09d}" for number in order])
    catalogue = PlannedCatalogue("none", (), None, None, str(shuffled))
    made = plans.Plan(
        command="predict",
        rows=rows,
        catalogue=catalogue,
        image_root="/",
        snippet_size=1000,
        members=resolved,
        first_pass=first_pass,
        passes=passes,
        seed=0,
        precision="fp32",
        carried=(),
        carried_digest="",
        versions=versions(),
    )
    plan_file.write(
        made, str(output), iter([pa.RecordBatch.from_arrays([ids, ids], ["id_str", "file_loc"])]), {}
    )
    return made
