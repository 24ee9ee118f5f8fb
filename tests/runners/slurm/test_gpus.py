"""What stands in the options of sbatch that ask for GPUs."""

import pytest

from beam_zoo.errors import UserError
from runners.slurm.gpus import GRES, PER_NODE, PER_TASK, Gpus, take


@pytest.mark.parametrize(
    ("per_node", "directives", "found"),
    [
        (None, {}, Gpus()),
        ("0", {}, Gpus()),
        ("4", {}, Gpus(4)),
        ("a100:4", {}, Gpus(4, "a100")),
        (None, {"gres": "gpu"}, Gpus(1, None, GRES)),
        (None, {"gres": "gpu:3"}, Gpus(3, None, GRES)),
        (None, {"gres": "gpu:a100"}, Gpus(1, "a100", GRES)),
        (None, {"gres": "gpu:nvidia_a100_80gb:2"}, Gpus(2, "nvidia_a100_80gb", GRES)),
        (None, {"gres": "gres/gpu:2"}, Gpus(2, None, GRES)),
        (None, {"gres": "nvme:100,gpu:1,lic"}, Gpus(1, None, GRES, ("nvme:100", "lic"))),
        (None, {"gres": "nvme:100"}, Gpus(others=("nvme:100",))),
        ("2", {"gres": "nvme:100"}, Gpus(2, None, PER_NODE, ("nvme:100",))),
        (None, {"gpus-per-task": "a100:2"}, Gpus(2, "a100", PER_TASK)),
        ("2", {"gres": "gpu:a100:2"}, Gpus(2, "a100", GRES)),
    ],
)
def test_read(per_node, directives, found):
    """Every form; what was read is not a directive any more."""
    rest = {**directives, "constraint": "fast"}
    assert take(per_node, rest) == found
    assert rest == {"constraint": "fast"}


@pytest.mark.parametrize(
    ("per_node", "directives", "said"),
    [
        ("2", {"gres": "gpu:1"}, "--gres and --gpus-per-node ask for different GPUs"),
        ("0", {"gres": "gpu:2"}, "--gres and --gpus-per-node ask for different GPUs"),
        ("h100:2", {"gpus-per-task": "a100:2"}, "--gpus-per-task and --gpus-per-node ask for different GPUs"),
        ("two", {}, "--gpus-per-node: 'two' is not a whole number or TYPE:N"),
        ("a100:1,v100:1", {}, "--gpus-per-node: 'a100:1,v100:1' is not a whole number or TYPE:N"),
        (None, {"gres": "gpu:a100:1,gpu:v100:1"}, "the GPUs of a job are of one kind"),
        (None, {"gres": "gpu:a100:b:1"}, "--gres: 'a100:b:1' is not a whole number or TYPE:N"),
        (None, {"gres": "shard:4"}, "--gres=shard:4: a worker has a whole GPU"),
        (None, {"gpus-per-task": None}, "--gpus-per-task: '' is not"),
    ],
)
def test_refused(per_node, directives, said):
    """One line that names the option."""
    with pytest.raises(UserError, match=said):
        take(per_node, directives)
