"""Objects of Google Cloud Storage, through Google's own client.

Functions raise the errors that a file system would raise, or RunFailed where the service cannot be reached.

Objects are atomic: whole, or not there. A folder is only a prefix that ends in a slash. Listings are
consistent: they show what was written before. A precondition on the generation makes "create if absent" and
compare-and-swap atomic. Credentials are Google's application default ones; STORAGE_EMULATOR_HOST names an
emulator instead.
"""

import base64
import contextlib
import errno
import functools
import io
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO

from beam_zoo.errors import RunFailed, UserError, one_line

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Client

SCHEME = "gs://"
CONNECTIONS = 64
"""Requests that a process may have in flight: each takes tens of milliseconds, nearly all of it latency."""
_READ_AHEAD = 8 << 20
_NO_BUCKET = "there is no such bucket"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


def split(path: str) -> tuple[str, str]:
    """Bucket and object name of `gs://bucket/name`; the name may be empty.

    Raises:
        OSError: it is no such path.
    """
    bucket, _, name = path.removeprefix(SCHEME).partition("/")
    if not path.startswith(SCHEME) or not _BUCKET.fullmatch(bucket):
        raise OSError(errno.EINVAL, "it does not have the form gs://bucket/name", path)
    return bucket, name


def read(path: str, most: int | None = None) -> bytes:
    """An object's bytes, verified against its checksum.

    Args:
        path: `gs://bucket/name`.
        most: stop soon after that many bytes.

    Raises:
        OSError: there is no such object, or it cannot be read.
    """
    into = _UpTo(most)
    with _os_errors(path), contextlib.suppress(_EnoughError):
        _blob(path).download_to_file(into)
    return into.getvalue()


def open_read(path: str) -> BinaryIO:
    """An object as a file to read from anywhere in it, a few megabytes at a time."""
    with _os_errors(path):
        return _blob(path).open("rb", chunk_size=_READ_AHEAD)


def write(path: str, data: Any, *, replace: bool, only: int | None = None) -> bool:
    """Write an object.

    Args:
        path: `gs://bucket/name`.
        data: its bytes.
        replace: whether one that is there may be replaced.
        only: the generation that may be replaced, and no other.

    Returns:
        False if there was one already, or another one, with other bytes, and it stays.

    Raises:
        OSError: it cannot be written.
    """
    from google.api_core.exceptions import PreconditionFailed

    with _os_errors(path, _NO_BUCKET):
        try:
            generation = only if replace else 0  # 0: the object must not exist
            # By default the client retries an upload only with a precondition. Here it is always retryable:
            # where there is no precondition, all writers of the object write the same bytes.
            _blob(path).upload_from_file(
                io.BytesIO(data), size=len(data), if_generation_match=generation, retry=_retries()
            )
        except PreconditionFailed:
            # The client repeats a request whose answer was lost: then the object is what it wrote itself.
            return _holds(path, data)
    return True


def _holds(path: str, data: Any) -> bool:
    """Whether an object has these bytes, by its size and checksum."""
    import google_crc32c

    blob = _blob(path)
    blob.reload()
    checksum = google_crc32c.Checksum(bytes(data)).digest()
    return int(blob.size) == len(data) and base64.b64decode(blob.crc32c) == checksum


def stat(path: str) -> tuple[int, int]:
    """Size in bytes and generation of an object: another generation is another content.

    Raises:
        OSError: there is no such object.
    """
    with _os_errors(path):
        blob = _blob(path)
        blob.reload()
        return int(blob.size), int(blob.generation)


def exists(path: str) -> bool:
    """Whether there is an object of this name.

    Raises:
        OSError: it cannot be told.
    """
    if not split(path)[1]:
        return False
    with _os_errors(path):
        return bool(_blob(path).exists())


def names(folder: str, most: int | None = None) -> list[str]:
    """Names of the objects directly below a folder, and of its folders with a slash at their end.

    Args:
        folder: `gs://bucket/name`.
        most: give up where there are more objects.

    Raises:
        OSError: the bucket cannot be listed, or there are too many objects.
    """
    bucket, prefix = _folder(folder)
    fields = "items(name),prefixes,nextPageToken"
    found = []
    with _os_errors(folder, _NO_BUCKET):
        listed = _client().list_blobs(bucket, prefix=prefix, delimiter="/", fields=fields)
        for blob in listed:
            found.append(blob.name)
            if most is not None and len(found) > most:
                text = f"it holds more than {most:,} objects: name the files themselves"
                raise OSError(errno.E2BIG, text, folder)
        found += listed.prefixes
    return sorted(name[len(prefix) :] for name in found if name != prefix)


