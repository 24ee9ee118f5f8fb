"""Plan on the login node, write the batch script and submit it."""

import contextlib
import dataclasses
import os
import re
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from beam_zoo.errors import UserError, one_line
from beam_zoo.storage.files import is_remote, publish
from pipelines import prepare as preparation
from pipelines.describe import describe
from pipelines.options import OPTIONS, Options, models_of
from runners.flink import install, jvm
from runners.slurm import jobs, records, script
from runners.slurm.commands import output_of, run_slurm
from runners.slurm.options import ARRAY, FLINK, Submission

ENVIRONMENT = ("JAVA_HOME", "PYTHONPATH")
"""Variables of the login node that the script sets; sbatch passes all others."""


def submit(wanted: Submission) -> int:
    """Check and plan, then submit the job.

    Returns:
        0.

    Raises:
        UserError: a check failed, or Slurm refuses the job; then nothing is written or submitted.
    """
    options = wanted.options
    if ignored := sorted(name for name in os.environ if name.startswith("SBATCH_")):
        print(
            f"note: {', '.join(ignored)} of your shell: no effect here, give the options themselves",
            file=sys.stderr,
        )
    if is_remote(options.work.output or ""):
        raise UserError(
            f"output {options.work.output}: scripts and logs of a job of Slurm lie there, "
            "so that it must be a folder"
        )
    if wanted.engine == FLINK:
        root = install.check(str(wanted.flink["flink"]))
        wanted = dataclasses.replace(wanted, flink={**wanted.flink, "flink": str(root)})
        if jvm.version() not in jvm.VERSIONS:
            print(f"note: {jvm.NEEDED} (on the nodes; there is none here)", file=sys.stderr)
    # Planned as for a cluster with either engine: the login node's device does not matter.
    on_cluster = dataclasses.replace(options, beam=[*options.beam, "--runner=FlinkRunner"])
    prepared = preparation.prepare(wanted.command, on_cluster)
    output, plan = prepared.run.output, prepared.run.plan
    _refuse_paths(wanted.engine, [output, os.getcwd(), sys.executable, str(wanted.flink.get("flink", ""))])
    missing = [number for number in range(plan.snippets) if number not in prepared.stored]
    if wanted.engine == ARRAY and not wanted.print_only:
        wanted = _with_fewer_tasks(wanted, len(missing or range(plan.snippets)))
    texts = _scripts(wanted, output, missing, plan.snippets)
    if wanted.print_only:
        print("\n".join(texts), end="")
        return 0
    if running := jobs.not_ended(output):
        if options.work.overwrite:
            raise UserError(f"--overwrite: job {running[0]} on {output} has not ended: cancel it first")
        print(f"note: job {running[0]} works on {output} too: they share the work", file=sys.stderr)
    print(describe(prepared, options), file=sys.stderr)
    jobs.remove_old_keys(output, running)
    with _taken_back(output) as undo:
        record = _hand_in(wanted, output, texts, undo)
        preparation.publish(prepared, overwrite=options.work.overwrite)
        record.write()
    if "hold" not in wanted.directives:
        _release(record)
    print(f"job {record.job} ({record.engine}): {record.log}")
    if record.finish:
        print(f"job {record.finish} then builds the tables: {record.finish_log}")
    print(f"script: {record.script}")
    print(f"python -m runners.slurm status {record.job} says how far it is")
    return 0


def _release(record: records.Record) -> None:
    """Release the held job; cancel it if it is still held, because Slurm refuses."""
    done = run_slurm("scontrol", "release", record.job)
    if done.returncode and jobs.is_held(record.job):
        jobs.cancel(record)
        raise UserError(f"Slurm does not release the job, it is cancelled: {one_line(done.stderr)}")
    if done.returncode:
        print(f"note: Slurm says: {one_line(done.stderr)}", file=sys.stderr)


def _refuse_paths(engine: str, paths: list[str]) -> None:
    """Refuse paths that a batch script, or Java's class path, cannot contain."""
    for path in paths:
        if found := re.search(r"[\\\r\n]", path):
            raise UserError(f"{path!r}: sbatch takes no path with {found[0]!r}; choose another folder")
        if engine == FLINK and ":" in path:
            raise UserError(
                f"{path}: on a class path of Java a colon separates folders; choose another folder"
            )


