"""The ModelHandler: one checkpoint of the ensemble adds its samples, or its features, to a batch."""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from apache_beam.ml.inference.base import ModelHandler
from torch import nn

from beam_zoo.errors import UserError, one_line
from beam_zoo.images.batch_views import view_task
from beam_zoo.images.decoders import AHEAD
from beam_zoo.images.decoding_processes import begin_to_import
from beam_zoo.images.views import GLOBAL_GENERATOR, View
from beam_zoo.inference import randomness
from beam_zoo.inference.half_weights import with_half_weights
from beam_zoo.inference.settings import InferenceSettings
from beam_zoo.members import checkpoints
from beam_zoo.members.member import Member
from beam_zoo.runtime import progress
from beam_zoo.runtime.code_cache import keep_torch_code
from beam_zoo.runtime.device import AdaptiveBatches, out_of_memory, set_up_torch, used_here
from beam_zoo.samples.records import Batch
from beam_zoo.storage import files

PRECISIONS = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

IMAGES_AT_ONCE = {"cpu": 16, "cuda": 1 << 20}
"""Most images of one forward pass: on a CPU more are hardly faster, and progress is shown less often."""

COMPILED_SIZES = 64


class MemberModel(nn.Module):
    """A member ready to predict: its encoder runs once per view, its head once per pass.

    Dropout is applied here instead of in the head, with masks from (seed, galaxy, member, pass). The head
    always runs in float32: a Dirichlet head underflows in float16.

    Args:
        member: the member.
        model: zoobot's own model with the checkpoint's weights.
        settings: of the ensemble.
    """

    def __init__(self, member: Member, model: Any, settings: InferenceSettings) -> None:
        super().__init__()
        self.member, self.settings = member, settings
        self.encoder: nn.Module = model.encoder
        self.head: nn.Module | None = getattr(model, "head", None)
        self.view = View(member.view)
        self.task = view_task(member.view, member.random_of, settings.passes).name
        whose = f"member {member.name}"
        images = min(settings.batch_size, IMAGES_AT_ONCE[settings.device])
        self._images = AdaptiveBatches(images, whose, "images", "one image")
        self._galaxies = AdaptiveBatches(settings.batch_size, whose, "galaxies", "the passes of one galaxy")
        self._compiled: set[int] = set()
        self._dtype = PRECISIONS[settings.precision]
        if self._dtype is not None:
            some = (torch.arange(math.prod(self.view.shape)) % 251).to(torch.uint8).view(1, *self.view.shape)
            image = self.view.to_float(some.to(settings.device))
            self.encoder = with_half_weights(self.encoder, self._dtype, image)
        if settings.compile:
            self._compile()

    def _compile(self) -> None:
        from torch._dynamo import config

        keep_torch_code()
        # Members of one architecture share compiled code; every size of view or batch is compiled separately.
        # By default torch silently stops compiling after eight.
        config.recompile_limit, config.fail_on_recompile_limit_hit = COMPILED_SIZES, True
        compiled: Any = torch.compile(self.encoder, dynamic=False)
        self.encoder = compiled
        blank = torch.zeros((1, *self.view.shape), dtype=torch.uint8)
        try:
            with torch.inference_mode():
                self._images.work(1, lambda _: self._encode(blank))
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"member {self.member.name}: torch cannot compile its encoder here ({one_line(error, 200)}): "
                "install a C++ compiler, or leave --compile out"
            ) from None

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features of images, of as many at a time as fit on the device.

        Args:
            pixels: uint8, shape (galaxy, view, channel, height, width).

        Returns:
            float32, shape (galaxy, view, feature), on the device.
        """
        images = used_here(pixels).flatten(0, 1)

        def encode(piece: slice) -> torch.Tensor:
            features = self._encode(images[piece])
            # Progress counts galaxies: each forward pass is a fraction of one, over its views and the
            # members.
            galaxies = len(features) / pixels.shape[1] / len(self.settings.members)
            progress.add(self.settings.progress, inferred=galaxies)
            return features

        return self._images.work(len(images), encode).unflatten(0, pixels.shape[:2])

    def _encode(self, images: torch.Tensor) -> torch.Tensor:
        count = len(images)
        if self.settings.compile and count < self._images.at_once:
            # Padded with blank images: torch would compile again for another number of images.
            blank = images.new_zeros((self._images.at_once - count, *images.shape[1:]))
            images = torch.cat([images, blank])
        x = self.view.to_float(images.to(self.settings.device, non_blocking=True))
        dtype = self._dtype
        half = torch.autocast(self.settings.device, dtype) if dtype is not None else contextlib.nullcontext()
        with half, self._compiling(len(x)):
            return self.encoder(x).float()[:count]

    def _compiling(self, count: int) -> contextlib.AbstractContextManager[object]:
        """The compiler saves and restores torch's global generator: no other thread may draw meanwhile."""
        if not self.settings.compile or count in self._compiled:
            return contextlib.nullcontext()
        self._compiled.add(count)
        return GLOBAL_GENERATOR

    def predict(self, features: torch.Tensor, galaxy_keys: np.ndarray) -> torch.Tensor:
        """`samples`, of as many galaxies at a time as fit on the device."""
        return self._galaxies.work(len(features), lambda s: self.samples(features[s], galaxy_keys[s]))

    def samples(self, features: torch.Tensor, galaxy_keys: np.ndarray) -> torch.Tensor:
        """What zoobot's predict_step returns, for every pass.

        Args:
            features: float32, shape (galaxy, view, feature); one view for all passes, or one a pass.
            galaxy_keys: uint64, shape (galaxy,).

        Returns:
            float32, shape (galaxy, pass, output).
        """
        if self.member.dropout_rate:
            keys = randomness.draw_keys(
                galaxy_keys,
                seed=self.settings.seed,
                member=self.member.name,
                purpose="dropout",
                passes=self.settings.pass_numbers,
            )
            rate = self.member.dropout_rate
            features = features * randomness.keep_masks(keys, features.shape[-1], rate, features.device)
        out = self._after_dropout(features)
        # Without dropout and random views all passes are the same: one was computed.
        return out.expand(-1, self.settings.passes, -1)

    def _after_dropout(self, x: torch.Tensor) -> torch.Tensor:
        """zoobot's head without its dropout, and the activation that predict_step applies, if any."""
        head: Any = self.head
        if self.member.kind == "tree":
            return head[1](x)
        x = head.linear(x)
        if self.member.kind == "classifier":
            return torch.softmax(x, dim=-1)
        return x if head.activation is None else head.activation(x)


