"""The cores of a worker."""

import os


def share(workers: int) -> int:
    """The number of cores of each worker, of the job's cores on this node.

    Args:
        workers: number of workers on the node.
    """
    allowed = len(os.sched_getaffinity(0))
    cores = min(allowed, int(os.environ.get("SLURM_CPUS_ON_NODE", os.cpu_count() or 1)))
    return max(1, cores // workers)


def note(workers: int) -> str | None:
    """A note that OMP_NUM_THREADS limits the workers; None if it is not set."""
    said = os.environ.get("OMP_NUM_THREADS")
    if not said:
        return None
    return (
        f"OMP_NUM_THREADS={said} of the shell that submitted: a worker computes on {said} of its "
        f"{share(workers)} cores"
    )
