"""An output in a bucket, opened as an object."""

import pandas as pd

from beam_zoo.results import open_output
from tests.cloud.test_objects import OPTIONS


def test_an_output_in_a_bucket(predict, bucket, few, sky, trees):
    local = predict(few, trees, *OPTIONS)
    remote = predict(sky, trees, *OPTIONS, output=bucket.path("out"))
    assert (local.code, remote.code) == (0, 0), remote.err
    output = open_output(bucket.path("out") + "/")
    assert (output.path, output.predicted) == (bucket.path("out"), 23)
    for name in ("friendly", "advanced", "failures", "samples"):
        pd.testing.assert_frame_equal(getattr(output, name)(), local.table(name))