class MemberHandler(ModelHandler[Batch, Batch, MemberModel]):
    """RunInference's handler of one member: a batch in, the same batch with this member's outputs out.

    Args:
        member: the member.
        settings: of the ensemble.
    """

    def __init__(self, member: Member, settings: InferenceSettings) -> None:
        super().__init__()
        self._member, self._settings = member, settings

    def load_model(self) -> MemberModel:
        """Verify the checkpoint against the plan, and load it.

        Raises:
            UserError: there is no usable GPU or too little memory, or the checkpoint has changed since
                planning.
        """
        member = self._member
        device = set_up_torch(self._settings.device, self._settings.precision)
        settings = dataclasses.replace(self._settings, device=device)
        if AHEAD[device]:
            with contextlib.suppress(OSError):  # the step that loads images reports it
                begin_to_import()
        path = member.path
        data = files.read_file(path)
        if (found := files.sha256(data)) != member.sha256:
            raise UserError(
                f"member {member.name}: {path} has changed since the run was planned "
                f"(SHA-256 {found[:12]}..., planned {member.sha256[:12]}...)"
            )
        content = checkpoints.parse(data, path, trust=member.trust_checkpoint)
        with GLOBAL_GENERATOR:  # constructors draw initial weights
            model = checkpoints.build(
                member.zoobot_class,
                content,
                member.architecture,
                member.architecture_kwargs,
                greyscale=member.greyscale,
                path=path,
            )
        try:
            return MemberModel(member, model.to(device), settings)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            raise UserError(f"member {member.name} does not fit into the memory of the device") from None

    def run_inference(
        self, batch: Batch | Sequence[Batch], model: MemberModel, inference_args: dict[str, Any] | None = None
    ) -> Iterable[Batch]:
        """Add this member's outputs to a batch: shape (galaxy, pass, output), or (galaxy, feature)."""
        assert isinstance(batch, Batch)
        with torch.inference_mode():
            out = self._outputs(batch, model)
        return [dataclasses.replace(batch, outputs={**batch.outputs, self._member.name: out})]

    def _outputs(self, batch: Batch, model: MemberModel) -> torch.Tensor:
        settings = self._settings
        if settings.represent:
            if not len(batch):
                return torch.zeros((0, features_of(model)))
            return model.encode(batch.pixels[model.task]).mean(1)  # over random views
        if not len(batch):
            return torch.zeros((0, settings.passes, len(self._member.outputs)))
        features = model.encode(batch.pixels[model.task])
        return model.predict(features, batch.galaxy_keys)

    def should_skip_batching(self) -> bool:
        """Elements are batches already."""
        return True

    def get_num_bytes(self, batch: Batch | Sequence[Batch]) -> int:
        """Bytes of pixels; the default implementation would pickle every batch."""
        assert isinstance(batch, Batch)
        return batch.nbytes

    def get_metrics_namespace(self) -> str:
        """The namespace of Beam's metrics of this member."""
        return f"beam_zoo.{self._member.name}"


def features_of(model: MemberModel) -> int:
    """Number of features of an encoder, from one blank image."""
    return int(model.encode(torch.zeros((1, 1, *model.view.shape), dtype=torch.uint8)).shape[-1])
