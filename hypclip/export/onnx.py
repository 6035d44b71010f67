"""ONNX files of both towers, with the scale and the lift inside, and the graph writer that the server shares."""

from __future__ import annotations

import contextlib
import copy
import importlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.export import Dim

from hypclip.checkpoint import atomic_directory
from hypclip.errors import ConfigError, MissingExtraError
from hypclip.geometry.metric import Metric
from hypclip.model import HypCLIP

IMAGE, TEXT, CONFIG = "image.onnx", "text.onnx", "config.json"
FORMAT = 1
OUTPUT = "embedding"
_TOLERANCE = 1e-4
"""Relative error of an embedding beyond which the graph is wrong, which float32 rounding does not come near."""


@runtime_checkable
class Run(Protocol):
    """A graph that ONNX Runtime has loaded."""

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the output for an input tensor."""
        ...


def export_onnx(model: HypCLIP, folder: Path) -> None:
    """Write image.onnx, text.onnx and config.json; the folder appears whole, and replaces one of its name.

    Inputs are `pixels` (N, 3, S, S) float32, normalised, and `tokens` (N, L) int64, padded with pad_id to the longest
    row, or to the context length where the config has pad_to_context. The output `embedding` (N, D) is float32 space
    components. Weights beyond what one file can hold stand beside it in *.onnx.data. What a program must know of the
    points is in config.json: the space, and as `entailment` what makes one of them more general than another, which is
    null on the sphere. A file without it is of a model that entails by the cones of MERU.

    Args:
        model: its weights, scales and curvature are taken as they are; it stays as it is.
        folder: where to write.

    Raises:
        ConfigError: a tower cannot be expressed, or its graph gives other embeddings than the model.
        MissingExtraError: the packages of the extra `onnx` are not installed.
        OSError: the folder cannot be written.
    """
    require_onnx("export to ONNX")
    with atomic_directory(folder) as scratch:
        for name, input_name, tower, scale, samples, dynamic in (
            (IMAGE, "pixels", model.image_tower, model.log_image_scale, _images(model), {0: Dim.DYNAMIC}),
            # AUTO: a tower whose rows always fill the context may have one length only.
            (TEXT, "tokens", model.text_tower, model.log_text_scale, _tokens(model), {0: Dim.DYNAMIC, 1: Dim.AUTO}),
        ):
            lifted = _Lifted(tower, model.metric, scale.detach().exp(), model.curv.detach()).cpu().eval()
            with _refused(name):
                write_graph(lifted, samples[0], scratch / name, input_name, dynamic)
                check_file(scratch / name)
                require_equal(lifted, session(scratch / name), samples, _TOLERANCE)
        (scratch / CONFIG).write_text(json.dumps(_config(model), indent=2) + "\n", encoding="utf-8")


def require_onnx(what: str, *packages: str) -> None:
    """Refuse to go on without packages of the extra `onnx`.

    Args:
        what: what needs them, for the message.
        packages: which; all that an export needs when none is given.

    Raises:
        MissingExtraError: one of them is not installed; the message names the extra.
    """
    try:
        for name in packages or ("onnx", "onnxscript", "onnxruntime"):
            importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"{what}: {error}: it comes with an extra, run pip install 'hypclip[onnx]'") from error


def write_graph(
    module: nn.Module,
    sample: Tensor,
    path: Path,
    input_name: str,
    dynamic: Mapping[int, Any],
    external_data: bool | None = None,
) -> None:
    """Write the graph of a module with one input and one output, `embedding`.

    Args:
        module: in evaluation mode and on the CPU.
        sample: an input.
        path: the file.
        input_name: what the file calls the input.
        dynamic: sizes of the input that may differ from the sample's, as `torch.export` names them.
        external_data: weights in a file of their own; by default where one file cannot hold them.
    """
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module, (sample,), dynamic_shapes=(dict(dynamic),), input_names=[input_name], dynamo=True, verbose=False
        )
        assert program is not None
        graph = program.model.graph
        for node in graph.all_nodes():
            node.metadata_props.clear()  # where in which file each operation came from
            for value in node.outputs:
                value.metadata_props.clear()
                if value.name == OUTPUT:  # the exporter calls a lookup that too, and a name may stand for one value
                    value.name = f"{OUTPUT}_rows"
        graph.outputs[0].name = OUTPUT
        program.save(path, external_data=external_data)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's messages about its own code, and about operations that it leaves as they are."""
    logger = logging.getLogger("onnxscript")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def check_file(path: Path) -> None:
    """Have ONNX's own checker look at a file."""
    import onnx  # type: ignore[import-untyped, unused-ignore]

    onnx.checker.check_model(str(path), full_check=True)


