"""From options to a run: every check that needs no worker, then the plan."""

import dataclasses

from beam_zoo.catalogue.read import Catalogue
from beam_zoo.plan import plan_file
from beam_zoo.plan.plan import Plan
from beam_zoo.plan.run import Run
from beam_zoo.plan.snippet import Snippet
from beam_zoo.runtime.device import one_thread
from beam_zoo.runtime.tuning import is_ours, keep_freed_memory
from beam_zoo.samples import parts
from beam_zoo.samples.retry import to_retry
from beam_zoo.storage import output as outputs
from beam_zoo.storage.files import absolute
from pipelines import checks, planning
from pipelines.options import Options


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A run that passed all checks.

    Attributes:
        run: the run.
        old: the output's plan, or None if it had none, or is overwritten.
        catalogue: where the rows are, or None where the stored plan stands for it.
        staged: path below the output -> the checkpoint of which a copy is to lie there.
        snippets: numbers of the snippets to predict.
        stored: the parts that are there already.
        hints: Beam's resource hints of the steps that need a GPU, where a runner gives it to those only.
    """

    run: Run
    old: Plan | None
    catalogue: Catalogue | None
    staged: dict[str, str]
    snippets: range
    stored: parts.Stored
    hints: dict[str, str]

    def to_predict(self) -> list[Snippet]:
        """The snippets that are not stored, and galaxies of others whose failure may pass."""
        plan, output = self.run.plan, self.run.output
        missing = [plan.snippet(number) for number in self.snippets if number not in self.stored]
        again = to_retry(plan, output, self.stored)
        return [*missing, *(snippet for snippet in again if snippet.number in self.snippets)]


def prepare(command: str, options: Options) -> Prepared:
    """All checks, in an order that finds cheap mistakes first. Nothing is written.

    Args:
        command: `predict` or `represent`.
        options: of the command.

    Raises:
        UserError: the first thing that is wrong.
    """
    inputs, work = options.inputs, options.work
    checks.required(options)
    output = absolute(str(work.output))
    if is_ours():
        one_thread()
    engine = checks.engine(options)
    if engine.device == "cpu":
        keep_freed_memory()
    outputs.check(output, overwrite=work.overwrite)
    checks.workers_image(options, engine)
    old = None if work.overwrite else plan_file.read(output)
    specs = checks.read_members(inputs.models)
    members, staged = checks.resolve_members(command, specs, old, output)
    checks.settings_fit(command, options, members)
    catalogue = checks.find_catalogue(str(inputs.catalogue), old)
    if work.overwrite:
        checks.inputs_survive(output, catalogue, specs)
    root = checks.image_root(inputs.image_root, catalogue, old)
    checks.columns(command, catalogue, inputs.carry, members)
    rows = planning.planned_rows(inputs, work.snippet_size, old, catalogue, root, remote=engine.is_remote)
    plan = planning.make_plan(command, options, old, rows, root, members)
    checks.same_run(output, old, plan)
    snippets = checks.chosen_snippets(work.snippets, plan.snippets)
    stored: parts.Stored = {} if old is None else parts.stored_parts(plan, output)
    missing = [number for number in snippets if number not in stored]
    fraction = options.tables.max_failure_fraction
    plan = planning.with_probed_images(plan, old, catalogue, output, missing, fraction)
    run = Run(plan, output, root, work.batch_size, engine.device, source=engine.source)
    return Prepared(run, old, catalogue, staged, snippets, stored, engine.hints)


def publish(prepared: Prepared, *, overwrite: bool) -> None:
    """Write the plan; see `planning.publish`."""
    planning.publish(
        prepared.run.plan,
        prepared.old,
        prepared.run.output,
        prepared.catalogue,
        prepared.staged,
        overwrite=overwrite,
    )
