"""Local files on file systems that cannot do everything, and files that several processes replace."""

import errno
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from beam_zoo.errors import StorageFull, UserError
from beam_zoo.storage import files


@pytest.fixture
def folders_do_not_sync(monkeypatch):
    """As on CIFS: fsync of a folder is an invalid argument."""
    real = os.fsync

    def fsync(handle):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    files._TOLD.clear()


@pytest.fixture
def no_hard_links(monkeypatch):
    """As on some FUSE file systems."""

    def link(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "link", link)


def test_folders_that_do_not_sync(folders_do_not_sync, tmp_path, caplog):
    """The file is there, and what is not promised is said once."""
    for name in "ab":
        assert files.publish(str(tmp_path / name), b"data")
        assert (tmp_path / name).read_bytes() == b"data"
    assert len(caplog.messages) == 1
    assert "does not sync folders: after a power cut the last files may be missing" in caplog.messages[0]


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


def test_a_folder_that_syncs_nothing_holds_an_output(predict, few, trees, folders_do_not_sync):
    result = predict(few, trees, "--passes", 1)
    assert result.code == 0 and result.err.count("does not sync folders") == 1, result.err
    assert len(result.table("friendly")) == 23


def _swap(path: str, number: int, start) -> bool:
    before = files.read_version(path)
    start.wait()
    return files.compare_and_swap(path, before, b"%d" % number)


def _worker(path: str, number: int, start, won) -> None:
    won[number] = _swap(path, number, start)


def test_of_many_that_replace_a_file_one_wins(tmp_path):
    """Each has read the same bytes; whoever lost finds the winner's."""
    path, context = str(tmp_path / "plan.json"), multiprocessing.get_context("fork")
    for _ in range(5):
        Path(path).write_bytes(b"old")
        start, won = context.Barrier(6), context.Array("i", [0] * 6)
        workers = [context.Process(target=_worker, args=(path, n, start, won)) for n in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert sum(won) == 1
        assert Path(path).read_bytes() == b"%d" % list(won).index(1)
    assert [each.name for each in tmp_path.iterdir()] == ["plan.json"]


def test_a_file_that_has_changed_is_not_replaced(tmp_path):
    path = str(tmp_path / "plan.json")
    Path(path).write_bytes(b"old")
    before = files.read_version(path)
    Path(path).write_bytes(b"another")
    assert not files.compare_and_swap(path, before, b"new")
    assert Path(path).read_bytes() == b"another"
    assert files.compare_and_swap(path, files.read_version(path), b"new")
    assert Path(path).read_bytes() == b"new"


def test_a_claim_of_a_process_that_was_killed(tmp_path):
    """It stands in the way for a minute, not for ever."""
    path = str(tmp_path / "plan.json")
    Path(path).write_bytes(b"old")
    before = files.read_version(path)
    claim = tmp_path / f".plan.json.{files.sha256(b'old')[:32]}"
    claim.touch()
    assert not files.compare_and_swap(path, before, b"new")
    old = time.time() - files.CLAIM_SECONDS - 1
    os.utime(claim, (old, old))
    assert files.compare_and_swap(path, before, b"new")
    assert Path(path).read_bytes() == b"new" and not claim.exists()


def test_two_jobs_carry_other_columns_at_the_same_time(predict, few, trees, monkeypatch):
    """Of two jobs that update one plan, only the first does."""
    from beam_zoo.plan import plan as plans

    done = predict(few, trees, "--passes", 1)
    real = plans.compare_and_swap

    def late(path, before, data):
        monkeypatch.setattr(plans, "compare_and_swap", real)
        assert predict(few, trees, "--passes", 1, "--carry", "dec", output=done.output).code == 0
        return real(path, before, data)

    monkeypatch.setattr(plans, "compare_and_swap", late)
    other = predict(few, trees, "--passes", 1, "--carry", "ra", output=done.output)
    assert other.code == 2 and "another job has just changed the plan" in other.err.splitlines()[-1]
    assert plans.read(str(done.output)).carried == ("dec",)


def test_a_full_disk_is_found_before_links(monkeypatch, tmp_path):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(StorageFull):
        files.check_hard_links(str(tmp_path))