def session(path: Path) -> Run:
    """Load an ONNX file with one input, for the CPU, with as many threads as torch has; the file may be deleted."""
    import onnxruntime  # type: ignore[import-untyped, unused-ignore]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    loaded = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (taken,) = loaded.get_inputs()

    def run(rows: Tensor) -> Tensor:
        return torch.from_numpy(loaded.run(None, {taken.name: rows.numpy()})[0])

    return run


@torch.no_grad()
def require_equal(module: Callable[[Tensor], Tensor], run: Run, samples: Sequence[Tensor], tolerance: float) -> None:
    """Refuse a graph that gives other rows than its module.

    Raises:
        ArithmeticError: rows differ by more than the tolerance, relative to their length; the message has the sample.
    """
    for sample in samples:
        rows = module(sample)
        error = ((run(sample) - rows).norm() / rows.norm()).item()
        if not error <= tolerance:
            raise ArithmeticError(f"features of a {tuple(sample.shape)} tensor are off by {error:.2g} of their length")


class _Lifted(nn.Module):
    """A tower with the lift of its features to points of the model's space."""

    scale: Tensor
    curv: Tensor

    def __init__(self, tower: nn.Module, metric: Metric, scale: Tensor, curv: Tensor):
        super().__init__()
        self.tower, self.metric = copy.deepcopy(tower), metric
        self.register_buffer("scale", scale.clone())
        self.register_buffer("curv", curv.clone())

    def forward(self, rows: Tensor) -> Tensor:
        return self.metric.lift(self.tower(rows).float(), self.scale, self.curv)


@contextlib.contextmanager
def _refused(name: str) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # the exporter, ONNX's checker and ONNX Runtime raise a dozen kinds
        raise ConfigError(
            f"model.towers cannot be exported to {name}: {reason_of(error)}; towers must be what torch.onnx.export can "
            "express"
        ) from error


def reason_of(error: Exception) -> str:
    """Return in one line why an exporter, a compiler or a runtime failed."""
    cause = error.__cause__ or error  # what an exporter wraps says more than the advice around it
    return str(cause).strip().partition("\n")[0] or type(cause).__name__


def _tokens(model: HypCLIP) -> list[Tensor]:
    """Return token ids of two short texts, of two that fill the context, and of other numbers of texts."""
    full = "a photo of a dog" + " dog" * model.tokenizer.context_length
    return [model.tokenizer(texts) for texts in (["a photo of a dog", "two"], [full, "two"], ["two"], ["a b c"] * 3)]


def _images(model: HypCLIP) -> list[Tensor]:
    pixels = torch.arange(3 * 3 * model.image_size**2).sin().view(3, 3, model.image_size, model.image_size)
    return [pixels[:2], pixels[:1], pixels]


def _config(model: HypCLIP) -> dict[str, Any]:
    config, tokenizer = model.config, model.tokenizer
    return {
        "format": FORMAT,
        "model_id": model.model_id,
        "geometry": config.geometry,
        "distance": config.distance,
        "factor_dim": config.factor_dim,
        "curv": model.curv.flatten().tolist() if model.metric.is_hyperbolic else [],
        "entailment": asdict(config.entailment) if model.metric.has_cones else None,
        "logit_scale": model.logit_scale.item(),
        "dim": model.dim,
        "image_size": model.image_size,
        "image_mean": list(config.image_mean),
        "image_std": list(config.image_std),
        "image_resize": "shortest side, bicubic, centre crop",
        "context_length": tokenizer.context_length,
        "pad_id": tokenizer.pad_id,
        "pad_to_context": tokenizer(["two"]).shape[1] == tokenizer.context_length,
    }
