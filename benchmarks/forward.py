"""Alternatives for the forward pass on a CPU: galaxies/s of one member, and changes of its vote fractions.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.forward

One ZoobotTree (convnext_nano, random weights), 16 images at a time, without dropout; ways take turns, and
rates are medians. Changes are those of all vote fractions against fp32, on 64 galaxies.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import workload

BATCH, IMAGES = 16, 64
Way = Callable[[torch.Tensor], torch.Tensor]
"""From images, float32 in [0, 1], to the encoder's features, float32."""


def eager(encoder: Any) -> Way:
    return encoder


def channels_last(encoder: Any) -> Way:
    moved = encoder.to(memory_format=torch.channels_last)
    return lambda x: moved(x.contiguous(memory_format=torch.channels_last))


def bf16(way: Callable[[Any], Way]) -> Callable[[Any], Way]:
    """Another way in bfloat16 autocast."""

    def build(encoder: Any) -> Way:
        built = way(encoder)

        def run(x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return built(x).float()

        return run

    return build


def compiled(encoder: Any) -> Way:
    torch._dynamo.reset()
    return torch.compile(encoder, dynamic=False)


def frozen(encoder: Any) -> Way:
    """Compiled with the weights as constants."""
    import torch._inductor.config

    way = compiled(encoder)

    def run(x: torch.Tensor) -> torch.Tensor:
        with torch._inductor.config.patch(freezing=True):
            return way(x)

    return run


def int8_linear(encoder: Any) -> Way:
    """torch's dynamic quantisation, of linear layers only (timm's convnext_nano has convolutions instead)."""
    return torch.ao.quantization.quantize_dynamic(encoder, {torch.nn.Linear}, dtype=torch.qint8)


def _exported(encoder: Any) -> Path:
    path = Path(tempfile.mkdtemp()) / "encoder.onnx"
    torch.onnx.export(encoder, (torch.zeros(BATCH, 3, 224, 224),), path, dynamo=True, verbose=False)
    return path


def onnxruntime(encoder: Any) -> Way:
    import onnxruntime as ort

    session = ort.InferenceSession(str(_exported(encoder)), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def onnxruntime_int8(encoder: Any) -> Way:
    import onnxruntime as ort
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = _exported(encoder)
    small = path.with_name("int8.onnx")
    quantize_dynamic(
        path, small, weight_type=QuantType.QUInt8, op_types_to_quantize=["MatMul", "Gemm", "Conv"]
    )
    session = ort.InferenceSession(str(small), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def openvino(precision: str) -> Callable[[Any], Way]:
    def build(encoder: Any) -> Way:
        import openvino as ov

        model = ov.convert_model(_exported(encoder))
        done = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
        return lambda x: torch.from_numpy(next(iter(done(x.numpy()).values())).copy())

    return build


WAYS: dict[str, Callable[[Any], Way]] = {
    "fp32": eager,
    "fp32, channels last": channels_last,
    "fp32, compiled": compiled,
    "fp32, OpenVINO": openvino("f32"),
    "fp32, ONNX Runtime": onnxruntime,
    "bf16": bf16(eager),
    "bf16, compiled": bf16(compiled),
    "bf16, compiled and frozen": bf16(frozen),
    "bf16, OpenVINO": openvino("bf16"),
    "int8 linear layers, torch": int8_linear,
    "int8, ONNX Runtime": onnxruntime_int8,
}


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What else a CPU offers for the forward pass.")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    options = parser.parse_args(argv)
    ways = [way for way in WAYS if way in options.ways or way == "fp32"]
    from beam_zoo.runtime.tuning import keep_freed_memory
    from tests import oracle

    keep_freed_memory()  # as the command
    print(workload.describe())
    rates: dict[str, list[float]] = {}
    changes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        folder = Path(name)
        tempfile.tempdir = name  # what exporters leave goes too
        catalogue = workload.write_catalogue(folder, IMAGES)
        workload.write_members(folder)
        view = oracle.view(**workload.VIEW)
        images = torch.stack([view(oracle.image(path)) for path in oracle.paths_of(catalogue)])
        first = workload.load_members(folder)[0]
        exact = workload.fractions(first, first.encoder(images))
        built: dict[str, tuple[Any, Way]] = {}
        for way in ways:
            model = workload.load_members(folder)[0]
            try:
                built[way] = model, WAYS[way](model.encoder)
                found = torch.cat([built[way][1](some) for some in images.split(BATCH)])
            except Exception as error:  # a library that is not installed, or does not know this processor
                changes[way] = f"not run: {type(error).__name__}: {str(error).splitlines()[0][:90]}"
                built.pop(way, None)
                continue
            changes[way] = workload.change(workload.fractions(model, found), exact)
        for round_ in range(-1, options.times):
            for way, (_, run) in built.items():
                begin = time.perf_counter()
                for some in images.split(BATCH):
                    run(some)
                if round_ >= 0:  # the first compiles again what building another way made torch forget
                    rates.setdefault(way, []).append(IMAGES / (time.perf_counter() - begin))
    print(f"{'':36} galaxies/s  times fp32  change of vote fractions: median, 99%, largest")
    for way in ways:
        if way in rates:
            rate = statistics.median(rates[way])
            times = statistics.median(a / b for a, b in zip(rates[way], rates["fp32"], strict=True))
            print(f"{way:36} {rate:10.1f} {times:11.2f}  {changes[way]}")
        else:
            print(f"{way:36} {changes[way]}")


if __name__ == "__main__":
    main()
