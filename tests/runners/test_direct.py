"""The local runner's options are Beam's."""

import copy

import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
)

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
