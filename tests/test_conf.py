"""Every shipped configuration is read by the code that uses it."""

from pathlib import Path

import pytest
import yaml

from beam_zoo.members import member as members
from pipelines.command_line import parse
from pipelines.options import OPTIONS, models_of
from runners import beam_options

CONF = Path(__file__).parents[1] / "conf"
MODELS = sorted((CONF / "models").glob("*.yaml"))
RUNS = sorted([*(CONF / "surveys").glob("*.yaml"), *(CONF / "machines").glob("*.yaml")])


def options(*configs: Path):
    names = [option.name for option in OPTIONS]
    argv = [word for path in configs for word in ("--config", str(path))]
    return parse("predict", "", argv, lambda flags: beam_options.check(flags, names))


def test_nothing_is_left_out():
    assert sorted(path for path in CONF.rglob("*") if path.is_file()) == sorted([*MODELS, *RUNS])
    assert len(MODELS) > 9 and len(RUNS) > 9


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_model(path):
    spec = members.read_member(str(path))
    assert spec.name == path.stem
    assert spec.view["output_size"] == 224
    assert spec.schema is not None or spec.kind != "tree", "a tree says which schema it has"
    assert spec.class_names is not None or spec.kind != "classifier"
    for file in (spec.checkpoint, spec.encoder or members.HUB):
        assert file.startswith(members.HUB) or Path(file).parent == CONF / "models" / "checkpoints"


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_run(path):
    read = options(path)
    given = yaml.safe_load(path.read_text())
    assert given and all(read.origins.get(name, str(path)) == str(path) for name in given)
    for model in models_of(read.inputs.models or ()):
        assert Path(model) in MODELS


def test_a_survey_and_a_machine_mix():
    read = options(CONF / "surveys" / "desi.yaml", CONF / "machines" / "dataflow.yaml")
    assert (read.sampling.passes, read.sampling.precision, read.inputs.carry) == (5, "bf16", ("ra", "dec"))
    assert "--runner=DataflowRunner" in read.beam
    assert read.dataflow.dataflow_preset == "l4"
