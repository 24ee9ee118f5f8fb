"""Check the workers' container image in its registry: that it exists and has the same versions as here."""

import re
import sys
from typing import Any

import apache_beam as beam
import requests
from apache_beam.options.pipeline_options import PipelineOptions, WorkerOptions

from beam_zoo.errors import UserError, one_line

LABEL = "org.beam-zoo"
SECONDS = 20
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_REFERENCE = re.compile(
    r"(?P<host>[\w.-]+(?::\d+)?)/(?P<name>[\w./-]+?)(?::(?P<tag>[\w.-]+))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def check(flags: list[str], *, gpu: bool) -> None:
    """Refuse an image with other versions: a pipeline is pickled here and unpickled there.

    Args:
        flags: Beam's options; an image is `HOST/PROJECT/REPOSITORY/NAME:TAG`.
        gpu: whether the workers have a GPU.

    Raises:
        UserError: the image is absent or cannot be read, or has another Beam or Python, or no CUDA.
    """
    reference: str = PipelineOptions(flags).view_as(WorkerOptions).sdk_container_image
    match = _REFERENCE.fullmatch(reference)
    if match is None or not ("." in match["host"] or ":" in match["host"] or match["host"] == "localhost"):
        raise UserError(
            f"--sdk_container_image {reference} names no registry: write HOST/PROJECT/REPOSITORY/NAME:TAG"
        )
    try:
        labels = _labels(match["host"], match["name"], match["digest"] or match["tag"] or "latest")
    except FileNotFoundError:
        raise UserError(
            f"--sdk_container_image {reference}: its registry has no such image; build it first"
        ) from None
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"--sdk_container_image {reference} cannot be looked at: {one_line(error, 200)}"
        ) from None
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = {"beam": ("Beam", beam.__version__), "python": ("Python", python)}
    for name, (what, version) in wanted.items():
        found = labels.get(f"{LABEL}.{name}")
        if found is None:
            raise UserError(
                f"--sdk_container_image {reference} has no label {LABEL}.{name}: "
                "build it with runners/dataflow/Dockerfile"
            )
        if found != version:
            raise UserError(
                f"--sdk_container_image {reference} has {what} {found}, "
                f"and this command runs {what} {version}: build it anew"
            )
    if gpu and labels.get(f"{LABEL}.device") != "cuda":
        raise UserError(
            f"--sdk_container_image {reference} has no CUDA: workers with a GPU need the other image"
        )


def _labels(host: str, name: str, version: str) -> dict[str, str]:
    """Labels of an image, read through the registry's HTTP interface.

    Raises:
        FileNotFoundError: there is no such image.
        OSError, ValueError, KeyError: the registry's answer is not as expected.
    """
    scheme = "http" if host.split(":")[0] in ("localhost", "127.0.0.1") else "https"
    url = f"{scheme}://{host}/v2/{name}"
    session = requests.Session()
    if scheme == "https" and f".{host}".endswith((".pkg.dev", ".gcr.io")):
        session.headers["Authorization"] = f"Bearer {_google_token()}"
    manifest = _get(session, f"{url}/manifests/{version}")
    if "manifests" in manifest:  # an image for several platforms
        platforms = {
            (p.get("os"), p.get("architecture")): m["digest"]
            for m in manifest["manifests"]
            if (p := m.get("platform"))
        }
        if ("linux", "amd64") not in platforms:
            raise ValueError("it is not for linux on amd64")
        manifest = _get(session, f"{url}/manifests/{platforms['linux', 'amd64']}")
    config = _get(session, f"{url}/blobs/{manifest['config']['digest']}")
    return config.get("config", {}).get("Labels") or {}


def _get(session: requests.Session, url: str) -> dict[str, Any]:
    answer = session.get(url, headers={"Accept": _ACCEPT}, timeout=SECONDS)
    challenge = answer.headers.get("WWW-Authenticate", "")
    anonymous = answer.status_code == 401 and "Authorization" not in session.headers
    if anonymous and challenge.startswith("Bearer "):
        # Public images need a token too, which anybody gets at the URL in the challenge.
        asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        given = session.get(asked.pop("realm"), params=asked, timeout=SECONDS)
        given.raise_for_status()
        session.headers["Authorization"] = f"Bearer {given.json()['token']}"
        answer = session.get(url, headers={"Accept": _ACCEPT}, timeout=SECONDS)
    if answer.status_code == 404:
        raise FileNotFoundError(url)
    if answer.status_code in (401, 403):
        raise PermissionError(f"{answer.status_code} {answer.reason}: its registry does not let you read it")
    answer.raise_for_status()
    found = answer.json()
    if not isinstance(found, dict):
        raise ValueError("the registry's answer is no mapping")
    return found


def _google_token() -> str:
    import google.auth
    import google.auth.transport.requests
    from google.auth.exceptions import GoogleAuthError

    try:
        credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
        credentials.refresh(google.auth.transport.requests.Request())
    except GoogleAuthError as error:
        raise OSError(one_line(error, 200)) from None
    return str(credentials.token)
