"""A worker that has its own copy of this program must have the same one."""

import subprocess
import sys

import pytest

from beam_zoo.errors import UserError
from beam_zoo.inference.load import LoadImages
from beam_zoo.plan.run import Run
from beam_zoo.runtime.versions import source


def test_a_worker_with_other_source_refuses_before_its_first_image():
    with pytest.raises(UserError, match="another version of this program"):
        LoadImages(Run(None, "", "", 1, "cpu", source="0" * 64)).setup()


def test_source_is_that_of_the_files():
    """The same in another process; in another copy only if nothing in it was changed."""
    words = [sys.executable, "-c", "from beam_zoo.runtime.versions import source; print(source())"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip() == source()
