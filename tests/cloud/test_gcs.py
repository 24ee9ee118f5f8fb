"""Objects as files: each function against Google's own client and a server that is not ours."""

import dataclasses
import functools
import io
import os
import subprocess
import sys
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from google.cloud import storage

from beam_zoo.errors import RunFailed, UserError
from beam_zoo.images.decode import ImageError, image_path, read_bytes
from beam_zoo.plan import plan_file, rows
from beam_zoo.samples import part_writer, parts
from beam_zoo.storage import files, gcs, layout
from beam_zoo.storage.stamps import stamp

LARGE = 20 << 20


def test_bytes_come_back(bucket):
    path, data = bucket.path("a b", "ü.bin"), os.urandom(LARGE)
    assert files.publish(path, data)
    assert files.read_bytes(path) == data
    assert files.size(path) == LARGE and files.exists(path)
    assert not files.exists(bucket.path("a b")) and files.is_folder(bucket.path("a b"))
    assert gcs._client().bucket(bucket.name).blob("a b/ü.bin").download_as_bytes() == data


def test_the_first_of_many_writers_wins(bucket):
    """And nobody replaces what is there."""
    path = bucket.path("samples", "part.parquet")
    wins: dict[int, bool] = {}
    start = threading.Barrier(8)

    def write(number: int) -> None:
        start.wait()
        wins[number] = files.publish(path, b"%d" % number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [number for number, won in wins.items() if won]
    assert files.read_bytes(path) == b"%d" % winner
    assert not files.publish(path, b"later")
    assert files.read_bytes(path) == b"%d" % winner
    posts = [(query, status) for method, _, query, status in bucket.requests() if method == "POST"]
    sent = [query.get("ifGenerationMatch") for query, _ in posts if "uploadType" in query]
    assert sent == ["0"] * 9 and sorted(status for _, status in posts)[-8:] == [412] * 8


def test_a_view_is_replaced_and_has_another_stamp(bucket):
    path = bucket.path("manifest.json")
    files.write_json(path, {"a": 1})
    before = stamp(path)
    files.write_json(path, {"a": 2})
    assert files.read_json(path) == {"a": 2}
    assert stamp(path)[:2] == before[:2] and stamp(path) != before


def test_lists(bucket):
    """More than one page of a thousand; folders inside have a slash, and are not looked into."""
    many = [f"{number:04d}" for number in range(1203)]
    for name in [*(f"f/{name}" for name in many), "f/g/x", "f/g/h/y", "fz"]:
        gcs.write(bucket.path(name), b"", replace=True)
    assert gcs.names(bucket.path("f")) == [*many, "g/"]
    assert files.names(bucket.path("f")) == [*many, "g"]
    assert sorted(files.walk(bucket.path("f/g"))) == ["h/y", "x"]
    assert len(list(files.walk(bucket.path()))) == len(many) + 3
    assert files.names(bucket.path("nothing")) == [] and not files.is_folder(bucket.path("nothing"))
    with pytest.raises(OSError, match="more than 100 objects"):
        gcs.names(bucket.path("f"), 100)
    files.remove(*(bucket.path("f", name) for name in many[3:]), bucket.path("f/none"))
    assert files.names(bucket.path("f")) == [*many[:3], "g"]


def test_parquet_in_pieces(bucket):
    """What is read of a file is what is asked for, not all of it."""
    table = pa.table({"a": np.arange(4_000_000), "b": np.random.default_rng(0).random(4_000_000)})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=500_000, compression="none", use_dictionary=False)
    path = bucket.path("big.parquet")
    files.publish(path, sink.getvalue())
    with pq.ParquetFile(files.stream_for_arrow(path)) as file:
        assert file.read_row_group(5, columns=["a"])["a"].to_pylist() == list(range(2_500_000, 3_000_000))
    with files.open_read(path) as raw:
        raw.seek(100)
        assert raw.read(50) == sink.getvalue()[100:150].to_pybytes()


def test_errors_are_those_of_files(bucket):
    with pytest.raises(FileNotFoundError, match="no such object"):
        files.read_bytes(bucket.path("none"))
    with pytest.raises(FileNotFoundError):
        files.size(bucket.path("none"))
    with pytest.raises(FileNotFoundError, match="bucket"):
        files.names("gs://there-is-no-such-bucket/x")
    with pytest.raises(UserError, match=r"cannot write gs://there-is-no-such-bucket/x: .*bucket"):
        files.publish("gs://there-is-no-such-bucket/x", b"")
    for wrong in ("gs://", "gs://Upper/x", "gs:///x", "gs://a b/c"):
        with pytest.raises(OSError, match="does not have the form"):
            files.read_bytes(wrong)


def test_a_download_that_is_too_long_ends(bucket):
    gcs.write(bucket.path("x"), io.BytesIO(os.urandom(LARGE)).getbuffer(), replace=True)
    assert 1000 < len(gcs.read(bucket.path("x"), 1000)) < LARGE


