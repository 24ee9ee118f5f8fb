"""Joins on disk against plain Python: partitions, and the mappings of several catalogues' rows."""

import errno
import os
import random
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from beam_zoo.errors import StorageFull
from beam_zoo.union import join
from beam_zoo.union.working_files import PartitionWriter, create_array, read_partition


@pytest.mark.parametrize("buffer", [1, 1000, 1 << 30])
def test_partitions_keep_every_row_and_the_order(tmp_path, buffer):
    random_ = np.random.default_rng(0)
    writer, expected = PartitionWriter(str(tmp_path / "b"), buffer), {}
    start = 0
    for size in (0, 1, 50, 7, 200):
        numbers = random_.integers(0, 9, size)
        rows = np.arange(start, start + size)
        start += size
        writer.add(numbers, pa.table({"row": rows, "text": [f"row {n}" for n in rows]}))
        for number, row in zip(numbers, rows, strict=True):
            expected.setdefault(int(number), []).append(int(row))
    writer.flush()
    for number in range(10):
        table = read_partition(str(tmp_path / "b"), number)
        if number not in expected:
            assert table is None
            continue
        assert table.column("row").to_pylist() == expected[number]
        assert table.column("text").to_pylist() == [f"row {n}" for n in expected[number]]


@pytest.mark.parametrize("seed", range(12))
def test_mappings_are_those_of_a_plain_loop(tmp_path, monkeypatch, seed):
    """Several catalogues that overlap, in any order, through many small partitions and ranges."""
    monkeypatch.setattr(join, "IDS_PER_PARTITION", 7)
    monkeypatch.setattr(join, "ROWS_AT_ONCE", 5)
    chance = random.Random(seed)
    names = [f"galaxy {n} é" for n in range(40)]
    catalogues = [sorted(chance.sample(names, chance.randint(1, 40))) for _ in range(chance.randint(1, 5))]
    for ids in catalogues:
        if chance.random() < 0.5:
            chance.shuffle(ids)
    catalogues += chance.choices(catalogues, k=2)  # the same catalogue twice
    monkeypatch.setattr(
        join,
        "_read_ids",
        lambda plan, _: (pa.chunked_array([plan.ids[n : n + 3]]) for n in range(0, plan.rows, 3)),
    )
    plans = [
        SimpleNamespace(ids=ids, rows=len(ids), catalogue=SimpleNamespace(sha256=str(catalogues.index(ids))))
        for ids in catalogues
    ]
    mappings, total = join.join_by_id([(plan, "") for plan in plans], str(tmp_path))
    expected: dict[str, int] = {}
    for ids in catalogues:
        for name in ids:
            expected.setdefault(name, len(expected))
    assert total == len(expected)
    for mapping, ids in zip(mappings, catalogues, strict=True):
        where = [expected[name] for name in ids]
        assert mapping.union_rows(0, len(ids)).tolist() == where
        assert mapping.is_increasing == (where == sorted(where))
        if mapping.is_increasing:
            for start, stop in ((0, total), (3, 9), (total - 1, total)):
                rows = mapping.own_rows(start, stop, len(ids))
                assert [n for n, w in enumerate(where) if start <= w < stop] == list(rows)
    assert not list(tmp_path.glob("ids*"))


def test_mapped_files_have_their_space(tmp_path, monkeypatch):
    """A hole in a mapped file would be a SIGBUS on a full disk."""
    path = tmp_path / "some.npy"
    mapped = create_array(str(path), np.int64, 100_000)
    assert path.stat().st_blocks * 512 >= path.stat().st_size > 800_000
    assert mapped.shape == (100_000,) and not mapped.any()
    assert create_array(str(tmp_path / "none.npy"), np.uint64, 0).shape == (0,)

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageFull, match="no space left"):
        create_array(str(path), np.int64, 100_000)
