"""The steps from snippets to the members' outputs: loading images, and the ModelHandler of a checkpoint.

May import: `samples` and below.
"""
