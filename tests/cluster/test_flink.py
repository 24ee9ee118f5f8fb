"""Predictions on Flink inside a Slurm allocation of two nodes."""

import numpy as np
import pandas as pd

from tests.cluster.compare import assert_same
from tests.cluster.conftest import RUN

SPREAD = '--sdk_harness_log_level_overrides={"beam_zoo":"INFO"}'


def test_like_the_local_runner(submit, direct_run, slurm_command):
    """The same tables; each of two TaskManagers does its share; nothing is left; status and logs say so."""
    job = submit(["--nodes", 2], *RUN, SPREAD)
    assert job.wait() == "COMPLETED", job.log()
    assert_same(direct_run, job.output)
    assert job.manifest()["rows_predicted"] == len(pd.read_parquet(direct_run / "friendly"))

    # Each step of the graph has a Python process of its own; those of the first store samples.
    stored = [log.read_text().count("is stored") for log in job.folder.glob("worker-*.log")]
    stored = [count for count in stored if count]
    shares = [count / sum(stored) for count in stored]
    assert sum(stored) == len(job.parts()) and len(stored) == 2
    assert all(0.4 <= share <= 0.6 for share in shares), stored

    job.assert_nothing_left()
    code, out, _ = slurm_command("status", job.id)
    rows = job.manifest()["rows_in"]
    assert code == 0
    assert f"job {job.id} (flink): COMPLETED, exit code 0:0" in out
    assert f"galaxies: {rows} of {rows} stored" in out and "tables: complete" in out
    code, out, _ = slurm_command("logs", job.id)
    assert code == 0 and f"{rows} of {rows} galaxies predicted" in out
    assert f"more: {job.folder / 'jobmanager.log'}" in out


def test_represent(submit, represent, catalogue, trees):
    """The encoder's features go the same way."""
    job = submit(["--nodes", 2, "--command", "represent"], "--snippet_size", 8, models=trees[:1])
    assert job.wait() == "COMPLETED", job.log()
    direct = represent(catalogue, trees[:1], "--snippet_size", 8)
    name = f"representations/{trees[0].stem}"
    theirs, ours = direct.table(name), pd.read_parquet(job.output / name)
    assert list(theirs.id_str) == list(ours.id_str)
    # Features are around 0.1, and some are nearly 0.
    np.testing.assert_allclose(np.stack(ours.feature), np.stack(theirs.feature), rtol=1e-4, atol=1e-5)
