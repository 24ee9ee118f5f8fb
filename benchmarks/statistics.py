"""The tables' numbers against zoobot's own functions, on the same samples, on one core.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python -m benchmarks.statistics

Fractions, 90% intervals and the proportion asked of 20,000 galaxies, 2 members x 3 passes, and of other
ensembles: the median CPU time of 5 runs. `quantiles alone` is the least that the statistics need: two
interpolated quantiles for each (answer, sample). The mixture's interval (`--interval mixture`) is compared
with zoobot's medians alone.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from beam_zoo.plan.plan import MIXTURE
from beam_zoo.tables.quantiles import BetaQuantiles
from beam_zoo.tables.statistics import INTERVAL, DecisionTree
from benchmarks import workload

ENSEMBLES = [
    ("decals_dr8_ortho_schema", 2, 3),
    ("decals_dr8_ortho_schema", 3, 5),
    ("euclid_ortho_schema", 2, 3),
]


def samples(galaxies: int, answers: int, members: int, passes: int) -> np.ndarray:
    """Concentrations as Zoobot gives them, around a value for each galaxy.

    Returns:
        float32, shape (galaxy, answer, member, pass).
    """
    random = np.random.default_rng(0)
    around = random.normal(0, 1.8, (galaxies, answers, 1, 1))
    values = 1 + 100 / (1 + np.exp(-around - random.normal(0, 0.4, (galaxies, answers, members, passes))))
    chosen = random.random(values.shape)
    values[chosen < 0.005], values[chosen > 0.995] = 1, 101
    return values.astype(np.float32)


def by_zoobot(given: np.ndarray, schema: Any) -> list[np.ndarray]:
    """What zoobot's table function computes, ten thousand galaxies at a time as it does."""
    from zoobot.shared import stats

    found = []
    for some in np.array_split(given, max(1, len(given) // 10_000)):
        fraction = stats.expected_value_of_dirichlet_mixture(some, schema)
        lower, upper = stats.get_confidence_intervals(some, schema)
        asked = np.empty_like(fraction)
        for question in schema.questions:
            one = stats.get_expected_votes_ml(fraction, question, 1, schema, round_votes=False)
            asked[:, question.start_index : question.end_index + 1] = one[:, None]
        found.append((fraction, lower, upper, asked))
    return [np.concatenate(each) for each in zip(*found, strict=True)]


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU time of this process, and the result."""
    begin = time.process_time()
    result = work()
    return time.process_time() - begin, result


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The tables' numbers against zoobot's own functions.")
    parser.add_argument("--galaxies", type=int, default=20_000)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args(argv)
    from zoobot.shared import schemas, stats

    rows = {}
    for name, members, passes in ENSEMBLES:
        schema = getattr(schemas, name)
        answers = len(schema.label_cols)
        given = samples(options.galaxies, answers, members, passes)
        ours_given = given.reshape(len(given), answers, -1).transpose(0, 2, 1).copy()
        tree, quantiles = DecisionTree(schema), BetaQuantiles(INTERVAL)
        mixture = DecisionTree(schema, MIXTURE)
        some = given[: options.galaxies // 10].astype(np.float64)
        flat = np.ascontiguousarray(some.reshape(-1))
        times: dict[str, list[float]] = {"zoobot": [], "medians": [], "ours": [], "limit": [], "mixture": []}
        for _ in range(options.times):
            theirs, expected = seconds(lambda: by_zoobot(some, schema))  # noqa: B023
            ours, found = seconds(lambda: tree.statistics(ours_given))  # noqa: B023
            limit, _ = seconds(lambda: quantiles.logits(flat, flat))  # noqa: B023
            medians, _ = seconds(lambda: stats.get_confidence_intervals(some, schema))  # noqa: B023
            mixed, _ = seconds(lambda: mixture.statistics(ours_given[: len(some)]))  # noqa: B023
            times["medians"].append(medians / len(some))
            times["mixture"].append(mixed / len(some))
            times["zoobot"].append(theirs / len(some))
            times["ours"].append(ours / len(given))
            times["limit"].append(limit / len(some))
        pairs = zip((found.fraction, found.lower, found.upper, found.asked), expected, strict=True)
        error = max(float(np.abs(a[: len(b)] - b).max()) for a, b in pairs)
        median = {key: 1e6 * statistics.median(values) for key, values in times.items()}
        rows[f"({answers}, {members}, {passes})"] = {
            "zoobot, us a galaxy": median["zoobot"],
            "ours": median["ours"],
            "quantiles alone": median["limit"],
            "times zoobot's speed": median["zoobot"] / median["ours"],
            "largest difference": error,
            "zoobot's medians, us": median["medians"],
            "ours, mixture": median["mixture"],
            "mixture / medians": median["mixture"] / median["medians"],
        }
    print(f"{workload.describe()}; {options.galaxies:,} galaxies")
    print(pd.DataFrame(rows).T.to_string(float_format=lambda value: f"{value:.3g}"))


if __name__ == "__main__":
    main()
