"""The local runner's options are Beam's, and its pipelines leave nothing behind."""

import copy
import weakref
from typing import ClassVar

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
)

from runners import direct
from runners.direct import ViewedOptions

FLAGS = ["--direct_num_workers=3", "--experiments=one", "--job_name=job", "--pickle_library=cloudpickle"]


@pytest.mark.parametrize("flags", [[], FLAGS])
def test_views_are_those_of_beam(flags):
    ours, beams = ViewedOptions(flags), PipelineOptions(flags)
    for view in PipelineOptions.__subclasses__():
        made = ours.view_as(view)
        assert type(made) is view
        assert made is ours.view_as(view)
        assert vars(made._visible_options) == vars(beams.view_as(view)._visible_options)
    assert ours.get_all_options() == beams.get_all_options()


def test_what_one_view_changes_others_see():
    options = ViewedOptions(FLAGS)
    options.view_as(DebugOptions).experiments.append("two")
    options.view_as(DirectOptions).direct_num_workers = 4
    assert options.view_as(DebugOptions).experiments == ["one", "two"]
    assert options.get_all_options()["experiments"] == ["one", "two"]
    assert options.get_all_options()["direct_num_workers"] == 4


@pytest.mark.parametrize("account", [[], ["--impersonate_service_account=somebody"]])
def test_views_of_a_copy_are_of_the_copy(account):
    """Beam copies options, and leaves an account out of copies."""
    options = ViewedOptions([*FLAGS, *account])
    options.view_as(GoogleCloudOptions).temp_location = "/tmp/a"
    copied = copy.deepcopy(options)
    copied.view_as(GoogleCloudOptions).temp_location = "/tmp/b"
    assert copied.get_all_options()["temp_location"] == "/tmp/b"
    assert copied.view_as(GoogleCloudOptions).impersonate_service_account is None
    assert options.view_as(GoogleCloudOptions).temp_location == "/tmp/a"


class Holds(beam.DoFn):
    """Has something while its pipeline runs."""

    held: ClassVar[list[weakref.ref]] = []

    def setup(self):
        self._some = Held()
        self.held.append(weakref.ref(self._some))

    def process(self, element):
        yield element


class Held:
    """Something large."""


def test_what_a_pipeline_held_is_gone_in_the_next():
    there = []

    def build(p):
        there.extend(one() is not None for one in Holds.held)
        p | beam.Create([1]) | beam.ParDo(Holds())

    for _ in range(3):
        direct.run(build, [])
    assert len(Holds.held) >= 3
    assert not any(there)
