"""Whether two outputs say the same."""

from pathlib import Path

import numpy as np
import pandas as pd


def assert_same(first: Path, second: Path, tolerance: float = 1e-4) -> None:
    """Ids identical and in the same order, all numbers equal to a relative tolerance (or 1e-6)."""
    for table in ("friendly", "advanced", "failures", "samples"):
        a, b = (pd.read_parquet(output / table) for output in (first, second))
        assert list(a.columns) == list(b.columns)
        for column in a:
            if pd.api.types.is_float_dtype(a[column]):
                np.testing.assert_allclose(
                    a[column], b[column], rtol=tolerance, atol=1e-6, err_msg=f"{table} {column}"
                )
            else:
                assert a[column].equals(b[column]), (table, column)
