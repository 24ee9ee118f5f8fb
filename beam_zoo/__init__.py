"""What a worker needs to predict galaxy morphology: DoFns, CombineFns and model handlers.

This package knows nothing of `pipelines` (the commands) or `runners` (the engines).
"""

__version__ = "0.1.0"
