"""Predict vote fractions of galaxies with an ensemble of Zoobot checkpoints.

    python -m pipelines.predict --catalogue galaxies.csv --models a.yaml b.yaml --output OUT

writes OUT/friendly, OUT/advanced, OUT/samples, OUT/failures (Parquet) and OUT/manifest.json.
"""

import sys
import time
from typing import TYPE_CHECKING

from pipelines import command
from pipelines.options import Options

if TYPE_CHECKING:
    from pipelines.prepare import Prepared
    from runners import cluster

DESCRIPTION = "Predict vote fractions of galaxies with an ensemble of Zoobot checkpoints."


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return command.run("predict", DESCRIPTION, argv, execute)


def execute(name: str, options: Options, on_cluster: "cluster.Runs | None" = None) -> None:
    """The dataflow of `predict` and `represent`: plan, samples, tables, manifest.

    Args:
        name: `predict` or `represent`.
        options: of the command.
        on_cluster: runs a graph unless the runner is the local one; by default the options' runner.

    Raises:
        TooManyFailures: more galaxies failed than `--max_failure_fraction` allows.
        UserError: something is wrong that the user can put right.
        RunFailed: a runner failed; the same command may succeed.
        StorageFull: the output's disk is full.
    """
    # Beam and torch take seconds to import: not for --help.
    from pipelines.build import build_tables
    from pipelines.describe import describe
    from pipelines.manifest import check_failures, write_manifest
    from pipelines.prepare import prepare, publish

    begin = time.time()
    prepared = prepare(name, options)
    print(describe(prepared, options), file=sys.stderr)
    if options.show.dry_run:
        return
    publish(prepared, overwrite=options.work.overwrite)
    if not predict_samples(prepared, options, on_cluster):
        return
    reports = build_tables(prepared.run, options.beam)
    manifest = write_manifest(prepared.run, reports, prepared.stored, begin, options)
    check_failures(manifest, prepared.run.output, options.tables.max_failure_fraction)


def predict_samples(prepared: "Prepared", options: Options, on_cluster: "cluster.Runs | None") -> bool:
    """Predict what is missing, and with it the tables where the runner is not the local one.

    Returns:
        Whether tables and manifest follow; not for a slice of the snippets, nor for a template of Dataflow.
    """
    import functools

    from beam_zoo.storage.output import remove_manifest
    from beam_zoo.tables.reports import remove_reports
    from pipelines.execution import predict_here, predict_on_cluster
    from runners import beam_options, cluster

    run, slice_ = prepared.run, options.work.snippets
    snippets = prepared.to_predict()
    if snippets or not slice_:
        remove_manifest(run.output)
    # Reports would be of fewer, or of other, galaxies than are stored soon.
    remove_reports(run.output, *{run.plan.table_part(snippet.number) for snippet in snippets})
    if beam_options.runner_name(options.beam) == beam_options.DIRECT:
        predict_here(run, snippets, options.beam)
    else:
        run_graph = functools.partial(on_cluster or cluster.run, flags=options.beam)
        stored = None if slice_ else prepared.stored
        done = predict_on_cluster(run, snippets, stored, run_graph, prepared.hints)
        if cluster.wrote_template(run.output, options.beam, done):
            return False
    if slice_:
        print(
            f"samples of snippets {slice_} are stored in {run.output}: when all are, "
            f"python -m pipelines.finish {run.output} builds the tables",
            file=sys.stderr,
        )
    return not slice_


if __name__ == "__main__":
    sys.exit(main())
