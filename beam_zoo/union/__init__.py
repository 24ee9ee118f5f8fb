"""Several runs read as one: their rows are joined by galaxy id, whatever their order.

`runs` opens runs and says whether they are compatible, `join` finds each row's number in the union, `union`
holds the result, `reading` reads its samples, `incomplete` finds galaxies that lack samples. `output_samples`
does all of this for a finished output.

May import: `tables` and below; not `inference`.
"""
