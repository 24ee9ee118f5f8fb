"""Parts: written once, whole or not at all, and believed only when undamaged."""

import dataclasses
import errno
import json
import os
import threading
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_zoo.errors import StorageFull, UserError
from beam_zoo.images.failure import Failure
from beam_zoo.plan import plan_file
from beam_zoo.samples import part_writer, parts
from beam_zoo.samples.records import SnippetBatch
from beam_zoo.storage import files, layout

ROWS = 8


@pytest.fixture
def planned(predict, few, trees):
    """A plan of 8 rows in 2 snippets, with one pass and the members of `trees`, and its output."""
    result = predict(few, trees, "--limit", ROWS, "--snippet_size", 5, "--passes", 1)
    made = plan_file.read(str(result.output))
    assert made is not None
    return made, str(result.output)


def batches(made, snippet, *, failed=(), size=2, seed=0):
    """Random outputs for a snippet's galaxies, in batches."""
    chance = np.random.default_rng(seed)
    offsets = np.array([o for o in snippet.offsets if o not in failed])
    out = []
    for start in range(0, len(offsets), size):
        some = offsets[start : start + size]
        outputs = {m.name: chance.random((len(some), 1, 34), np.float32) for m in made.members}
        out.append(SnippetBatch(some, np.zeros(len(some), np.uint64), {}, outputs, [], snippet))
    out.append(
        SnippetBatch(
            np.zeros(0, np.int64),
            np.zeros(0, np.uint64),
            {},
            {m.name: np.zeros((0, 1, 34), np.float32) for m in made.members},
            [Failure(o, "image", "gone — für immer", False) for o in failed],
            snippet,
        )
    )
    return out


def test_what_is_written_is_read(planned):
    made, output = planned
    snippet = made.snippet(1)
    os.unlink(os.path.join(output, "samples", layout.part_name(1)))
    given = batches(made, snippet, failed=(1,))
    ref = part_writer.write_parts(made, output, snippet, given[::-1])
    part = parts.read_part(made, output, "samples", ref)
    assert part.offsets.tolist() == [0, 2]
    assert part.failures == [Failure(1, "image", "gone — für immer", False)]
    table = part.table.to_pandas()
    assert list(table["member"]) == ["a", "b", "a", "b"]
    ids, _ = made.read_rows(output, snippet)
    assert list(table["id_str"]) == [ids[0], ids[0], ids[2], ids[2]]
    for index, member in enumerate("ab"):
        expected = np.concatenate([b.outputs[member] for b in given])[:, 0]
        np.testing.assert_array_equal(table[index::2][list(made.outputs)], expected)


def test_columns_that_may_be_null_are_columns_too(planned):
    """Parquet's readers do not care which it is, and parts of earlier versions are so."""
    made, output = planned
    path = os.path.join(output, "samples", layout.part_name(0))
    ref = parts.PartRef(0, layout.part_name(0))
    before = parts.read_part(made, output, "samples", ref)
    assert not any(field.nullable for field in before.table.schema)
    schema = pa.schema(
        [field.with_nullable(True) for field in before.table.schema], before.table.schema.metadata
    )
    os.unlink(path)
    files.publish(path, parts.to_parquet(before.table.cast(schema)))
    after = parts.read_part(made, output, "samples", ref)
    assert after.table.schema.equals(schema)
    assert after.table.to_pydict() == before.table.to_pydict()
    # Some of them: nobody wrote that, and a flipped bit may make it so, with other values.
    some = [field.with_nullable(number == 5) for number, field in enumerate(schema)]
    os.unlink(path)
    files.publish(path, parts.to_parquet(before.table.cast(pa.schema(some, schema.metadata))))
    with pytest.raises(UserError, match=r"is damaged \(it has other columns\)"):
        parts.read_part(made, output, "samples", ref)


@pytest.mark.parametrize("shape", [(4, 1, 34), (1, 1, 34), (5, 2, 34), (5, 1, 1), (5, 1, 35), (5, 34, 1)])
def test_outputs_of_another_shape_are_not_stored(planned, shape):
    made, output = planned
    snippet = made.snippet(0)
    os.unlink(os.path.join(output, "samples", layout.part_name(0)))
    (given,) = batches(made, snippet, size=5)[:1]
    good = dict(given.outputs)
    name = made.members[-1].name
    assert good[name].shape == (5, 1, 34)
    given.outputs = good | {name: np.ones(shape, np.float32)}
    with pytest.raises(AssertionError, match=f"member {name} gave outputs of shape"):
        part_writer.write_parts(made, output, snippet, [given])
    given.outputs = good
    part_writer.write_parts(made, output, snippet, [given])


