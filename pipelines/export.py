"""Write an output's samples as zoobot's own tools read them.

    python -m pipelines.export OUT --hdf5 predictions.hdf5

writes the datasets `predictions` (float32; galaxy, answer, model, pass), `id_str`, `label_cols` and
`members`. OUT is an output of `predict`, whose samples must all be stored, or of `aggregate`.
"""

import sys

from beam_zoo.errors import UserError
from beam_zoo.storage.files import absolute, is_remote
from pipelines import command
from pipelines.command_line import Parser

DESCRIPTION = "Write an output's samples as an HDF5 file that zoobot's own tools read."


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return command.guarded(lambda: _main(argv))


def _main(argv: list[str] | None) -> int:
    parser = Parser(prog="python -m pipelines.export", description=DESCRIPTION, epilog=None)
    parser.add_argument("output", metavar="OUT", help="an output of predict or aggregate")
    parser.add_argument("--hdf5", metavar="FILE", help="the file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    values, flags = command.parse_simple(parser, argv)
    if flags:
        raise UserError(
            f"export has no option {flags[0].partition('=')[0]}: it runs in this process, without Beam"
        )
    if not values["hdf5"]:
        raise UserError("--hdf5 is missing (--help lists the options)")
    if is_remote(values["hdf5"]):
        raise UserError(f"--hdf5 {values['hdf5']}: it is written to a local file; copy it from there")
    from pipelines.hdf5 import write

    write(absolute(values["output"]), absolute(values["hdf5"]), overwrite=values["overwrite"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
