"""Predictions as a transform of other people's pipelines: `beam_zoo.Predict`."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import apache_beam as beam

from beam_zoo.errors import UserError, did_you_mean
from beam_zoo.inference.load_rows import LoadRows
from beam_zoo.inference.settings import InferenceSettings
from beam_zoo.members.compatible import check_compatible
from beam_zoo.members.member import Member, MemberSpec
from beam_zoo.members.resolve import resolve
from beam_zoo.samples.records import RowBatch
from beam_zoo.storage.files import absolute
from beam_zoo.tables.columns import column_names
from beam_zoo.tables.dictionaries import FAILURES, MakeDictionaries
from pipelines import checks
from pipelines.options import BY_NAME, Options, Sampling, member_list
from pipelines.samples import infer

NAMES = (
    *(field.name for field in dataclasses.fields(Sampling)),
    *("batch_size", "device", "image_root", "allow_outside", "interval", "carry"),
)
"""The options of the command that the transform has too."""


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What statistics are computed of."""

    kind: str
    members: tuple[Member, ...]
    outputs: tuple[str, ...]
    interval: str


class Predict(beam.PTransform):
    """Predict vote fractions of the galaxies of a PCollection, bounded or not.

    Elements are dictionaries with `id_str`, and with `file_loc`, a path, or `image`, the bytes of a JPEG or
    PNG file. Each becomes a dictionary with the columns of the advanced table, in its own window and with its
    own timestamp; a galaxy without a prediction becomes one with the columns of the failures table, and what
    is carried, in the output `failures`. The numbers are those of `beam_zoo.predict`: random draws depend on
    the seed, the galaxy's id, the member and the pass.

    There is no shuffle: galaxies are batched within their bundle and window. A batch of few galaxies takes
    nearly as long as a full one, and a galaxy in several (sliding) windows is predicted in each: give windows
    after this transform where possible. Pane information is lost.

    Without `image_root`, paths must be absolute or remote, and may lead anywhere. Each thread of a worker
    that runs bundles has its own decoders: a GPU needs few such threads.

    Workers read the checkpoints from where they are now: for those on other machines, that is a shared disk
    or gs://. In the process that a model is loaded into, torch's number of threads and its TF32 flags are
    set, and on a CPU glibc keeps freed memory.

    Args:
        models: the members of the ensemble: YAML files, or what `read_member` made of them.
        samples: whether a dictionary also has `samples`, one dictionary for each member and pass.
        **options: the command's `passes`, `first_pass`, `seed`, `precision`, `compile`, `fast_images`,
            `fast_views`, `gpu_decoder`, `batch_size`, `device`, `image_root`, `allow_outside`, `interval` and
            `carry`.

    Raises:
        UserError: a member or an option is wrong.

    >>> import apache_beam as beam
    >>> row = {"id_str": "J0", "image": open("galaxy.jpg", "rb").read()}
    >>> with beam.Pipeline("FnApiRunner") as pipeline:
    ...     found = pipeline | beam.Create([row]) | beam_zoo.Predict(models=["a.yaml", "b.yaml"], passes=3)
    ...     _ = found.predictions | beam.Map(lambda galaxy: print(galaxy["id_str"], len(galaxy)))
    J0 25
    """

    def __init__(
        self,
        models: Sequence[str | os.PathLike[str] | MemberSpec],
        *,
        samples: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        for name in options:
            if name not in NAMES:
                raise UserError(f"Predict has no option {name!r}{did_you_mean(name, NAMES)}")
        if not (given_models := member_list(models)):
            raise UserError("models is empty: give at least one member")
        given = {name: BY_NAME[name].convert(value) for name, value in options.items() if value is not None}
        self._options = Options.of(given)
        self._samples = samples
        self._members = _members(given_models, self._options)
        carried, first = self._options.inputs.carry, self._members[0]
        checks.names("predict", carried, self._members)
        if samples and "samples" in {*carried, *column_names(first.kind, first.outputs)[1]}:
            raise UserError("'samples' is a column already: leave samples=True out, or rename that column")

    def expand(self, rows: "beam.PCollection[Mapping[str, Any]]") -> Any:
        """`predictions` and `failures`."""
        options, first = self._options, self._members[0]
        settings = _settings(self._members, options)
        root, allow_outside = options.inputs.image_root, options.inputs.allow_outside
        root = absolute(root) if root else None
        load = beam.ParDo(LoadRows(settings, root, allow_outside, options.inputs.carry))
        batches = infer(rows | "load images" >> load.with_output_types(RowBatch), settings)
        statistics = Statistics(first.kind, self._members, first.outputs, options.tables.interval)
        carried = options.inputs.carry
        make = MakeDictionaries(statistics, settings.pass_numbers, carried, samples=self._samples)
        outputs = beam.ParDo(make).with_outputs(FAILURES, main="predictions")
        return batches | "make dictionaries" >> outputs


def _members(models: Sequence[str | MemberSpec], options: Options) -> tuple[Member, ...]:
    """The members, each with the path where its checkpoint is now."""
    found = [resolve(spec, None, "", represent=False) for spec in checks.read_members(models)]
    members = tuple(dataclasses.replace(member, path=absolute(path)) for member, path in found)
    check_compatible([(member.name, member) for member in members])
    checks.settings_fit("predict", options, members)
    return members


def _settings(members: tuple[Member, ...], options: Options) -> InferenceSettings:
    sampling = options.sampling
    return InferenceSettings(
        members=tuple(member.for_workers() for member in members),
        pass_numbers=range(sampling.first_pass, sampling.first_pass + sampling.passes),
        seed=sampling.seed,
        batch_size=options.work.batch_size,
        device=options.work.device,
        precision=sampling.precision,
        compile=sampling.compile,
        fast_images=sampling.fast_images,
        fast_views=sampling.fast_views,
        gpu_decoder=sampling.gpu_decoder,
    )
