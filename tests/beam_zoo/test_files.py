"""Local files on file systems that cannot do everything, and files that several processes replace."""

import errno
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from beam_zoo.errors import StorageFull, UserError
from beam_zoo.storage import files, local
from beam_zoo.storage import output as outputs


@pytest.fixture
def folders_do_not_sync(monkeypatch):
    """As on CIFS: fsync of a folder is an invalid argument."""
    real = os.fsync

    def fsync(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(local, "_UNSYNCED_DEVICES", set())


@pytest.fixture
def no_hard_links(monkeypatch):
    """As on some FUSE file systems."""

    def link(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "link", link)


def test_folders_that_do_not_sync(folders_do_not_sync, tmp_path, caplog):
    """The files are there, and one line for all folders says what is not promised."""
    for name in ("a", "b", "folder/c"):
        assert files.publish(str(tmp_path / name), b"data")
        assert (tmp_path / name).read_bytes() == b"data"
    assert len(caplog.messages) == 1
    assert "does not sync folders: after a power cut the newest files may be missing" in caplog.messages[0]


def test_other_errors_of_a_folder_are_errors(monkeypatch, tmp_path):
    real = os.fsync

    def fsync(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UserError, match="Input/output error"):
        files.publish(str(tmp_path / "a"), b"data")


@pytest.mark.parametrize("options", [[], ["--dry_run"]])
def test_no_hard_links_are_found_at_planning(predict, few, trees, no_hard_links, tmp_path, options):
    """Nothing is left behind, of a dry run neither."""
    result = predict(few, trees, *options, output=tmp_path / "out")
    assert result.code == 2
    assert result.err.splitlines()[-1].endswith(
        "has no hard links (Function not implemented): use another --output"
    )
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".beam-zoo*"))


NO_SYNC = """
import errno, os
real = os.fsync

def fsync(handle):
    if os.path.isdir(f"/proc/self/fd/{handle}"):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    real(handle)

os.fsync = fsync
"""


def test_a_folder_that_syncs_nothing_holds_an_output(few, trees, tmp_path):
    """The command succeeds, and says in one line, whatever its processes, what is not promised."""
    (tmp_path / "sitecustomize.py").write_text(NO_SYNC)
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    words = ["--catalogue", few, "--models", *trees, "--output", tmp_path / "out", "--passes", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.predict", *map(str, words)],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("does not sync folders") == 1, done.stderr
    assert pq.read_table(tmp_path / "out" / "friendly").num_rows == 23


def _swap(path: str, number: int, start, won) -> None:
    before = files.read_version(path)
    start.wait()
    won[number] = files.compare_and_swap(path, before, b"%d" % number)


def _winners(path: Path, count: int = 6) -> list[int]:
    """Which of several processes replace a file that each has read; it holds what the first of them wrote."""
    context = multiprocessing.get_context("fork")
    start, won = context.Barrier(count), context.Array("i", [0] * count)
    workers = [context.Process(target=_swap, args=(str(path), n, start, won)) for n in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    winners = [number for number in range(count) if won[number]]
    assert winners and path.read_bytes() == b"%d" % winners[0]
    return winners


def test_of_many_that_replace_a_file_one_wins(tmp_path):
    """Each has read the same bytes; whoever lost finds the winner's."""
    path = tmp_path / "plan.json"
    for _ in range(5):
        path.write_bytes(b"old")
        assert len(_winners(path)) == 1
    assert os.listdir(tmp_path) == ["plan.json"]


def test_a_file_that_has_changed_is_not_replaced(tmp_path):
    path = str(tmp_path / "plan.json")
    Path(path).write_bytes(b"old")
    before = files.read_version(path)
    Path(path).write_bytes(b"another")
    assert not files.compare_and_swap(path, before, b"new")
    assert Path(path).read_bytes() == b"another"
    assert files.compare_and_swap(path, files.read_version(path), b"new")
    assert Path(path).read_bytes() == b"new"


@pytest.fixture
def stale_claim(tmp_path, monkeypatch):
    """A file whose content was claimed long ago, by a process that was killed before it replaced the file."""
    monkeypatch.setattr(local, "CLAIM_SECONDS", 0.5)
    path = tmp_path / "plan.json"
    path.write_bytes(b"old")
    claim, clock = Path(local.claim_path(str(path), b"old")), tmp_path / "clock"
    claim.touch()
    while not clock.exists() or clock.stat().st_ctime - claim.stat().st_ctime < local.CLAIM_SECONDS:
        clock.touch()
    clock.unlink()
    return path


def test_a_claim_of_a_process_that_was_killed(stale_claim, monkeypatch):
    """It stands in the way for a minute, not for ever; the next process that replaces the file removes it."""
    path = str(stale_claim)
    before = files.read_version(path)
    monkeypatch.setattr(local, "CLAIM_SECONDS", 60)
    assert not files.compare_and_swap(path, before, b"new") and stale_claim.read_bytes() == b"old"
    monkeypatch.setattr(local, "CLAIM_SECONDS", 0.5)
    assert files.compare_and_swap(path, before, b"new") and stale_claim.read_bytes() == b"new"
    assert os.listdir(stale_claim.parent) == ["plan.json"]


def test_of_many_that_find_a_stale_claim_one_wins(stale_claim):
    assert len(_winners(stale_claim)) == 1
    assert os.listdir(stale_claim.parent) == ["plan.json"]


def test_a_claim_ends_with_an_error(tmp_path, monkeypatch):
    path = str(tmp_path / "plan.json")
    Path(path).write_bytes(b"old")

    def refuse(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch, pytest.raises(UserError, match="Input/output error"):
        patch.setattr(os, "replace", refuse)
        files.compare_and_swap(path, files.read_version(path), b"new")
    assert os.listdir(tmp_path) == ["plan.json"]
    assert files.compare_and_swap(path, files.read_version(path), b"new")


def test_a_lost_answer_of_a_file_server(tmp_path, monkeypatch):
    """NFS asks again for a link that was made, and is told that the name is taken."""
    real = os.link

    def lost(source, target):
        real(source, target)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    monkeypatch.setattr(os, "link", lost)
    path = str(tmp_path / "a")
    assert files.publish(path, b"mine") and Path(path).read_bytes() == b"mine"
    assert files.compare_and_swap(path, files.read_version(path), b"new")
    monkeypatch.setattr(os, "link", real)
    assert not files.publish(path, b"another's") and Path(path).read_bytes() == b"new"


@pytest.mark.parametrize("moment", ["before", "during"])
def test_two_jobs_carry_other_columns_at_the_same_time(predict, few, trees, monkeypatch, moment):
    """Of two jobs that began with one plan only the first updates it, even if the second comes later."""
    from beam_zoo.plan import plan_file
    from pipelines import planning

    done = predict(few, trees, "--passes", 1)
    module, name = {"before": (planning, "publish"), "during": (plan_file, "compare_and_swap")}[moment]
    real = getattr(module, name)

    def late(*args, **kwargs):
        monkeypatch.setattr(module, name, real)
        assert predict(few, trees, "--passes", 1, "--carry", "dec", output=done.output).code == 0
        return real(*args, **kwargs)

    monkeypatch.setattr(module, name, late)
    other = predict(few, trees, "--passes", 1, "--carry", "ra", output=done.output)
    assert other.code == 2 and "another job has just changed the plan" in other.err.splitlines()[-1]
    assert plan_file.read(str(done.output)).carried == ("dec",)


def test_a_full_disk_is_found_before_links(monkeypatch, tmp_path):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(StorageFull):
        outputs.check(str(tmp_path / "out"), overwrite=False)
