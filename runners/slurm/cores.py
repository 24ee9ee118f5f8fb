"""How many cores a worker computes on."""

import os


def share(workers: int) -> int:
    """The cores of a worker, of those that the job has on this node.

    Args:
        workers: on the node.
    """
    allowed = len(os.sched_getaffinity(0))
    cores = min(allowed, int(os.environ.get("SLURM_CPUS_ON_NODE", os.cpu_count() or 1)))
    return max(1, cores // workers)


def note(workers: int) -> str | None:
    """What OMP_NUM_THREADS of the shell that submitted does to a worker; None where it is not set."""
    said = os.environ.get("OMP_NUM_THREADS")
    if not said:
        return None
    return (
        f"OMP_NUM_THREADS={said} of the shell that submitted: a worker computes on {said} of its "
        f"{share(workers)} cores"
    )
