"""Output on a full disk."""

import subprocess
import sys


def test_a_full_disk():
    """What cannot be said is not said, and the work goes on; /dev/full is as a full disk is."""
    program = (
        "import sys, logging, os\n"
        "from runners.best_effort_output import use_best_effort_output\n"
        "use_best_effort_output()\n"
        "for _ in range(3): print('x' * 100_000, flush=True); print('y', file=sys.stderr)\n"
        "logging.warning('z'); sys.stderr.flush(); assert sys.stderr.fileno() == 2; os._exit(7)"
    )
    with open("/dev/full", "w") as full:
        assert subprocess.run([sys.executable, "-c", program], stdout=full, stderr=full).returncode == 7
