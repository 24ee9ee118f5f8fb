"""The local runner's options are Beam's."""

import pytest
from apache_beam.options.pipeline_options import DebugOptions, DirectOptions, PipelineOptions

from runners.direct import Options

FLAGS = ["--direct_num_workers=3", "--experiments=one", "--job_name=job", "--pickle_library=cloudpickle"]


@pytest.mark.parametrize("flags", [[], FLAGS])
def test_views_are_those_of_beam(flags):
    ours, beams = Options(flags), PipelineOptions(flags)
    for view in PipelineOptions.__subclasses__():
        for _ in range(2):
            # What a view does not show is in Beam's views of all options, which depend on the order of asking.
            expected = vars(beams.view_as(view)._visible_options)
            assert vars(ours.view_as(view)._visible_options) == expected
    assert ours.get_all_options() == beams.get_all_options()


def test_what_one_view_changes_others_see():
    options = Options(FLAGS)
    options.view_as(DebugOptions).experiments.append("two")
    options.view_as(DirectOptions).direct_num_workers = 4
    assert options.view_as(DebugOptions).experiments == ["one", "two"]
    assert options.get_all_options()["experiments"] == ["one", "two"]
    assert options.get_all_options()["direct_num_workers"] == 4
