"""A job server of Beam in one jar, as Beam publishes it, made of the installation's own jars."""

import zipfile
from pathlib import Path

MANIFEST = """Manifest-Version: 1.0
Main-Class: org.apache.beam.runners.flink.FlinkJobServerDriver
Multi-Release: true
Add-Opens: java.base/java.lang java.base/java.net java.base/java.io java.base/java.nio
  java.base/sun.nio.ch java.base/java.lang.reflect java.base/java.text java.base/java.util
  java.base/java.util.concurrent java.base/java.util.concurrent.atomic
"""


def make(flink: Path, jar: Path) -> Path:
    """Merge the runner, Flink and their dependencies.

    Args:
        flink: an installation.
        jar: the file to write.
    """
    merged: dict[str, bytes] = {}
    with zipfile.ZipFile(jar, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
        seen = set()
        for path in [
            *sorted((flink / "runner").glob("*.jar")),
            *sorted((flink / "flink" / "lib").glob("*.jar")),
        ]:
            with zipfile.ZipFile(path) as part:
                for name in part.namelist():
                    if name.endswith((".SF", ".DSA", ".RSA", "MANIFEST.MF", "module-info.class", "/")):
                        continue
                    if name.startswith("META-INF/services/") or name == "reference.conf":
                        merged[name] = merged.get(name, b"") + b"\n" + part.read(name)
                    elif name not in seen:
                        seen.add(name)
                        out.writestr(name, part.read(name))
        for name, content in merged.items():
            out.writestr(name, content)
        out.writestr("META-INF/MANIFEST.MF", MANIFEST)
    return jar
