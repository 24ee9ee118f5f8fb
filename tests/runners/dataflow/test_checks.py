"""Command lines that are refused before a job of Dataflow is submitted, in one line that says what to do."""

import shlex

import pytest

from pipelines import predict, represent

GOOD = (
    "--catalogue gs://bucket/c.parquet --models m.yaml --output gs://bucket/out --runner=DataflowRunner "
    "--project=a-project --region=r --sdk_container_image=localhost:1/zoo/image:tag"
)
L4 = "worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver"
G2 = "--worker_machine_type=g2-standard-8"


@pytest.fixture
def refusal(capfd):
    """The one line of a command that ends with code 2."""

    def run(words: str, main=predict.main) -> str:
        capfd.readouterr()
        assert main(shlex.split(words)) == 2
        said = capfd.readouterr().err.splitlines()
        assert len(said) == 1, said
        return said[0]

    return run


CASES = {
    "no project": (GOOD.replace("--project=a-project ", ""), "--project is missing"),
    "no region": (GOOD.replace("--region=r ", ""), "--region is missing"),
    "no image": (GOOD.partition(" --sdk_container")[0], "--sdk_container_image is missing"),
    "a local output": (
        GOOD.replace("gs://bucket/out", "out"),
        "--output out: workers of Dataflow see no local files",
    ),
    "a local catalogue": (
        GOOD.replace("gs://bucket/c", "c"),
        "--catalogue c.parquet: workers of Dataflow see no",
    ),
    "local images": (
        f"{GOOD} --image_root /data",
        "--image_root /data: workers of Dataflow see no local files",
    ),
    "a local temporary folder": (f"{GOOD} --temp_location /tmp", "--temp_location /tmp: workers of Dataflow"),
    "a local template": (
        f"{GOOD} --template_location t.json",
        "--template_location t.json: workers of Dataflow",
    ),
    "a misspelt preset": (
        f"{GOOD} --dataflow_preset l40",
        "--dataflow_preset cannot be 'l40' (choose from l4, t4, a100, cpu)",
    ),
    "a preset for another runner": (
        "--dataflow_preset l4 --catalogue c",
        "--dataflow_preset is for --runner=DataflowRunner",
    ),
    "right fitting for another runner": (
        "--dataflow_right_fitting",
        "--dataflow_right_fitting is for --runner=DataflowRunner",
    ),
    "right fitting without a GPU": (
        f"{GOOD} --dataflow_preset cpu --dataflow_right_fitting",
        "needs a --dataflow_preset with a GPU",
    ),
    "a misspelt key": (
        f"{GOOD} {G2} "
        "'--dataflow_service_options=worker_accelerator=typ:nvidia-l4;count:1;install-nvidia-driver'",
        "'typ:nvidia-l4' is no part of an accelerator (did you mean 'type'?)",
    ),
    "a misspelt type": (
        f"{GOOD} {G2} '--dataflow_service_options={L4.replace('nvidia-l4', 'nvidia-L4x')}'",
        "there is no accelerator type 'nvidia-L4x' (did you mean 'nvidia-l4'?)",
    ),
    "a misspelt option": (
        f"{GOOD} {G2} '--dataflow_service_options={L4.replace('worker_a', 'workers_a')}'",
        "'workers_accelerator' is none (did you mean 'worker_accelerator'?)",
    ),
    "a GPU that torch does not know": (
        f"{GOOD} '--dataflow_service_options={L4.replace('nvidia-l4', 'nvidia-tesla-v100')}'",
        "nvidia-tesla-v100 is too old for torch with CUDA 13: "
        "take nvidia-l4, nvidia-tesla-t4, nvidia-tesla-a100",
    ),
    "an accelerator without a count": (
        f"{GOOD} {G2} '--dataflow_service_options={L4.replace(';count:1', '')}'",
        "count must be a number",
    ),
    "no driver": (
        f"{GOOD} {G2} '--dataflow_service_options={L4.removesuffix(';install-nvidia-driver')}'",
        "add ;install-nvidia-driver",
    ),
    "an L4 off a G2": (
        f"{GOOD} --dataflow_preset l4 --worker_machine_type n1-standard-8",
        "nvidia-l4 is on machines of type g2-*, not on n1-standard-8",
    ),
    "an L4 on the default machine": (
        f"{GOOD} '--dataflow_service_options={L4}'",
        "nvidia-l4 is on machines of type g2-*, not on n1-standard-1, Dataflow's default",
    ),
    "a T4 off an N1": (
        f"{GOOD} --dataflow_preset t4 --machine_type n2-standard-8",
        "nvidia-tesla-t4 is on machines of type n1-*, not on n2-standard-8",
    ),
    "two GPUs": (
        f"{GOOD} --worker_machine_type g2-standard-24 "
        f"'--dataflow_service_options={L4.replace('count:1', 'count:2')}'",
        "count:2 is 1 too many: a worker uses one GPU",
    ),
    "a machine with two GPUs": (
        f"{GOOD} --dataflow_preset l4 --worker_machine_type g2-standard-24",
        "g2-standard-24 is no machine with one nvidia-l4, as a worker uses it: g2-standard-8 is one",
    ),
    "a machine with eight GPUs": (
        f"{GOOD} --dataflow_preset a100 --worker_machine_type a2-highgpu-8g",
        "a2-highgpu-8g is no machine with one nvidia-tesla-a100",
    ),
    "a GPU machine for nothing": (
        f"{GOOD} --dataflow_preset cpu --worker_machine_type g2-standard-8",
        "g2-standard-8 has GPUs that would not be used",
    ),
    "a hint and a service option": (
        f"{GOOD} --dataflow_preset l4 --dataflow_right_fitting '--dataflow_service_options={L4}'",
        "do not go together",
    ),
    "a misspelt hint": (
        f"{GOOD} --resource_hint=accelerator=type:nvidia-l40",
        "there is no accelerator type 'nvidia-l40' (did you mean 'nvidia-l4'?)",
    ),
    "a hint for an L4 without its machine": (
        f"{GOOD} '--resource_hint=accelerator={L4.partition('=')[2]}'",
        "nvidia-l4 is on machines of type g2-*",
    ),
    "right fitting and FlexRS": (
        f"{GOOD} --dataflow_preset l4 --dataflow_right_fitting --flexrs_goal COST_OPTIMIZED",
        "--flexrs_goal and right fitting do not go together",
    ),
    "a GPU that nobody asked for": (
        f"{GOOD} --device cuda",
        "no GPU is asked for: give --dataflow_preset l4, t4, a100",
    ),
    "a GPU that is not used": (
        f"{GOOD} --dataflow_preset l4 --device cpu",
        "--device=cpu, but workers with a GPU are asked for",
    ),
    "bf16 on a T4": (
        f"{GOOD} --dataflow_preset t4 --precision bf16",
        "an NVIDIA T4 has no bfloat16; use fp16",
    ),
    "another driver": (
        f"{GOOD} {G2} '--dataflow_service_options={L4}:6xx'",
        "'install-nvidia-driver:6xx' is no part of an accelerator "
        "(did you mean 'install-nvidia-driver:5xx'?)",
    ),
    "a key twice": (f"{GOOD} {G2} '--dataflow_service_options={L4};count:1'", "count is given twice"),
    "a machine in a service option": (
        f"{GOOD} {G2} '--dataflow_service_options={L4};machine_type:g2-standard-8'",
        "machine_type belongs to a hint",
    ),
    "a machine that does not exist": (
        f"{GOOD} --dataflow_preset l4 --worker_machine_type g2-standard-9",
        "g2-standard-9 is no machine with one nvidia-l4",
    ),
    "a large machine for one T4": (
        f"{GOOD} --dataflow_preset t4 --worker_machine_type n1-standard-96",
        "n1-standard-96 is no machine with one nvidia-tesla-t4",
    ),
    "another GPU machine for nothing": (
        f"{GOOD} --worker_machine_type a2-megagpu-16g",
        "a2-megagpu-16g has GPUs that would not be used",
    ),
    "an Arm machine": (f"{GOOD} --worker_machine_type t2a-standard-8", "t2a-standard-8 has Arm processors"),
    "an accelerator as an experiment": (
        f"{GOOD} '--experiments={L4}'",
        "--experiments worker_accelerator: give it by --dataflow_service_options",
    ),
    "Prime and a service option": (
        f"{GOOD} --dataflow_preset l4 --dataflow_service_options enable_prime",
        "does not go with enable_prime: use --dataflow_right_fitting",
    ),
    "a job name": (f"{GOOD} --job_name 'My Job'", "(My Job)"),
    "a project number": (GOOD.replace("--project=a-project", "--project=12345"), "(12345)"),
    "more workers than the most": (f"{GOOD} --num_workers 5 --max_num_workers 2", "(Apache Beam)"),
    "a misspelt kind of hint": (f"{GOOD} --resource_hint=acelerator=type:nvidia-l4", "--resource_hint: "),
    "a hint without a size": (f"{GOOD} --resource_hint=min_ram=lots", "--resource_hint: "),
    "a setup file that is not there": (f"{GOOD} --setup_file ./no-setup.py", "there is no ./no-setup.py"),
    "an output with one slash": (GOOD.replace("gs://bucket/out", "gs:/bucket/out"), "write gs://bucket/out"),
    "tf32 on a CPU": (
        f"{GOOD} --dataflow_preset cpu --precision tf32",
        "--precision=tf32 is a mode of NVIDIA GPUs",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(refusal, name):
    """Before anything is asked of any service: there is none here."""
    words, said = CASES[name]
    assert said in refusal(words)


def test_represent_too(refusal):
    said = refusal(f"{GOOD} --dataflow_preset l4 --worker_machine_type n1-standard-8", represent.main)
    assert "nvidia-l4 is on machines of type g2-*" in said
