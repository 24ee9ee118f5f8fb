"""The process that a step runs in: its device, memory, compiled code, versions, logging and progress.

May import: `storage` and `errors`.
"""
