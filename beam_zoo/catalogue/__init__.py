"""A catalogue's rows: read from Parquet or CSV, normalised, and checked.

May import: `images` and below; not `members`.
"""
