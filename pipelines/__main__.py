"""The console command `beam-zoo`: `beam-zoo predict ...` is `python -m pipelines.predict ...`, and so on."""

import importlib
import sys
from pathlib import Path

from beam_zoo import __version__
from beam_zoo.errors import UserError, did_you_mean
from pipelines import command

COMMANDS = {
    "predict": ("pipelines.predict", "vote fractions, with tables"),
    "represent": ("pipelines.represent", "features of the encoders"),
    "finish": ("pipelines.finish", "the tables of an output whose samples are all stored"),
    "aggregate": ("pipelines.aggregate", "the tables of several runs together"),
    "audit": ("pipelines.audit", "read an output again, and say what is wrong"),
    "export": ("pipelines.export", "the samples as an HDF5 file"),
    "slurm": ("runners.slurm.__main__", "predictions as jobs of Slurm"),
    "flink": ("runners.flink.__main__", "install Flink for them"),
    "demo": ("examples.demo", "predict simulated galaxies"),
}


def conf_folder() -> Path:
    """The folder of the configurations: of the installed package, or of the checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "beam_zoo" / "conf"
    return installed if installed.is_dir() else package / "conf"


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    name, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in COMMANDS:
        return importlib.import_module(COMMANDS[name][0]).main(words)
    return command.guarded(lambda: _others(name))


def _others(name: str) -> int:
    if name in ("--help", "-h"):
        print("usage: beam-zoo COMMAND ... (beam-zoo COMMAND --help lists its options)\n")
        print(*(f"{each:10} {what}" for each, (_, what) in COMMANDS.items()), sep="\n")
        print(f"{'conf':10} print the folder of the configurations that are installed")
    elif name == "--version":
        print(f"beam-zoo {__version__}")
    elif name == "conf":
        print(conf_folder())
    else:
        raise UserError(f"there is no command {name!r}{did_you_mean(name, [*COMMANDS, 'conf'])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
