"""Damages of the output of `audited.trees`, each a function of its folder or of one of its tables."""

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tests.pipelines import audited as a

PART, ADDED, OTHER = (f"samples/part-{name}.parquet" for name in ("0000000", "0000000_1", "0000003"))
FRIENDLY, ADVANCED, FAILURES = (
    f"{name}/part-000001.parquet" for name in ("friendly", "advanced", "failures")
)
ANSWER = "smooth-or-featured-dr8_smooth"


def metadata(output):
    """Other failures in a part's metadata, whose checksum stays."""
    table = pq.read_table(output / PART)
    text = table.schema.metadata[b"beam_zoo"].replace(b"image", b"imagf")
    a.write(output / PART, table.replace_schema_metadata({**table.schema.metadata, b"beam_zoo": text}))


def truncate(output):
    data = (output / PART).read_bytes()
    (output / PART).write_bytes(data[: len(data) // 2])


def swap(frame):
    return frame.iloc[[1, 0, *range(2, len(frame))]]


def swap_bounds(output):
    def edit(frame):
        low, high = f"{ANSWER}_90pc-lower", f"{ANSWER}_90pc-upper"
        frame.loc[2, [low, high]] = frame.loc[2, [high, low]].to_numpy()

    a.change(output, ADVANCED, edit)


def rename(output, name, old, new):
    table = pq.read_table(output / name)
    a.write(output / name, table.rename_columns([new if n == old else n for n in table.column_names]))


def retype(output, name, column, kind):
    table = pq.read_table(output / name)
    where = table.schema.get_field_index(column)
    a.write(output / name, table.set_column(where, column, table.column(column).cast(kind)))


def require(output, name, column):
    """A column that must have a value in every row."""
    table = pq.read_table(output / name)
    where = table.schema.get_field_index(column)
    field = table.schema.field(column).with_nullable(False)
    a.write(output / name, table.set_column(where, field, table.column(column)))


def unmask(output):
    """A number where the friendly table masks one: the right number, of the advanced table."""
    friendly = pd.read_parquet(output / FRIENDLY)
    row, column = np.argwhere(friendly.isna().to_numpy() & (np.arange(friendly.shape[1]) > 3))[0]
    name = friendly.columns[column]
    right = pd.read_parquet(output / ADVANCED)[name][row]
    a.cell(output, FRIENDLY, int(row), name, float(right))


def more_in_both(output):
    """Another fraction in both tables, so that each agrees with the other."""
    for name in (FRIENDLY, ADVANCED):
        a.cell(output, name, 3, f"{ANSWER}_fraction", lambda x: x - 1e-4)


def another_id(frame):
    frame.loc[2, "id_str"] = "somebody else"


def one_for_another(frame):
    """The second of two galaxies' samples under the id of the first."""
    frame.loc[4:7, "id_str"] = frame.loc[0, "id_str"]


def rows_of(output):
    """Where a plan's rows are."""
    (folder,) = (output / "_plan").glob("rows-*")
    return folder


def plan_rows(output):
    """Another image in the plan, in the same layout."""
    path = rows_of(output) / "000001.parquet"
    with pq.ParquetFile(path) as file:
        groups = [file.read_row_group(i) for i in range(file.num_row_groups)]
    where = groups[0].column_names.index("file_loc")
    locations = groups[0].column("file_loc").to_pylist()
    groups[0] = groups[0].set_column(where, "file_loc", pa.array(["images/9999.jpg", *locations[1:]]))
    with pq.ParquetWriter(path, groups[0].schema) as file:
        for group in groups:
            file.write_table(group)


def plan_json(output):
    """A plan of other ids, whose fingerprint says so."""
    path = output / "_plan" / "plan.json"
    content = json.loads(path.read_text())
    content["catalogue"]["sha256"] = 64 * "0"
    path.write_text(json.dumps(content))


def plan_values(output, **values):
    path = output / "_plan" / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def carried_everywhere(output):
    """Another carried text in the plan and in both tables."""
    (folder,) = (output / "_plan").glob("carried-*")
    path = folder / "000001.parquet"
    with pq.ParquetFile(path) as file:
        groups = [file.read_row_group(i) for i in range(file.num_row_groups)]
    where = groups[0].column_names.index("note")
    notes = groups[0].column("note").to_pylist()
    changed = pa.array([notes[0], "another", *notes[2:]], groups[0].schema.field("note").type)
    groups[0] = groups[0].set_column(where, groups[0].schema.field("note"), changed)
    with pq.ParquetWriter(path, groups[0].schema) as file:
        for group in groups:
            file.write_table(group)
    for name in (FRIENDLY, ADVANCED):
        a.cell(output, name, 1, "note", "another")


def other_part(output):
    shutil.copy(output.parents[0] / "other-part", output / PART)


def forget_part(output):
    """No trace of an added part: not in its folder, not in the manifest; the tables still have its galaxy."""
    (output / ADDED).unlink()
    a.manifest(output, lambda m: m["parts"].remove(a.listed(m, "parts", ADDED)))


def surplus_failures(output):
    """A failures table where nothing failed: rows invented, and listed."""
    table = pq.read_table(output / FAILURES)
    a.write(output / "failures" / "part-000001.parquet", pa.concat_tables([table, table]))


def invent_failure(frame):
    row = frame.iloc[:1].copy()
    row["id_str"] = "gal 0009"
    return pd.concat([row, frame])


def count(output, **counts):
    a.manifest(output, lambda m: m.update(counts))


def members_sha(output):
    a.manifest(output, lambda m: m["members"][1].update(sha256=64 * "a"))
