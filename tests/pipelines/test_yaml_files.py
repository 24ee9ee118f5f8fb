"""YAML files that come through a pipe, and mistakes in them."""

import os
import subprocess
import sys

from beam_zoo.storage import yaml_files


def test_a_pipe_that_nobody_writes_to(predict, own_catalogue, trees, tmp_path, monkeypatch):
    monkeypatch.setattr(yaml_files, "PIPE_SECONDS", 0.1)
    os.mkfifo(tmp_path / "pipe.yaml")
    result = predict(own_catalogue, tmp_path / "pipe.yaml")
    assert (result.code == 2 and "mapping of names" in result.err) or "nobody writes" in result.err


def test_a_pipe_that_a_shell_writes_to(own_catalogue, trees, tmp_path):
    """`--config <(...)`, with a writer that takes its time."""
    script = 'exec "$0" -m pipelines.predict --config <(sleep 0.5; echo "passes: 3") --print_config'
    done = subprocess.run(["bash", "-c", script, sys.executable], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("passes")] == ["3"]


def test_a_key_twice_in_a_yaml(predict, own_catalogue, trees, tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text(trees[0].read_text() + "\nname: other\n")
    result = predict(own_catalogue, path)
    assert result.code == 2 and "duplicate key 'name'" in result.err
