"""The plan in words: what --dry_run prints, and what every run prints before it starts."""

from beam_zoo.members.member import Member
from beam_zoo.plan.plan import Plan
from pipelines.options import Options
from pipelines.prepare import Prepared
from runners import beam_options


def describe(prepared: Prepared, options: Options) -> str:
    """Snippets, members, passes, what is skipped and why, the output's size, and the settings of Dataflow.

    Args:
        prepared: the run.
        options: that it was prepared from.
    """
    plan = prepared.run.plan
    done = sum(number in prepared.stored for number in prepared.snippets)
    lines = [
        f"{plan.command}: {plan.rows:,} galaxies in {plan.snippets:,} {_snippets(plan)} "
        f"of up to {plan.snippet_size:,}, on {prepared.run.device} in {plan.precision}{_faster(plan)}",
        f"snippets: {len(prepared.snippets) - done:,} to do, {done:,} already stored",
    ]
    lines += [f"member {member.name}: {_passes(member, plan)}" for member in plan.members]
    shared = len(plan.members) - len({str(member.view) for member in plan.members if not member.random_view})
    if shared and not any(member.random_view for member in plan.members):
        lines.append("views: members with the same view share it; every image is decoded once")
    lines.append(f"output: about {_size(_bytes(plan))} in {prepared.run.output}")
    if beam_options.runner_name(options.beam) == beam_options.DATAFLOW:
        lines += [f"Dataflow: {flag[2:]} ({options.origins[flag]})" for flag in options.beam]
    return "\n".join(lines)


def _faster(plan: Plan) -> str:
    words = {
        "compiled": plan.compile,
        "fast images": plan.fast_images,
        "fast views": plan.fast_views,
        "JPEGs decoded by the GPU": plan.gpu_decoder,
    }
    return "".join(f", {word}" for word, on in words.items() if on)


def _snippets(plan: Plan) -> str:
    return "snippet" if plan.snippets == 1 else "snippets"


def _passes(member: Member, plan: Plan) -> str:
    encoder = plan.passes if member.random_view else 1
    if plan.command == "represent":
        why = "a random view per pass" if member.random_view else "the view is the same in every pass"
        return f"{encoder} encoder passes per galaxy ({why}), their features averaged"
    heads = plan.passes if member.passes_differ else 1
    text = f"{encoder} encoder and {heads} head passes per galaxy for {plan.passes} passes"
    if not member.passes_differ:
        if plan.passes > 1:
            text += ": all passes are identical (no dropout at test time, no random view), "
            text += "so one is run and stored for each"
    elif not member.random_view:
        text += ": dropout is in the head only and the view is the same, so the encoder runs once"
    return text


def _bytes(plan: Plan) -> float:
    """Samples are float32 and stored uncompressed, table columns float32; a column of a part has a footer."""
    footers = 300.0
    if plan.command == "represent":
        return plan.rows * sum(4.0 * (member.features or 1024) + 30 for member in plan.members)
    outputs = len(plan.outputs)
    samples = plan.passes * len(plan.members) * (4 * outputs + 2)
    columns = plan.snippets * outputs + plan.table_parts * 5 * outputs
    return plan.rows * (samples + 5 * outputs * 4 + 60) + footers * columns


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
