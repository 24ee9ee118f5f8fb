"""Our one class of Java, and a job server instead of the pinned runner."""

import subprocess
from pathlib import Path

from beam_zoo.storage.files import sha256
from runners.flink import install


def classes(folder: Path) -> dict[str, bytes]:
    """All classes below a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.class")}


def test_the_class_is_that_of_its_source(flink, tmp_path):
    """The bytes in the repository are what the source beside them gives."""
    source = install.HERE / "java" / "ServerFactory.java"
    words = ["javac", *install.JAVAC, "-cp", f"{flink}/runner/*", "-d", tmp_path, source]
    subprocess.run(words, check=True)
    assert classes(tmp_path) == classes(install.HERE / "java" / "classes") == classes(flink / "classes")


def test_a_job_server_jar(flink, job_server_jar, tmp_path):
    """Our class is compiled against it, so that it stands before the jar's own and fits."""
    made = install._take_jar(tmp_path / "installed", str(job_server_jar), "1.19.3")
    assert made == {"sha256": sha256(job_server_jar.read_bytes())}
    assert (tmp_path / "installed" / "runner" / "job-server.jar").read_bytes() == job_server_jar.read_bytes()
    assert classes(tmp_path / "installed" / "classes") == classes(flink / "classes")
