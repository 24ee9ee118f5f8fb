"""The demo: simulated galaxies, the real command with two small trained members, and what came out.

`python -m examples.demo --output demo` (or `make demo`) takes about a minute; run again, it goes on
where it stopped.
"""

import argparse
import shlex
import sys
from pathlib import Path

GALAXIES = 200
SEED = 2026
"""Not the survey that the members were trained on."""
MEMBERS = Path(__file__).parent / "members"


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the command's exit code."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder to write (default demo)")
    output: Path = parser.parse_args(argv).output
    sky, predictions, mosaic = output / "galaxies", output / "predictions", output / "rings.png"

    from examples.simulate import write_survey

    print(f"simulating {GALAXIES} galaxies in {sky}", flush=True)
    write_survey(sky, GALAXIES, SEED)
    members = sorted(str(path) for path in MEMBERS.glob("demo_*.yaml"))
    command = ["python", "-m", "pipelines.predict", "--catalogue", str(sky / "catalogue.csv")]
    command += ["--models", *members, "--output", str(predictions), "--passes", "5", "--carry", "ra", "dec"]
    print(f"$ {shlex.join(command)}", flush=True)
    from pipelines import predict

    if code := predict.main(command[3:]):
        return code

    import pandas as pd

    from examples import mosaic as mosaics

    arguments = ["--predictions", str(predictions / "friendly"), "--catalogue", str(sky / "catalogue.csv")]
    mosaics.main([*arguments, "--column", "ring_yes_fraction", "--output", str(mosaic)])
    friendly = pd.read_parquet(predictions / "friendly")
    print(f"\nThe first rows of {predictions}/friendly ({len(friendly)} galaxies):\n")
    print(friendly.head(8).round(3).to_string(index=False))
    print(
        f"""
{sky}/catalogue.csv, truth.csv  the galaxies, and what is true of them
{predictions}/friendly  vote fractions (NaN where fewer than half would be asked)
{predictions}/advanced  also 90% intervals and the proportion asked
{predictions}/samples  every member's and pass's Dirichlet concentrations
{predictions}/failures  galaxies without a prediction, and why
{predictions}/manifest.json  counts, versions, checksums
{mosaic}  the galaxies sorted by their ring fraction"""
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