def test_any_flipped_bit_is_seen_or_harmless(planned):
    made, output = planned
    ref = parts.PartRef(0, layout.part_name(0))
    path = os.path.join(output, "samples", ref.name)
    data = Path(path).read_bytes()
    healthy = parts.read_part(made, output, "samples", ref)
    seen = 0
    chance = np.random.default_rng(0)
    positions = [*range(400), *range(len(data) - 400, len(data)), *chance.integers(0, len(data), 1200)]
    for position in positions:
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(chance.integers(8))
        with open(path, "wb") as file:
            file.write(damaged)
        try:
            part = parts.read_part(made, output, "samples", ref)
        except UserError as error:
            assert path in str(error)
            seen += 1
            continue
        assert part.table.equals(healthy.table)
        assert part.failures == healthy.failures
        assert part.offsets.tolist() == healthy.offsets.tolist()
    assert seen > len(positions) / 2


@pytest.mark.parametrize("length", [0, 1, 100, -1, -100])
def test_a_truncated_part_is_seen(planned, length):
    made, output = planned
    path = os.path.join(output, "samples", layout.part_name(0))
    data = Path(path).read_bytes()[:length]
    with open(path, "wb") as file:
        file.write(data)
    with pytest.raises(UserError, match="damaged"):
        parts.read_part(made, output, "samples", parts.PartRef(0, layout.part_name(0)))


def test_of_many_writers_the_first_wins(tmp_path):
    """Every reader sees one whole content, whatever the others do."""
    path = str(tmp_path / "samples" / "part.parquet")
    contents = [bytes([n]) * 200_000 for n in range(8)]
    results = [False] * 8

    def write(n):
        results[n] = files.publish(path, contents[n])

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(results) == 1
    with open(path, "rb") as file:
        assert file.read() == contents[results.index(True)]
    assert [p.name for p in (tmp_path / "samples").iterdir()] == ["part.parquet"]


def test_a_full_disk(tmp_path, monkeypatch):
    """One line, nothing under the final name, no litter."""

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StorageFull, match="make room and run the same command again"):
        files.publish(str(tmp_path / "samples" / "part.parquet"), b"content")
    assert list((tmp_path / "samples").iterdir()) == []


def test_a_snippet_must_be_whole(planned):
    made, output = planned
    snippet = made.snippet(0)
    with pytest.raises(AssertionError, match="other galaxies"):
        part_writer.write_parts(made, output, snippet, batches(made, snippet)[1:])
    with pytest.raises(AssertionError, match="other galaxies"):
        part_writer.write_parts(made, output, snippet, batches(made, snippet) * 2)


def test_a_second_try_without_success_stores_nothing(planned):
    made, output = planned
    snippet = dataclasses.replace(made.snippet(0), only=(1, 3), attempt=1)
    assert part_writer.write_parts(made, output, snippet, batches(made, snippet, failed=(1, 3))) is None
    assert not parts.is_stored(made, output, snippet)


def test_the_same_table_gives_the_same_bytes():
    table = pa.table({"id_str": ["a", "b"], "x": np.array([1, np.nan], np.float32)})
    assert parts.to_parquet(table).equals(parts.to_parquet(table))
    assert pq.read_table(pa.BufferReader(parts.to_parquet(table, "snappy"))).schema == table.schema


def test_part_names_sort_in_catalogue_order():
    names = [layout.part_name(s, a) for s in (0, 1, 9, 10, 99_999, 100_000) for a in (0, 1, 2)]
    assert names == sorted(names)


def test_metadata_is_json_a_person_can_read(planned):
    made, output = planned
    schema = pq.read_schema(os.path.join(output, "samples", layout.part_name(0)))
    metadata = json.loads(schema.metadata[b"beam_zoo"])
    assert (metadata.pop("galaxies"), metadata) == (
        ANY,
        {"fingerprint": made.fingerprint, "snippet": 0, "attempt": 0, "failures": []},
    )
