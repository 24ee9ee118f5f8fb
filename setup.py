"""What is packed; all other metadata are in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    # The configurations are in conf/ in the repository, and in the package when it is installed.
    packages=[*find_packages(include=["beam_zoo*", "pipelines*", "runners*", "examples*"]), "beam_zoo.conf"],
    package_dir={"beam_zoo.conf": "conf"},
    package_data={
        "beam_zoo": ["py.typed"],
        "beam_zoo.conf": ["**/*.yaml"],
        "examples": ["members/*"],
        "runners.flink": ["lock.json", "java/ServerFactory.java", "java/classes/**/*.class"],
    },
)
