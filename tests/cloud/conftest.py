"""A bucket on loopback, which Google's own client takes for Google's."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import pytest

from beam_zoo.storage import gcs
from tests.cloud import bucket as buckets
from tests.cloud import google as google_server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The server must have been built (`make setup`); in CI its absence is an error."""
    for item in items:
        here = Path(__file__).parent in item.path.parents
        if here and not buckets.PROGRAM.exists() and "CI" not in os.environ:
            item.add_marker(
                pytest.mark.skip(reason="cloud tests need fake-gcs-server: tests/cloud/packages.sh")
            )


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[buckets.Server]:
    """The server, for this process and those that it starts."""
    with buckets.serving(tmp_path_factory.mktemp("bucket")) as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", running.url)
        gcs._client_of.cache_clear()
        yield running
    gcs._client_of.cache_clear()


@pytest.fixture
def bucket(server: buckets.Server) -> buckets.Bucket:
    """An empty bucket."""
    return buckets.new(server)


@pytest.fixture
def sky(bucket: buckets.Bucket, few: Path) -> str:
    """The catalogue of `few` in the bucket."""
    bucket.upload(few.parent, "sky")
    return bucket.path("sky", few.name)


@pytest.fixture
def google(server: buckets.Server) -> Iterator[google_server.Google]:
    """What a submission to Dataflow talks to."""
    with google_server.serving() as running:
        running.images |= {f"zoo/beam-zoo:{name}": labels(name) for name in ("gpu", "cpu")}
        yield running


def labels(device: str) -> dict[str, str]:
    """Labels of the image that `runners/dataflow/Dockerfile` makes."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    device = {"gpu": "cuda"}.get(device, device)
    return {
        "org.beam-zoo.beam": beam.__version__,
        "org.beam-zoo.python": python,
        "org.beam-zoo.device": device,
    }
