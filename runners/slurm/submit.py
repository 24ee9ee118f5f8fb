"""Plan on the login node, write the batch script, hand it to Slurm."""

import contextlib
import dataclasses
import os
import re
import sys
import time
import uuid
from pathlib import Path

from beam_zoo.errors import UserError, one_line
from beam_zoo.files import is_remote, publish
from pipelines import prepare as preparation
from pipelines.describe import describe
from pipelines.options import OPTIONS, Options, models_of
from runners.flink import install, jvm
from runners.slurm import jobs, layout, script
from runners.slurm.nodes import ask, ask_slurm
from runners.slurm.options import ARRAY, FLINK, Submission

ENVIRONMENT = ("JAVA_HOME",)
"""Variables of the login node that stand in the script; sbatch hands on all others by itself."""


def submit(wanted: Submission) -> int:
    """All checks and the plan, then the job.

    Returns:
        0.

    Raises:
        UserError: something is wrong that the user can put right; then nothing is written or submitted.
    """
    options = wanted.options
    if is_remote(options.output or ""):
        raise UserError(
            f"output {options.output}: scripts and logs of a job of Slurm lie there, so that it must be a folder"
        )
    if wanted.engine == FLINK:
        root = install.check(str(wanted.flink["flink"]))
        wanted = dataclasses.replace(wanted, flink={**wanted.flink, "flink": str(root)})
        if jvm.version() not in jvm.VERSIONS:
            print(f"note: {jvm.NEEDED} (on the nodes; there is none here)", file=sys.stderr)
    # Only a worker can know its device: the plan is made as for a cluster, whatever the engine.
    there = Options(options.values, options.origins, [*options.beam, "--runner=FlinkRunner"])
    prepared = preparation.prepare(wanted.command, there)
    output, plan = prepared.run.output, prepared.run.plan
    _refuse_paths(wanted.engine, [output, os.getcwd(), sys.executable, str(wanted.flink.get("flink", ""))])
    missing = [number for number in range(plan.snippets) if number not in prepared.stored]
    texts = _scripts(wanted, output, missing, plan.snippets)
    if wanted.print_only:
        print("\n".join(texts), end="")
        return 0
    if running := jobs.not_ended(output):
        if options.overwrite:
            raise UserError(f"--overwrite: job {running[0]} on {output} has not ended: cancel it first")
        print(f"note: job {running[0]} works on {output} too: they share the work", file=sys.stderr)
    print(describe(prepared, options), file=sys.stderr)
    jobs.remove_old_keys(output, running)
    record = _hand_in(wanted, output, texts)
    try:
        preparation.publish(prepared, overwrite=options.overwrite)
        record.write()
    except BaseException:
        jobs.cancel(record)
        raise
    if "hold" not in wanted.directives:
        _release(record)
    print(f"job {record.job} ({record.engine}): {record.log}")
    if record.finish:
        print(f"job {record.finish} then builds the tables: {record.finish_log}")
    print(f"script: {record.script}")
    print(f"python -m runners.slurm status {record.job} says how far it is")
    return 0


def _release(record: layout.Record) -> None:
    """Let the job begin; what Slurm says against it, it will go on saying in `status`."""
    done = ask_slurm("scontrol", "release", record.job)
    if done.returncode and jobs.is_held(record.job):
        jobs.cancel(record)
        raise UserError(f"Slurm does not release the job, it is cancelled: {one_line(done.stderr)}")
    if done.returncode:
        print(f"note: Slurm says: {one_line(done.stderr)}", file=sys.stderr)


def _refuse_paths(engine: str, paths: list[str]) -> None:
    """What a batch script, or a class path, cannot hold."""
    for path in paths:
        if found := re.search(r"[\\\r\n]", path):
            raise UserError(f"{path!r}: sbatch takes no path with {found[0]!r}; choose another folder")
        if engine == FLINK and ":" in path:
            raise UserError(
                f"{path}: on a class path of Java a colon separates folders; choose another folder"
            )


