"""Galaxy morphology catalogues from ensembles of Zoobot models: the commands as functions.

    import beam_zoo

    output = beam_zoo.predict(catalogue="galaxies.csv", models=["a.yaml", "b.yaml"], output="OUT", passes=5)
    rings = output.friendly().sort_values("ring_yes_fraction", ascending=False)

Functions that return an `Output`; all but the last are commands, with their options as keywords:

- `predict`: vote fractions of a catalogue's galaxies, as tables.
- `represent`: the encoders' features instead.
- `finish`: the tables of an output whose samples came from several jobs.
- `aggregate`: one set of tables from several outputs.
- `open_output`: an output that is there already.

`Predict` is a transform for other pipelines of Beam: `rows | beam_zoo.Predict(models=["a.yaml"], passes=5)`.

Others: `audit` reads an output again and says what is wrong; `export` writes its samples as an HDF5 file;
`read_member` reads a member's YAML file.
Errors: `UserError`, `RunFailed`, `TooManyFailures`, `StorageFull`.

Everything is imported when it is first used. The packages below this one are not part of the public
interface, and import neither this module, nor `pipelines` (the commands), nor `runners` (the engines).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beam_zoo.errors import RunFailed, StorageFull, TooManyFailures, UserError
    from beam_zoo.members.member import read_member
    from beam_zoo.results import Output, open_output
    from pipelines.library import aggregate, audit, export, finish, predict, represent
    from pipelines.transform import Predict

__version__ = "0.1.0"

__all__ = [
    "Output",
    "Predict",
    "RunFailed",
    "StorageFull",
    "TooManyFailures",
    "UserError",
    "aggregate",
    "audit",
    "export",
    "finish",
    "open_output",
    "predict",
    "read_member",
    "represent",
]

_MODULES = {
    "beam_zoo.errors": ("RunFailed", "StorageFull", "TooManyFailures", "UserError"),
    "beam_zoo.members.member": ("read_member",),
    "beam_zoo.results": ("Output", "open_output"),
    "pipelines.library": ("aggregate", "audit", "export", "finish", "predict", "represent"),
    "pipelines.transform": ("Predict",),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'beam_zoo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