def _scripts(wanted: Submission, output: str, missing: list[int], count: int) -> list[str]:
    """The job's script; for an array also that of the job that builds the tables."""
    batch = script.Batch(
        command=wanted.command,
        output=output,
        logs=str(records.folder(output)),
        python=sys.executable,
        working_folder=os.getcwd(),
        environment={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        directives=wanted.directives,
        options=words_of(wanted.options),
    )
    if wanted.engine == FLINK:
        nodes, gpus, shared = wanted.nodes, wanted.gpus, wanted.shared_nodes
        return [script.flink(batch, nodes=nodes, gpus=gpus, shared_nodes=shared, settings=wanted.flink)]
    gpus = wanted.gpus.some(min(1, wanted.gpus.count))
    # On nodes with several GPUs several tasks share a node. That is safe: a task listens on no port.
    whole = not wanted.shared_nodes and wanted.gpus.count <= 1
    ranges = split_evenly(missing or list(range(count)), wanted.tasks, count)
    directives = wanted.directives.items()
    later = {name: value for name, value in directives if name not in ("dependency", "begin", "hold")}
    fraction = wanted.options.tables.max_failure_fraction
    return [
        script.array(batch, ranges=ranges, whole_nodes=whole, gpus=gpus),
        script.finish(dataclasses.replace(batch, directives=later), gpus=gpus, max_failure_fraction=fraction),
    ]


def words_of(options: Options) -> list[str]:
    """The options that are not the default, with absolute paths; without --overwrite, which `submit` did."""
    words = []
    for option in OPTIONS:
        value = options.values[option.name]
        if value == option.default or option.name == "overwrite":
            continue
        if option.type is bool:
            words.append(f"--{option.name}")
            continue
        values = models_of(value) if option.name == "models" else value if option.many else [value]
        for each in values:
            if option.path and "://" not in each:
                each = os.path.abspath(os.path.expanduser(each))
            words.append(f"--{option.name}={each}")
    return words + options.beam


def split_evenly(snippets: list[int], tasks: int, count: int) -> list[str]:
    """Split all snippets into ranges `A:B` with about the same number of missing ones each.

    Args:
        snippets: numbers of the missing snippets, ascending, at least one.
        tasks: most ranges.
        count: number of all snippets.
    """
    tasks = min(tasks, len(snippets))
    begins = [0, *(snippets[len(snippets) * task // tasks] for task in range(1, tasks)), count]
    return [f"{begins[task]}:{begins[task + 1]}" for task in range(tasks)]


def _with_fewer_tasks(wanted: Submission, snippets: int) -> Submission:
    """Limit the tasks to the number of snippets, and to the cluster's limit of an array."""
    tasks = min(wanted.tasks, snippets)
    if tasks == 1:
        return wanted
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", output_of("scontrol", "show", "config"), re.MULTILINE)
    most = int(found[1]) if found else tasks
    if tasks <= most:
        return wanted
    if not most:
        raise UserError("this cluster allows no arrays (MaxArraySize=0): use --engine flink")
    print(f"note: {most} tasks, not {tasks}: this cluster's MaxArraySize allows no more", file=sys.stderr)
    return dataclasses.replace(wanted, tasks=most)


@contextlib.contextmanager
def _taken_back(output: str) -> Iterator[contextlib.ExitStack]:
    """A context that yields a stack of undo functions, which it calls if the block fails."""
    folder = records.folder(output)
    new = [path for path in (folder, folder.parent) if not path.exists()]
    with contextlib.ExitStack() as undo:
        for path in reversed(new):
            undo.callback(_remove_if_empty, path)
        yield undo
        undo.pop_all()


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _hand_in(wanted: Submission, output: str, texts: list[str], undo: contextlib.ExitStack) -> records.Record:
    """Submit the job held, before the plan is written: Slurm may refuse it."""
    folder, begin = records.folder(output), time.time()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(begin)) + f"-{uuid.uuid4().hex[:8]}"
    files = [folder / f"{name}-{stamp}.sh" for name in (wanted.engine, "finish")[: len(texts)]]
    for file, text in zip(files, texts, strict=True):
        undo.callback(file.unlink, missing_ok=True)
        publish(str(file), text.encode())
    job = _sbatch("--hold", files[0])
    undo.callback(run_slurm, "scancel", job)
    finish = finish_log = None
    if len(files) > 1:
        finish = _sbatch(f"--dependency=afterany:{job}", files[1])
        undo.callback(run_slurm, "scancel", finish)
        finish_log = str(folder / f"{finish}.log")
    log = str(folder / (f"{job}_%a.log" if wanted.engine == ARRAY else f"{job}.log"))
    record = records.Record(job, wanted.engine, output, log, str(files[0]), begin, finish, finish_log)
    undo.callback(record.path.unlink, missing_ok=True)
    return record


def _sbatch(option: str, file: Path) -> str:
    try:
        return output_of("sbatch", "--parsable", option, str(file)).strip().partition(";")[0]
    except UserError as error:
        said = re.sub(r"sbatch: (error: )?|Batch job submission failed: ", "", str(error))
        raise UserError(f"Slurm refuses the job: {said}") from None