def _scripts(wanted: Submission, output: str, missing: list[int], count: int) -> list[str]:
    """The job's script; for an array also that of the job after it."""
    batch = script.Batch(
        command=wanted.command,
        output=output,
        logs=str(layout.folder(output)),
        python=sys.executable,
        working_folder=os.getcwd(),
        environment={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        directives=wanted.directives,
        options=words_of(wanted.options),
    )
    if wanted.engine == FLINK:
        nodes = {"nodes": wanted.nodes, "gpus_per_node": wanted.gpus_per_node}
        return [script.flink(batch, **nodes, shared_nodes=wanted.shared_nodes, settings=wanted.flink)]
    gpus = 1 if wanted.gpus_per_node else 0
    # Several tasks share a node that has several GPUs. A task, which is one process, listens on no port.
    whole = not wanted.shared_nodes and wanted.gpus_per_node <= 1
    ranges = split_evenly(missing or list(range(count)), wanted.tasks, count)
    later = {
        name: value
        for name, value in wanted.directives.items()
        if name not in ("dependency", "begin", "hold")
    }
    fraction = wanted.options.max_failure_fraction
    return [
        script.array(batch, ranges=ranges, whole_nodes=whole, gpus_per_task=gpus),
        script.finish(dataclasses.replace(batch, directives=later), max_failure_fraction=fraction),
    ]


def words_of(options: Options) -> list[str]:
    """The options that are not the default, with absolute paths; without those that act once, at submission."""
    words = []
    for option in OPTIONS:
        value = options.values[option.name]
        if value == option.default or option.name == "overwrite":
            continue
        if option.kind == "flag":
            words.append(f"--{option.name}")
            continue
        values = models_of(value) if option.name == "models" else value if option.many else [value]
        for each in values:
            if option.kind == "path" and "://" not in each:
                each = os.path.abspath(os.path.expanduser(each))
            words.append(f"--{option.name}={each}")
    return words + options.beam


def split_evenly(snippets: list[int], tasks: int, count: int) -> list[str]:
    """Ranges `A:B` that together are all snippets, each with as many that are to do.

    Args:
        snippets: numbers of those to do, ascending, at least one.
        tasks: how many ranges at most.
        count: of all snippets.
    """
    tasks = min(tasks, len(snippets))
    begins = [0, *(snippets[len(snippets) * task // tasks] for task in range(1, tasks)), count]
    return [f"{begins[task]}:{begins[task + 1]}" for task in range(tasks)]


def _hand_in(wanted: Submission, output: str, texts: list[str]) -> layout.Record:
    """Have Slurm take the job, held: nothing has been written yet that a refusal would leave behind."""
    folder, begin = layout.folder(output), time.time()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(begin)) + f"-{uuid.uuid4().hex[:8]}"
    files = [folder / f"{name}-{stamp}.sh" for name in (wanted.engine, "finish")[: len(texts)]]
    new = [path for path in (folder, folder.parent) if not path.exists()]
    jobs_so_far: list[str] = []
    try:
        for file, text in zip(files, texts, strict=True):
            publish(str(file), text.encode())
        jobs_so_far.append(_sbatch("--hold", files[0]))
        if len(files) > 1:
            jobs_so_far.append(_sbatch(f"--dependency=afterany:{jobs_so_far[0]}", files[1]))
    except BaseException:
        for job in jobs_so_far:
            ask("scancel", job)
        for file in files:
            file.unlink(missing_ok=True)
        for path in new:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    job, finish = jobs_so_far[0], (jobs_so_far[1] if len(jobs_so_far) > 1 else None)
    log = str(folder / (f"{job}_%a.log" if wanted.engine == ARRAY else f"{job}.log"))
    finish_log = None if finish is None else str(folder / f"{finish}.log")
    return layout.Record(job, wanted.engine, output, log, str(files[0]), begin, finish, finish_log)


def _sbatch(option: str, file: Path) -> str:
    try:
        return ask("sbatch", "--parsable", option, str(file)).strip().partition(";")[0]
    except UserError as error:
        said = re.sub(r"sbatch: (error: )?|Batch job submission failed: ", "", str(error))
        raise UserError(f"Slurm refuses the job: {said}") from None
