"""Installing Flink from a Maven mirror and a pip index on this machine, with small files of the same form."""

import http.server
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_zoo.storage.files import sha256
from runners.flink import install as installation
from runners.flink.__main__ import main

VERSION = "1.19.3"
WHEEL = f"apache_flink-{VERSION}-cp311-cp311-manylinux2014_x86_64.whl"
JARS = {f"org/example/{name}/1/{name}-1.jar": name.encode() * 100 for name in ("runner", "core", "grpc")}


def sdist(path: Path) -> None:
    """As apache-flink-libraries is made: a setup.py, and jars below deps/."""
    files = {
        "setup.py": b"from setuptools import setup\nsetup(name='apache-flink-libraries', version='1.19.3')\n",
        "PKG-INFO": b"Metadata-Version: 2.1\nName: apache-flink-libraries\nVersion: 1.19.3\n",
        f"deps/lib/flink-dist-{VERSION}.jar": b"dist",
        "deps/lib/log4j-core-2.17.1.jar": b"log4j",
        f"deps/lib/flink-csv-{VERSION}.jar": b"not needed",
        "deps/bin/bash-java-utils.jar": b"utils",
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"apache-flink-libraries-{VERSION}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def wheel(path: Path) -> None:
    """As apache-flink is made: scripts and configuration below pyflink/."""
    info = f"apache_flink-{VERSION}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pyflink/bin/taskmanager.sh", "#!/bin/sh\n")
        archive.writestr("pyflink/conf/config.yaml", "env: {}\n")
        archive.writestr("pyflink/table.py", "")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: apache-flink\nVersion: {VERSION}\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: cp311-cp311-manylinux2014_x86_64\n")
        archive.writestr(f"{info}/RECORD", "")


class Mirror(http.server.ThreadingHTTPServer):
    """Serves `files`, and remembers what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {f"/maven/{path}": content for path, content in JARS.items()}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/maven/"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        content = self.server.files.get(self.path)
        self.send_response(200 if content is not None else 404)
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Iterator[Mirror]:
    """A mirror, an index for pip, and a lock of what they hold."""
    index = tmp_path / "index"
    index.mkdir()
    sdist(index / f"apache-flink-libraries-{VERSION}.tar.gz")
    wheel(index / WHEEL)
    files = {"apache-flink-libraries": f"apache-flink-libraries-{VERSION}.tar.gz", "apache-flink": WHEEL}
    lock = {
        "flink": VERSION,
        "beam_runner": "2.62.0",
        "pypi": {name: sha256((index / file).read_bytes()) for name, file in files.items()},
        "maven": {path: sha256(content) for path, content in JARS.items()},
    }
    monkeypatch.setattr(installation, "read_lock", lambda: lock)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    server = Mirror()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def install(mirror, tmp_path, capfd):
    """Runs `python -m runners.flink install` in this process: code and stderr."""

    def run(*options: object, folder: Path = tmp_path / "flink") -> tuple[int, str]:
        code = main(["install", str(folder), "--maven_repository", mirror.url, *map(str, options)])
        return code, capfd.readouterr().err

    return run


def test_all_is_there(install, mirror, tmp_path):
    """The runner's jars, Flink's scripts and jars, the class, `boot`; a second run downloads nothing."""
    assert install() == (0, "")
    root = tmp_path / "flink"
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    classes = {name for name in found if name.startswith("classes/")}
    assert f"classes/{installation._SERVERS}" in classes
    assert found - classes == {
        "boot",
        "installed.json",
        "flink/bin/bash-java-utils.jar",
        "flink/bin/taskmanager.sh",
        "flink/conf/config.yaml",
        f"flink/lib/flink-dist-{VERSION}.jar",
        "flink/lib/log4j-core-2.17.1.jar",
        "runner/core-1.jar",
        "runner/grpc-1.jar",
        "runner/runner-1.jar",
    }
    assert os.access(root / "boot", os.X_OK) and os.access(root / "flink/bin/taskmanager.sh", os.X_OK)
    assert installation.check(str(root)) == root
    mirror.asked.clear()
    assert install() == (0, "") and not mirror.asked


def test_goes_on_after_a_failure(install, mirror, tmp_path):
    """Downloaded files are kept; the line says what to do; the installation counts as unfinished."""
    path = "/maven/org/example/grpc/1/grpc-1.jar"
    content = mirror.files.pop(path)
    code, err = install()
    assert code == 2 and "404" in err and "--maven_repository URL" in err and len(err.splitlines()) == 1
    with pytest.raises(Exception, match=r"was not finished: python -m runners\.flink install"):
        installation.check(str(tmp_path / "flink"))
    mirror.files[path] = content
    mirror.asked.clear()
    assert install() == (0, "")
    assert path in mirror.asked and len(mirror.asked) <= len(JARS)


def test_other_bytes(install, mirror):
    """A file that is not the lock's is refused by name."""
    mirror.files["/maven/org/example/core/1/core-1.jar"] = b"something else"
    code, err = install()
    assert code == 2 and "core-1.jar is not the file of the lock (SHA-256 " in err


