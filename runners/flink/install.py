"""Install Flink, Beam's runner for it and the starter of workers into a folder of a shared file system.

    python -m runners.flink install DIR

This needs no root, no Docker and no Maven. The SHA-256 of every file is checked against `lock.json`.
"""

import concurrent.futures
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

from beam_zoo.errors import RunFailed, UserError, one_line
from beam_zoo.storage.files import publish, sha256, storage, write_json

HERE = Path(__file__).parent
CENTRAL = "https://repo.maven.apache.org/maven2"
MARK = "installed.json"
PYPI = {
    "apache-flink-libraries": ["--no-binary=:all:", "--no-build-isolation"],
    # Scripts and configuration are the same in all wheels of a version: this one is used on any machine.
    "apache-flink": [
        "--only-binary=:all:",
        "--platform=manylinux2014_x86_64",
        "--implementation=cp",
        "--python-version=3.11",
        "--abi=cp311",
    ],
}
"""Packages that are downloaded from PyPI, and the options with which pip finds the right file of each."""
_LIBRARIES = re.compile(r"deps/(lib/(?:flink-dist|log4j)-[^/]+\.jar|bin/bash-java-utils\.jar)")
_SCRIPTS = re.compile(r"pyflink/((?:bin|conf)/[^/]+)")
_RUNNER = "org/apache/beam/runners/flink/FlinkPipelineRunner.class"
_SERVERS = "org/apache/beam/sdk/fn/server/ServerFactory.class"
_VENDORED = re.compile(r"org/apache/beam/vendor/grpc/(v\w+)/io/grpc/BindableService\.class")
_BOOT = """#!/bin/sh
# What Flink starts a worker with: Beam's own starter is part of its containers only.
exec "$BEAM_ZOO_PYTHON" -m runners.flink.boot "$@"
"""
AT_ONCE = 8
SECONDS = 60


def read_lock() -> dict[str, Any]:
    """The content of `lock.json`: versions, and files to download with their SHA-256."""
    return json.loads((HERE / "lock.json").read_text())


def install(target: str, repository: str = CENTRAL, job_server_jar: str | None = None) -> None:
    """Put all that a Flink job needs into a folder; files that are there already, and right, are kept.

    Args:
        target: the folder; absent, empty, or an unfinished installation.
        repository: URL of a Maven repository, or of a mirror of Maven Central.
        job_server_jar: path or URL of a published Beam job server, to be used instead of the pinned runner.

    Raises:
        UserError: the folder has other files, or a file cannot be downloaded or has another SHA-256.
        StorageFull: the disk or the quota is full.
    """
    lock = read_lock()
    root = Path(os.path.abspath(os.path.expanduser(target)))
    wanted = _wanted(lock, job_server_jar)
    if (root / MARK).exists():
        if _read_mark(root).get("wanted") == wanted:
            check(target)
            return
        raise UserError(f"{root} holds another installation: choose another folder, or remove this one")
    if root.exists() and (not root.is_dir() or any(root.iterdir())) and not (root / ".installing").exists():
        raise UserError(f"{root} is not empty and not an installation: choose another folder")
    with storage(str(root)):
        root.mkdir(parents=True, exist_ok=True)
        (root / ".installing").touch()
        if job_server_jar is None:
            _download_runner(root / "runner", repository, lock["maven"])
            shutil.copytree(HERE / "java" / "classes", root / "classes", dirs_exist_ok=True)
            found: dict[str, Any] = {"beam_runner": lock["beam_runner"]}
        else:
            found = _take_jar(root, job_server_jar, lock["flink"])
        _download_flink(root / "flink", lock)
        (root / "boot").write_text(_BOOT)
        (root / "boot").chmod(0o755)
        files = {str(path.relative_to(root)): sha256(path.read_bytes()) for path in _files(root)}
        found |= {"wanted": wanted, "flink": lock["flink"], "job_server_jar": job_server_jar, "files": files}
        write_json(str(root / MARK), found)
        (root / ".installing").unlink(missing_ok=True)


def check(folder: str) -> Path:
    """Check an installation: it is complete and unchanged, and has the versions of `lock.json`.

    Returns:
        Its absolute path.

    Raises:
        UserError: it is not; the message says how to make it.
    """
    root = Path(os.path.abspath(os.path.expanduser(folder)))
    how = f"python -m runners.flink install {shlex.quote(str(root))}"
    if not (root / MARK).is_file():
        state = "an installation that was not finished" if (root / ".installing").exists() else "not there"
        raise UserError(f"Flink in {root} is {state}: {how}")
    mark = _read_mark(root)
    if mark.get("wanted") != _wanted(read_lock(), mark.get("job_server_jar")):
        raise UserError(f"{root} was installed by another version of this program: remove it, then {how}")
    there = {str(path.relative_to(root)): path for path in _files(root)}
    for name in sorted(there.keys() | mark["files"].keys()):
        if name not in mark["files"]:
            raise UserError(f"{root / name} was not there when {root} was installed: remove it")
        if name not in there or sha256(there[name].read_bytes()) != mark["files"][name]:
            raise UserError(f"{root / name} is not as it was installed: remove {root}, then {how}")
    return root


def _read_mark(root: Path) -> dict[str, Any]:
    try:
        return json.loads((root / MARK).read_text())
    except ValueError:
        raise UserError(f"{root / MARK} is damaged: remove {root}, and install again") from None


def _files(root: Path) -> list[Path]:
    own = {MARK, ".installing"}
    return [path for path in root.rglob("*") if path.is_file() and str(path.relative_to(root)) not in own]


def class_path(root: Path) -> str:
    """The class path of Beam's runner: the replacement of its class `ServerFactory` first, then its jars."""
    return f"{root}/classes:{root}/runner/*"