def test_without_credentials_one_line():
    keep = ("PATH", "HOME", "LANG")
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    environment |= {"NO_GCE_CHECK": "true", "HOME": "/nonexistent", "CLOUDSDK_CONFIG": "/nonexistent"}
    words = [sys.executable, "-m", "pipelines.predict", "--catalogue", "gs://some-bucket/c.csv"]
    words += ["--models", "m.yaml", "--output", "gs://some-bucket/out"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: gs:// needs Google credentials")
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.fixture
def out_of_reach(monkeypatch):
    """From now on every request is refused as by a server that is not there; the client gives up at once."""

    def begin():
        from google.api_core.retry import Retry

        monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
        monkeypatch.setattr("google.cloud.storage.retry.DEFAULT_RETRY", Retry(timeout=0.1))
        gcs._client_of.cache_clear()
        for name in ("download_to_file", "upload_from_file", "reload", "exists", "delete"):
            real = getattr(storage.Blob, name)
            monkeypatch.setattr(storage.Blob, name, functools.partialmethod(_once, real))

    yield begin
    gcs._client_of.cache_clear()


def _once(self, real, *arguments, **options):
    return real(self, *arguments, **{**options, "retry": None})


def test_out_of_reach_is_no_damage(bucket, predict, few, trees, out_of_reach):
    """Nothing is said to be damaged, and nothing is removed: the same command goes on later."""
    output = bucket.path("out")
    assert predict(few, trees, "--snippet_size", 10, output=output).code == 0
    plan = plan_file.read(output)
    (ref,) = parts.stored_parts(plan, output)[0]
    rows.read_object.cache_clear()
    before = bucket.content("out")
    server = os.environ["STORAGE_EMULATOR_HOST"]
    out_of_reach()
    for read in (
        lambda: parts.read_part(plan, output, layout.SAMPLES, ref),
        lambda: parts.read_failures(f"{output}/samples/{ref.name}"),
        lambda: plan.read_rows(output, plan.snippet(0)),
        lambda: plan.read_table_rows(output, 0),
        lambda: files.publish(f"{output}/x", b""),
    ):
        with pytest.raises(RunFailed, match=r"out of reach.*the same command goes on"):
            read()
    represented = dataclasses.replace(plan, command="represent")
    with pytest.raises(RunFailed, match="out of reach"):
        part_writer._remove_unfinished(represented, output, ref.name, {})
    with pytest.raises(ImageError, match="out of reach") as error:
        read_bytes(f"{output}/image.jpg")
    assert error.value.may_pass
    os.environ["STORAGE_EMULATOR_HOST"] = server
    gcs._client_of.cache_clear()
    assert bucket.content("out") == before


def test_paths_of_another_kind():
    for wrong in ("gs:/bucket/out", "s3:/bucket/out"):
        with pytest.raises(UserError, match=r"write (gs|s3)://bucket/out"):
            files.absolute(wrong)
    assert files.absolute("gs://") == "gs://" and files.absolute("gs://b/x//") == "gs://b/x"
    assert files.beside("gs://b/c/run.yaml", "../out") == "gs://b/out"
    for climbing in ("../../out", "../../../b/x"):
        with pytest.raises(UserError, match="outside of its bucket"):
            files.beside("gs://b/c/run.yaml", climbing)
    assert image_path("./a/../b.jpg", "gs://b/sky") == "gs://b/sky/b.jpg"
    assert image_path("a//b.jpg", "gs://b/sky") == "gs://b/sky/a//b.jpg"
    assert image_path("gs://b/./x.jpg", "gs://b/sky") == "gs://b/./x.jpg"


def test_only_the_generation_that_was_read_is_replaced(bucket):
    path = bucket.path("plan.json")
    files.publish(path, b"1")
    before = files.read_version(path)
    files.publish(path, b"2", replace=True)
    assert not files.compare_and_swap(path, before, b"3")
    assert files.read_bytes(path) == b"2"
    assert files.compare_and_swap(path, files.read_version(path), b"3")
    assert files.read_bytes(path) == b"3"


@pytest.fixture
def lost_answers(monkeypatch):
    """The first answer to an upload is lost after the server has done its work: the client tries again."""
    session = gcs._client()._http
    real, lost = session.request, []

    def request(method, url, *args, **kwargs):
        answer = real(method, url, *args, **kwargs)
        if method == "POST" and "upload" in url and not lost:
            lost.append(answer.status_code)
            raise requests.exceptions.ConnectionError("the connection was closed")
        return answer

    monkeypatch.setattr(session, "request", request)
    return lost


def test_a_lost_answer_is_not_another_job(bucket, lost_answers):
    """What is there already is what this very call wrote."""
    path = bucket.path("plan.json")
    assert files.publish(path, b"mine")
    assert lost_answers == [200] and files.read_bytes(path) == b"mine"
    lost_answers.clear()
    assert files.compare_and_swap(path, files.read_version(path), b"mine again")
    assert lost_answers == [200] and files.read_bytes(path) == b"mine again"
    lost_answers.clear()
    assert not files.publish(path, b"another's")
    assert files.read_bytes(path) == b"mine again"