def test_other_bytes_from_pypi(install, tmp_path):
    """pip compares the digests."""
    with zipfile.ZipFile(tmp_path / "index" / WHEEL, "a") as archive:
        archive.writestr("more", "")
    code, err = install()
    assert code == 2 and err.startswith("error: pip cannot download apache-flink==1.19.3: ")
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in err and len(err.splitlines()) == 1


def test_not_on_pypi(install, tmp_path):
    """One line of pip's."""
    (tmp_path / "index" / WHEEL).unlink()
    code, err = install()
    assert code == 2 and "No matching distribution found for apache-flink==1.19.3" in err


def test_folders_of_others(install, tmp_path):
    """Nothing is written into a folder that holds other things, or another installation."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").touch()
    code, err = install(folder=other)
    assert code == 2 and "is not empty and not an installation" in err and os.listdir(other) == ["file"]
    assert install()[0] == 0
    code, err = install("--job_server_jar", tmp_path / "other.jar")
    assert code == 2 and "holds another installation" in err


def test_no_url(mirror, tmp_path, capfd):
    """A wrong repository."""
    assert main(["install", str(tmp_path / "flink"), "--maven_repository", "nowhere"]) == 2
    assert "is not a URL" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("server.jar", None, "No such file"),
        ("server.jar", {}, "is not a job server of Beam's Flink runner"),
        ("beam-runners-flink-1.20-job-server-2.77.0.jar", {}, "is for Flink 1.20, and Flink 1.19.3 is"),
        ("server.jar", {installation._RUNNER: b"", installation._SERVERS: b""}, "holds no gRPC, or several"),
    ],
)
def test_a_wrong_job_server(install, tmp_path, name, content, said):
    """Refused before Flink is downloaded."""
    jar = tmp_path / name
    if content is not None:
        with zipfile.ZipFile(jar, "w") as archive:
            for entry, data in content.items():
                archive.writestr(entry, data)
    code, err = install("--job_server_jar", jar)
    assert code == 2 and said in err and len(err.splitlines()) == 1


def test_no_jar_at_all(install, tmp_path):
    """A file of another kind."""
    jar = tmp_path / "server.jar"
    jar.write_text("<html>")
    assert "is not a jar" in install("--job_server_jar", jar)[1]


def test_the_lock_is_whole():
    """Every file has a digest, Flink's own jars come with Flink, and the versions are one set."""
    lock = installation.__dict__["read_lock"]()
    assert set(lock["pypi"]) == set(installation.PYPI)
    digests = [*lock["pypi"].values(), *lock["maven"].values()]
    assert all(len(digest) == 64 and int(digest, 16) for digest in digests)
    assert not any(path.startswith("org/apache/flink/") for path in lock["maven"])
    assert len({os.path.basename(path) for path in lock["maven"]}) == len(lock["maven"])
    line = lock["flink"].rpartition(".")[0]
    runner = f"org/apache/beam/beam-runners-flink-{line}/{lock['beam_runner']}/"
    assert any(path.startswith(runner) for path in lock["maven"])
