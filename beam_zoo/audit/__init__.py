"""The audit of an output: the steps that read everything again and compute the tables in another way.

May import: everything else but the public face.
"""