def _wanted(lock: dict[str, Any], job_server_jar: str | None) -> str:
    source = (HERE / "java" / "ServerFactory.java").read_text()  # an earlier version let other users connect
    return sha256(json.dumps([lock, job_server_jar, _BOOT, source], sort_keys=True).encode())


def _download_runner(folder: Path, repository: str, jars: dict[str, str]) -> None:
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        url = repository.rstrip("/")
        jobs = [
            pool.submit(_download, f"{url}/{path}", folder / os.path.basename(path), digest)
            for path, digest in jars.items()
        ]
        try:
            for job in concurrent.futures.as_completed(jobs):
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _download(url: str, file: Path, digest: str) -> None:
    if file.exists() and sha256(file.read_bytes()) == digest:
        return
    data = _get(url)
    if (found := sha256(data)) != digest:
        raise UserError(
            f"{url} is not the file of the lock (SHA-256 {found[:12]}..., wanted {digest[:12]}...)"
        )
    publish(str(file), data, replace=True)


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            return answer.read()
    except ValueError:
        raise UserError(f"{url} is not a URL") from None
    except (OSError, EOFError) as error:
        raise UserError(
            f"cannot download {url} ({one_line(error)}): behind a mirror use --maven_repository URL"
        ) from None


def _download_flink(folder: Path, lock: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        files = {name: _pip(name, lock["flink"], lock["pypi"][name], temporary) for name in PYPI}
        with tarfile.open(files["apache-flink-libraries"]) as archive:
            for member in archive:
                if found := _LIBRARIES.fullmatch(member.name.partition("/")[2]):
                    content = archive.extractfile(member)
                    assert content is not None
                    publish(str(folder / found[1]), content.read(), replace=True)
        with zipfile.ZipFile(files["apache-flink"]) as wheel:
            for name in wheel.namelist():
                if found := _SCRIPTS.fullmatch(name):
                    publish(str(folder / found[1]), wheel.read(name), replace=True)
    for script in (folder / "bin").glob("*.sh"):
        script.chmod(0o755)


def _pip(name: str, version: str, digest: str, temporary: str) -> Path:
    """Download one file with pip, with pip's own settings of index, mirror and certificates."""
    folder = Path(temporary, name)
    folder.mkdir()
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{name}=={version} --hash=sha256:{digest}\n")
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    words += ["--require-hashes", *PYPI[name], "--dest", str(folder), "--requirement", str(requirement)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = one_line(" ".join(lines) or done.stderr)
        raise UserError(f"pip cannot download {name}=={version}: {reason}")
    requirement.unlink()
    (file,) = folder.iterdir()
    return file


def _take_jar(root: Path, location: str, flink: str) -> dict[str, Any]:
    """Install a published job server instead of the pinned runner, and `ServerFactory` compiled for it."""
    name = os.path.basename(urllib.parse.urlparse(location).path)
    line = flink.rpartition(".")[0]
    other = re.search(r"flink-(\d+\.\d+)", name)
    if other and other[1] != line:
        raise UserError(f"{name} is for Flink {other[1]}, and Flink {flink} is what is installed")
    if "://" in location:
        data = _get(location)
    else:
        try:
            data = Path(os.path.expanduser(location)).read_bytes()
        except OSError as error:
            raise UserError(f"cannot read --job_server_jar {location}: {error.strerror}") from None
    jar = root / "runner" / "job-server.jar"
    publish(str(jar), data, replace=True)
    for path, content in classes(jar, location).items():
        publish(str(root / "classes" / path), content, replace=True)
    return {"sha256": sha256(data)}


def classes(jar: Path, location: str) -> dict[str, bytes]:
    """The class `ServerFactory` for a jar of Beam's Flink runner: path in the jar -> bytes.

    Args:
        jar: the jar.
        location: its path or URL, for messages.

    Raises:
        UserError: it is not such a jar, or the class must be compiled and there is no JDK.
    """
    try:
        with zipfile.ZipFile(jar) as content:
            names = content.namelist()
    except zipfile.BadZipFile:
        raise UserError(f"{location} is not a jar") from None
    if _RUNNER not in names or _SERVERS not in names:
        raise UserError(f"{location} is not a job server of Beam's Flink runner")
    vendored = {found[1] for found in map(_VENDORED.fullmatch, names) if found}
    if len(vendored) != 1:
        raise UserError(f"{location} holds no gRPC, or several: other users could connect to its workers")
    with tempfile.TemporaryDirectory() as folder:
        root = HERE / "java" / "classes"
        (version,) = vendored
        if f"vendor.grpc.{version}." not in (HERE / "java" / "ServerFactory.java").read_text():
            root = Path(folder, "classes")
            _compile(root, jar, version, location)
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.class")}


def _compile(classes: Path, jar: Path, vendored: str, location: str) -> None:
    java = os.environ.get("JAVA_HOME")
    javac = os.path.join(java, "bin", "javac") if java else "javac"
    if shutil.which(javac) is None:
        raise UserError(
            f"{location} needs a JDK, to compile the class that protects its workers: there is no javac "
            "(set JAVA_HOME, or put it on the PATH)"
        )
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "ServerFactory.java")
        text = (HERE / "java" / "ServerFactory.java").read_text()
        source.write_text(re.sub(r"vendor\.grpc\.v\w+", f"vendor.grpc.{vendored}", text))
        done = subprocess.run(
            [javac, *JAVAC, "-cp", str(jar), "-d", str(classes), str(source)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    if done.returncode:
        reason = one_line(done.stderr)
        raise RunFailed(f"the class that protects its workers does not fit {location}: {reason}")


JAVAC = ["--release", "11", "-g:none"]
"""Options of javac with which every version from 11 on makes the same class files."""
