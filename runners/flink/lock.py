"""Write `lock.json` for another version of the Beam Flink runner. This needs Maven; `install` does not.

python -m runners.flink.lock 1.19.3 2.62.0 > runners/flink/lock.json
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from beam_zoo.storage.files import sha256
from runners.flink.install import PYPI

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>lock</groupId><artifactId>lock</artifactId><version>1</version>
  <dependencies><dependency>
    <groupId>org.apache.beam</groupId><artifactId>beam-runners-flink-{line}</artifactId>
    <version>{beam}</version>
  </dependency></dependencies>
</project>"""
IN_THE_DISTRIBUTION = "org/apache/flink/"


def make(flink: str, beam: str) -> dict[str, object]:
    """The files that `install` downloads.

    Args:
        flink: version of Flink, such as `1.19.3`.
        beam: version of the Beam Flink runner, such as `2.62.0`.

    Returns:
        The content of `lock.json`: packages of PyPI, and paths in a Maven repository, each with its SHA-256.
    """
    line = flink.rpartition(".")[0]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "pom.xml").write_text(POM.format(line=line, beam=beam))
        copy = [
            "dependency:copy-dependencies",
            "-Dmdep.useRepositoryLayout=true",
            f"-DoutputDirectory={root}/jars",
        ]
        subprocess.run(
            ["mvn", "-q", "-B", "-f", root, *copy, "-DincludeScope=runtime"], check=True, stdout=sys.stderr
        )
        jars = sorted(str(path.relative_to(root / "jars")) for path in (root / "jars").rglob("*.jar"))
        maven = {
            jar: sha256((root / "jars" / jar).read_bytes())
            for jar in jars
            if not jar.startswith(IN_THE_DISTRIBUTION)
        }
        pypi = {name: _pip_hash(f"{name}=={flink}", kind) for name, kind in PYPI.items()}
    return {"flink": flink, "beam_runner": beam, "pypi": pypi, "maven": maven}


def _pip_hash(requirement: str, kind: list[str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder, *kind, requirement]
        subprocess.run(pip, check=True, stdout=sys.stderr)
        (file,) = Path(folder).iterdir()
        return sha256(file.read_bytes())


if __name__ == "__main__":
    if len(sys.argv) != 3 or not all(re.fullmatch(r"\d+\.\d+\.\d+", word) for word in sys.argv[1:]):
        sys.exit(__doc__)
    print(json.dumps(make(*sys.argv[1:]), indent=1))
