"""The process that steps run in: its device, memory, compiled code, versions, logging and progress.

May import: `storage` and `errors`.
"""
