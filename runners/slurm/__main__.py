"""Predictions as jobs of Slurm.

python -m runners.slurm submit --nodes 4 --gpus_per_node 1 --time 12:00:00 --flink DIR -- \\
    --catalogue ... --output OUT
python -m runners.slurm status JOB
python -m runners.slurm logs JOB
python -m runners.slurm cancel JOB
"""

import os
import sys

from beam_zoo.errors import UserError, did_you_mean
from pipelines import command
from pipelines.command_line import Parser
from runners.slurm.records import Record

COMMANDS = {
    "submit": "plan a prediction here, and hand it to Slurm as a job",
    "status": "what a job does, and how many galaxies are stored",
    "logs": "print a job's log, and where its other logs are",
    "cancel": "end a job; what is stored stays",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return command.guarded(lambda: _main(words))


def _main(words: list[str]) -> int:
    name, *rest = words or ["--help"]
    if name in ("--help", "-h"):
        print(__doc__.strip(), *(f"{each:7} {what}" for each, what in COMMANDS.items()), sep="\n")
        return 0
    if name not in COMMANDS:
        raise UserError(f"there is no command {name!r}{did_you_mean(name, COMMANDS)}")
    if name == "submit":
        return _submit(rest)
    from runners.slurm import jobs

    parser = Parser(prog=f"python -m runners.slurm {name}", description=COMMANDS[name], epilog=None)
    parser.add_argument("job", metavar="JOB", help="the id that submit printed")
    parser.add_argument(
        "--output", metavar="OUT", help="folder of the output, when Slurm has forgotten the job"
    )
    if name == "logs":
        parser.add_argument("--follow", action="store_true", help="go on as the log grows, until Ctrl-C")
    options = parser.parse_args(rest)
    record = jobs.find(options.job, options.output)
    if name == "status":
        print(*jobs.status(record), sep="\n")
    elif name == "cancel":
        ended = jobs.cancel(record)
        what = f"cancelled: {', '.join(ended)}" if ended else f"job {record.job} had ended already"
        print(f"{what}; the same submit command goes on from what is stored")
    else:
        _logs(record, options.follow)
    return 0


def _submit(words: list[str]) -> int:
    from runners.slurm import options

    parser = Parser(
        prog="python -m runners.slurm submit", description=COMMANDS["submit"], epilog=options.NOTE
    )
    wanted = options.read(options.make_parser(parser), words)
    from runners.slurm.submit import submit  # seconds of imports: not for --help

    return submit(wanted)


def _logs(record: Record, follow: bool) -> None:
    from runners.slurm import jobs

    found = jobs.logs(record)
    if not found:
        raise UserError(
            f"job {record.job} has written no log yet: python -m runners.slurm status {record.job}"
        )
    if follow:
        sys.stdout.flush()
        os.execvp("tail", ["tail", "--lines=+1", "--follow=name", "--retry", *map(str, found)])
    for log in found:
        if len(found) > 1:
            print(f"==> {log} <==")
        sys.stdout.write(log.read_text(errors="replace"))
    for log in jobs.other_logs(record):
        print(f"more: {log}")


if __name__ == "__main__":
    sys.exit(main())
