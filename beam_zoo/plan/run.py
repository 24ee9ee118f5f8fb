"""A run: a plan, and how this command or worker carries it out."""

import dataclasses
import os

from beam_zoo.members.member import Member
from beam_zoo.plan.plan import Plan
from beam_zoo.storage.files import is_remote


@dataclasses.dataclass(frozen=True)
class Run:
    """A plan, and how it is carried out here: only the plan can change a number.

    Attributes:
        plan: what is predicted.
        output: folder of the output, absolute, or gs://bucket/folder.
        image_root: where relative image paths start.
        batch_size: galaxies that are predicted together, and images of one forward pass.
        device: `cpu` or `cuda`; on a cluster also `auto`, which a worker makes one of them.
        progress: name of the counter of finished galaxies if the steps run in this process, else None.
        source: digest of the program's source where the run was prepared, for workers that have a copy of
            their own; empty where they share it.
    """

    plan: Plan
    output: str
    image_root: str
    batch_size: int
    device: str
    progress: str | None = None
    source: str = ""

    def for_workers(self) -> "Run":
        """The run with its members as workers need them."""
        members = tuple(member.for_workers() for member in self.plan.members)
        return dataclasses.replace(self, plan=dataclasses.replace(self.plan, members=members))

    def checkpoint_path(self, member: Member) -> str:
        """Where a member's checkpoint is: staged below the output, or where its YAML says."""
        if is_remote(member.path) or os.path.isabs(member.path):
            return member.path
        return os.path.join(self.output, member.path)
