"""Settings of the steps that load images and predict, from a run's plan or from `beam_zoo.Predict`."""

import dataclasses

from beam_zoo.members.member import Member
from beam_zoo.plan.run import Run


@dataclasses.dataclass(frozen=True)
class InferenceSettings:
    """How batches of images become samples.

    Attributes:
        members: the ensemble; each member's path is that of its checkpoint.
        pass_numbers: numbers of the passes.
        seed: of all random draws.
        batch_size: galaxies that are predicted together, and images of one forward pass.
        device: `cpu`, `cuda`, or `auto`, which each worker resolves.
        precision: of the encoder.
        compile: whether encoders are compiled.
        fast_images: whether large JPEGs are decoded to fewer pixels.
        fast_views: whether the views of a batch are made together.
        gpu_decoder: whether a GPU decodes JPEGs.
        represent: whether outputs are features, not samples.
        progress: name of the run's `LocalProgress` if the steps run in this process, else None.
    """

    members: tuple[Member, ...]
    pass_numbers: range
    seed: int
    batch_size: int
    device: str
    precision: str
    compile: bool
    fast_images: bool
    fast_views: bool
    gpu_decoder: bool = False
    represent: bool = False
    progress: str | None = None

    @classmethod
    def of(cls, run: Run) -> "InferenceSettings":
        """The settings of a run."""
        plan = run.plan
        return cls(
            members=tuple(dataclasses.replace(m, path=run.checkpoint_path(m)) for m in plan.members),
            pass_numbers=plan.pass_numbers,
            seed=plan.seed,
            batch_size=run.batch_size,
            device=run.device,
            precision=plan.precision,
            compile=plan.compile,
            fast_images=plan.fast_images,
            fast_views=bool(plan.fast_views),
            gpu_decoder=plan.gpu_decoder,
            represent=plan.command == "represent",
            progress=run.progress,
        )

    @property
    def passes(self) -> int:
        """How many passes there are."""
        return len(self.pass_numbers)