def is_folder(path: str) -> bool:
    """Whether there is any object below a folder.

    Raises:
        OSError: the bucket cannot be listed.
    """
    bucket, prefix = _folder(path)
    with _os_errors(path, _NO_BUCKET):
        listed = _client().list_blobs(bucket, prefix=prefix, max_results=1, fields="items(name)")
        return any(True for _ in listed)


def walk(folder: str) -> Iterator[str]:
    """Names, relative to a folder, of all objects below it, in order, a page of a thousand at a time.

    Raises:
        OSError: the bucket cannot be listed.
    """
    bucket, prefix = _folder(folder)
    with _os_errors(folder, _NO_BUCKET):
        for blob in _client().list_blobs(bucket, prefix=prefix, fields="items(name),nextPageToken"):
            if not blob.name.endswith("/"):  # an empty object that stands for a folder in some tools
                yield blob.name[len(prefix) :]


def remove(paths: Iterable[str]) -> None:
    """Remove objects; those that are not there are gone already.

    Raises:
        OSError: one cannot be removed.
    """

    def one(path: str) -> None:
        with contextlib.suppress(FileNotFoundError), _os_errors(path):
            _blob(path).delete(retry=_retries())

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for _ in pool.map(one, paths):
            pass


class _EnoughError(Exception):
    pass


class _UpTo(io.BytesIO):
    """Takes a download until it is longer than it may be."""

    def __init__(self, most: int | None) -> None:
        super().__init__()
        self._most = most

    def write(self, data: Any) -> int:
        written = super().write(data)
        if self._most is not None and self.tell() > self._most:
            raise _EnoughError
        return written


def _blob(path: str) -> "Blob":
    bucket, name = split(path)
    if not name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return _client().bucket(bucket).blob(name)


def _folder(path: str) -> tuple[str, str]:
    bucket, name = split(path)
    return bucket, f"{name.rstrip('/')}/" if name.strip("/") else ""


def _retries() -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY


def _client() -> "Client":
    return _client_of(os.getpid())


@functools.lru_cache(maxsize=1)
def _client_of(process: int) -> "Client":
    """A process's one client: a forked one must not share its parent's connections."""
    try:
        from google.auth.exceptions import DefaultCredentialsError
        from google.cloud.storage import Client
        from requests.adapters import HTTPAdapter
    except ImportError:
        raise UserError("gs:// needs Google's client: pip install 'apache-beam[gcp]'") from None
    try:
        client = Client(project=None)  # objects have no need of a project
    except DefaultCredentialsError:
        raise UserError(
            "gs:// needs Google credentials, and there are none: gcloud auth application-default login"
        ) from None
    for scheme in ("https://", "http://"):
        client._http.mount(scheme, HTTPAdapter(pool_connections=CONNECTIONS, pool_maxsize=CONNECTIONS))
    return client


@contextlib.contextmanager
def _os_errors(path: str, missing: str = "there is no such object") -> Iterator[None]:
    """What the client raises, as the error that the operating system has for it."""
    from google.api_core import exceptions as api
    from google.auth.exceptions import GoogleAuthError
    from google.resumable_media import DataCorruption
    from requests.exceptions import RequestException

    try:
        yield
    except api.NotFound as error:
        text = _NO_BUCKET if "bucket does not exist" in str(error) else missing
        raise FileNotFoundError(errno.ENOENT, text, path) from None
    except (api.Forbidden, api.Unauthorized) as error:
        text = f"permission denied ({one_line(error.message, 200)})"
        raise PermissionError(errno.EACCES, text, path) from None
    except (api.GoogleAPIError, GoogleAuthError, DataCorruption, RequestException) as error:
        # The client has tried for two minutes by now.
        raise RunFailed(
            f"{path} is out of reach ({one_line(error, 200)}): the same command goes on from what is stored"
        ) from None
