"""Put Flink and Beam's runner for it into a folder.

python -m runners.flink install DIR
"""

import sys

from pipelines import command
from pipelines.command_line import Parser
from runners.flink import install as installation
from runners.flink import jvm

DESCRIPTION = "Put Flink, Beam's runner for it and what starts a worker into a folder of a shared filesystem."


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return command.guarded(lambda: _main(argv))


def _main(argv: list[str] | None) -> int:
    parser = Parser(prog="python -m runners.flink", description=DESCRIPTION, epilog=None)
    commands = parser.add_subparsers(dest="command", required=True, metavar="install")
    adder = commands.add_parser("install", description=DESCRIPTION, epilog=None)
    adder.add_argument("folder", metavar="DIR", help="the folder, readable on all nodes")
    adder.add_argument(
        "--maven_repository",
        default=installation.CENTRAL,
        metavar="URL",
        help="a mirror of Maven Central (default %(default)s); for PyPI pip's own settings hold",
    )
    adder.add_argument(
        "--job_server_jar",
        metavar="PATH|URL",
        help="a published beam-runners-flink-1.19-job-server jar instead of the pinned runner (needs a JDK)",
    )
    options = parser.parse_args(argv)
    installation.install(options.folder, options.maven_repository, options.job_server_jar)
    print(f"Flink is in {installation.check(options.folder)}")
    print(f"the nodes need Java 11 or 17; here is {jvm.version() or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
