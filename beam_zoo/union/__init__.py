"""Several runs read as one: their rows joined by galaxy id, whatever their order.

May import: `tables` and below; not `inference`.
"""
