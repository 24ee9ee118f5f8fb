"""The public face: it is imported in no time, and every example in a docstring runs."""

import doctest
import inspect
import shutil
import subprocess
import sys

import pytest

import beam_zoo
from tests import checkpoints, galaxies


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """The current folder of examples: a catalogue, an image, `a.yaml`, `b.yaml`, outputs OUT and FEATURES."""
    from pipelines import predict, represent

    folder = tmp_path_factory.mktemp("workplace")
    galaxies.simulated(folder, 8)
    (folder / "catalogue.csv").rename(folder / "galaxies.csv")
    shutil.copyfile(min(folder.rglob("*.jpg")), folder / "galaxy.jpg")
    models = [str(path) for path in checkpoints.demo_members(folder)]
    for command, output in ((predict, "OUT"), (represent, "FEATURES")):
        argv = ["--catalogue", str(folder / "galaxies.csv"), "--models", *models, "--passes", "2"]
        assert command.main([*argv, "--output", str(folder / output)]) == 0
    return folder


def documented(name):
    """A public name, and the methods of a class of ours, as a failure calls them."""
    found = getattr(beam_zoo, name)
    yield name, found
    if name == "Output":
        for method, member in vars(found).items():
            if not method.startswith("_") and inspect.getdoc(member):
                yield f"{name}.{method}", member


@pytest.mark.parametrize("name", beam_zoo.__all__)
def test_every_public_name_has_an_example_that_runs(name, workplace, tmp_path, monkeypatch):
    # Examples that write do so in a folder of their own.
    for path in workplace.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for title, item in documented(name):
        doc = inspect.getdoc(item) or ""
        example = doctest.DocTestParser().get_doctest(doc, {"beam_zoo": beam_zoo}, title, None, 0)
        assert example.examples or isinstance(item, property), f"{title} has no example"
        runner.run(example)
    assert runner.tries and not runner.failures


def test_the_import_is_lazy():
    """Neither the library nor one of its errors imports anything that takes time."""
    program = (
        "import sys, beam_zoo; beam_zoo.UserError; dir(beam_zoo)\n"
        "heavy = {'apache_beam', 'torch', 'numpy', 'pandas', 'pyarrow', 'pipelines', 'runners'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_names():
    assert set(beam_zoo.__all__) <= set(dir(beam_zoo))
    for name in beam_zoo.__all__:
        assert getattr(beam_zoo, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'predit'"):
        beam_zoo.predit  # noqa: B018
