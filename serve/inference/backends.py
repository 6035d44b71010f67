"""The ways to run a model's towers: eager torch, torch.compile, or ONNX Runtime; in float32, bfloat16 or int8.

Whatever runs the towers, pixels are normalised before them and features are lifted after them in float32, as the model
itself does.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from jaxtyping import Float, UInt8
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn
from torch.export import Dim

from hypclip import HypCLIP
from hypclip.errors import ConfigError, MissingExtraError
from hypclip.export.onnx import reason_of, require_equal, require_onnx, session, write_graph
from hypclip.towers.passes import TextPasses
from hypclip.towers.tokens import TokenRows
from serve.inference.exports import Contents, Exports
from serve.inference.packed import PackedTower, can_be_packed, pack, read_packed

BackendKind = Literal["auto", "torch", "compile", "onnx"]
Precision = Literal["float32", "bfloat16", "int8"]
Tower = Callable[[Tensor], Tensor]

logger = logging.getLogger(__name__)

_PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "torch": ("float32", "bfloat16"),
    "compile": ("float32", "bfloat16"),
    "onnx": ("float32", "int8"),
}
_WIDE = 512
"""Width of a text tower from which packing is worth it: in a narrow one, attention over all pairs of a pass is too much
beside the products with weights. ViT-B/32's, 512, gains by it and the quickstart's loses."""
_EXACT, _QUANTISED = 1e-3, 0.2
"""Relative errors of exported features beyond which the graph is wrong, which rounding does not come near."""


class Backend(Protocol):
    """The towers of a model, ready to embed token ids, and images cut to the model's size.

    `packs_texts` says whether texts are packed into passes, or padded in passes by length.
    """

    packs_texts: bool

    def text(self, rows: TokenRows) -> Float[Tensor, "n d"]:
        """Embed the token ids of at least one text; float32 space components on the CPU."""
        ...

    def image(self, pixels: UInt8[Tensor, "n 3 height width"]) -> Float[Tensor, "n d"]:
        """Embed at least one RGB image, resized and cropped before; float32 space components on the CPU."""
        ...


def load_backend(
    model: HypCLIP, kind: BackendKind = "torch", precision: Precision = "float32", exports: Exports | None = None
) -> Backend:
    """Make a model ready to run; it is put in evaluation mode.

    In float32 torch and compile run the model's own weights. The others have a copy, and the model may be dropped.
    torch and compile run where the model is, ONNX Runtime on the CPU, with as many threads as torch has now.

    Args:
        model: its weights, scales and curvature are taken as they are now.
        kind: "torch" starts at once. "compile" needs a C++ compiler and a minute or two to start; it compiles again
            in a thread that has another number of threads. "onnx" exports the towers, or takes what `exports` has.
            "auto" is "onnx" for a model on the CPU, and "torch" if that cannot be: of two processors it had twice the
            speed on one, and on the other the same, but half the time of a single text.
        precision: what the towers run in. int8 is that of matrix products with weights; convolutions stay float32. It
            rounds to the range of a whole batch: an embedding shifts with the items beside it, by about its error.
        exports: where exports of this model's checkpoint are kept. Without it, or where it cannot be written, an export
            goes by way of a temporary directory, and the next start makes it again.

    Raises:
        ConfigError: this kind has no such precision, or cannot run these towers.
        MissingExtraError: the packages that "onnx" needs are not installed.
    """
    if kind == "auto":
        return _best(model, precision, exports)
    if precision not in _PRECISIONS.get(kind, ()):
        known = "; ".join(f"{name} with {' or '.join(has)}" for name, has in _PRECISIONS.items())
        raise ConfigError(f"HYPCLIP_BACKEND {kind!r} with HYPCLIP_PRECISION {precision!r} does not exist: use {known}")
    model.eval()
    if kind == "onnx":
        return _Towers(model, *_exported(model, precision, exports), torch.device("cpu"))
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    towers = [model.text_tower, model.image_tower]
    if dtype != torch.float32:
        towers = [copy.deepcopy(tower).to(dtype) for tower in towers]
    if _packs(model, model.device):
        towers[0] = PackedTower(towers[0])
    text, image = towers if kind == "torch" else (torch.compile(tower, dynamic=True) for tower in towers)
    backend = _Towers(model, text, image, model.device, dtype)
    if kind == "torch":
        return backend
    with _refused(kind, RuntimeError):
        for rows in (1, 2):  # one graph for a single row, one for any other number
            for texts in _short_and_full(model):
                backend.text(model.tokenizer.encode(texts[:rows]))
            backend.image(torch.zeros(rows, 3, model.image_size, model.image_size, dtype=torch.uint8))
    return backend


def _best(model: HypCLIP, precision: Precision, exports: Exports | None) -> Backend:
    if precision == "int8" or (precision == "float32" and model.device.type == "cpu"):
        try:
            return load_backend(model, "onnx", precision, exports)
        except (ConfigError, MissingExtraError) as error:
            if precision == "int8":
                raise
            logger.warning("%s; here it is HYPCLIP_BACKEND torch", error)
    return load_backend(model, "torch", precision)


def _packs(model: HypCLIP, device: torch.device) -> bool:
    """Return whether to pack texts: on a CPU, since a GPU gains more by large batches than by no padding.

    The highest id of a text has to be its last, as it is with CLIP's tokenizer.
    """
    tower: Any = model.text_tower
    ends_highest = isinstance(model.tokenizer.encoder, SimpleTokenizer)
    return device.type == "cpu" and ends_highest and can_be_packed(tower) and tower.width >= _WIDE


class _Towers:
    """A Backend: two towers, the text tower wrapped where texts are packed, with the model's transforms and lift."""

    def __init__(
        self, model: HypCLIP, text: Tower, image: Tower, device: torch.device, dtype: torch.dtype = torch.float32
    ):
        self._text_tower, self._image_tower = text, image
        self.packs_texts = _packs(model, device)
        self._pad_id, self._pass_tokens = model.tokenizer.pad_id, model.pass_tokens
        self._device, self._dtype = device, dtype
        self._metric = model.metric
        with torch.no_grad():
            self._curv = model.curv.to(device)
            self._text_scale = model.log_text_scale.exp().to(device)
            self._image_scale = model.log_image_scale.exp().to(device)
        # 255 is a tensor too: CUDA divides by a number through its inverse, which rounds otherwise.
        self._white = torch.tensor(255.0, device=device)
        self._mean = torch.tensor(model.config.image_mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(model.config.image_std, device=device).view(3, 1, 1)

    def text(self, rows: TokenRows) -> Float[Tensor, "n d"]:
        """Embed token ids; see Backend."""
        with torch.inference_mode():
            if self.packs_texts:
                features = read_packed(self._text_tower, rows)
            else:
                passes = TextPasses.plan({"text": rows}, self._pad_id, self._pass_tokens)
                features = passes.map(lambda x: x.to(self._device)).read(self._text_tower)
        return self._lifted(features, self._text_scale)

    def image(self, pixels: UInt8[Tensor, "n 3 height width"]) -> Float[Tensor, "n d"]:
        """Embed images; see Backend."""
        with torch.inference_mode():
            features = self._image_tower(self.normalised(pixels.to(self._device)).to(self._dtype))
        return self._lifted(features, self._image_scale)

    def normalised(self, pixels: Tensor) -> Tensor:
        """Return the float32 numbers that the model's own transform makes of these bytes, to the bit."""
        return pixels.float().div_(self._white).sub_(self._mean).div_(self._std)

    @torch.no_grad()  # and not inference mode, whose tensors others could not write to or differentiate through
    def _lifted(self, features: Tensor, scale: Tensor) -> Tensor:
        return self._metric.lift(features.float(), scale, self._curv).cpu()


def _short_and_full(model: HypCLIP) -> list[list[str]]:
    """Return a short text, and one that fills the context, each with another."""
    return [["a photo of a dog" + " dog" * n, "two"] for n in (0, model.tokenizer.context_length)]


@contextmanager
def _refused(kind: str, error_type: type[Exception]) -> Iterator[None]:
    try:
        yield
    except error_type as error:
        raise ConfigError(
            f"HYPCLIP_BACKEND {kind!r} cannot run the towers of this model: {reason_of(error)}; HYPCLIP_BACKEND torch "
            "runs any"
        ) from error


class _Graph(NamedTuple):
    """A tower that becomes a graph: it is written with the first sample, and must be equal to torch for all of them."""

    tower: nn.Module
    samples: list[Tensor]
    dynamic: dict[int, Any]


def _exported(model: HypCLIP, precision: Precision, exports: Exports | None) -> tuple[Tower, Tower]:
    """Return the text and the image tower as ONNX Runtime runs them."""
    packs = _packs(model, torch.device("cpu"))
    graphs = _graphs(model, packs)
    contents = _contents(model, precision, packs)
    if exports is None or not model.revision:
        runs = _export(graphs, precision)
    elif (kept := _kept(graphs, precision, contents, exports)) is not None:
        runs = kept
    else:
        logger.info("exporting the model to ONNX, to be kept in %s", exports.folder)
        with exports.alone():
            runs = _kept(graphs, precision, contents, exports) or _export(graphs, precision, contents, exports)
    return runs["text"], runs["image"]


def _graphs(model: HypCLIP, packs: bool) -> dict[str, _Graph]:
    rows, size = Dim.DYNAMIC, model.image_size
    image = torch.arange(2 * 3 * size * size).sin().view(2, 3, size, size)
    texts = _short_and_full(model)
    if packs:
        samples = [pack(model.tokenizer.encode(each))[0] for each in texts]
        text = _Graph(PackedTower(model.text_tower).eval(), samples, {1: Dim.DYNAMIC})
    else:
        # AUTO: a tower whose rows always fill the context may have one length only.
        text = _Graph(model.text_tower, [model.tokenizer(each) for each in texts], {0: rows, 1: Dim.AUTO})
    return {"text": text, "image": _Graph(model.image_tower, [image, image[:1]], {0: rows})}


def _contents(model: HypCLIP, precision: Precision, packs: bool) -> Contents:
    """Return everything that decides the content of an export."""
    more: dict[str, Any] = {"model": asdict(model.config), "packs": packs, "seven_bits": _saturates()}
    for package in ("hypclip", "torch", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "open_clip_torch", "timm"):
        try:
            more[package] = version(package)
        except PackageNotFoundError:
            more[package] = None
    return Contents(model.revision, precision, more)


def _kept(
    graphs: Mapping[str, _Graph], precision: Precision, contents: Contents, exports: Exports
) -> dict[str, Tower] | None:
    """Return the towers of an export that is kept; None if there is none that gives what torch does."""
    require_onnx("HYPCLIP_BACKEND 'onnx'", "onnxruntime")
    folder = exports.find(contents)
    if folder is None:
        return None
    try:
        return _sessions(graphs, {name: folder / f"{name}.onnx" for name in graphs}, precision)
    except Exception as error:  # ONNX Runtime raises a dozen kinds of errors
        logger.warning("%s does not run this model and is made again: %s", folder, reason_of(error))
        return None


def _export(
    graphs: Mapping[str, _Graph],
    precision: Precision,
    contents: Contents | None = None,
    exports: Exports | None = None,
) -> dict[str, Tower]:
    """Export towers, and keep what they have become if told where; that it cannot be kept is no failure."""
    require_onnx("HYPCLIP_BACKEND 'onnx'")
    with tempfile.TemporaryDirectory(prefix="hypclip-") as folder:
        with _refused("onnx", Exception):  # the exporter and ONNX Runtime raise a dozen kinds of errors
            files = {name: _written(graph, Path(folder) / f"{name}.onnx", precision) for name, graph in graphs.items()}
            runs = _sessions(graphs, files, precision)
        if exports is not None and contents is not None:
            try:
                exports.keep(contents, Path(folder))
            except OSError as error:
                logger.info(
                    "the ONNX export cannot be kept, and every start makes it again: %s; HYPCLIP_ONNX_CACHE may name "
                    "a folder that can be written",
                    error,
                )
    return runs


def _written(graph: _Graph, path: Path, precision: Precision) -> Path:
    """Write the file of a graph, with its weights beside it."""
    tower = copy.deepcopy(graph.tower).cpu()
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        exact = path if precision == "float32" else Path(scratch) / "exact.onnx"
        write_graph(tower, graph.samples[0], exact, "rows", graph.dynamic, external_data=True)
        if precision == "int8":
            _quantise(exact, path)
    return path


def _sessions(graphs: Mapping[str, _Graph], files: Mapping[str, Path], precision: Precision) -> dict[str, Tower]:
    """Load files, and check that their features equal torch's."""
    runs: dict[str, Tower] = {}
    for name, graph in graphs.items():
        run = session(files[name])
        tower = copy.deepcopy(graph.tower).cpu()
        require_equal(tower, run, graph.samples, _QUANTISED if precision == "int8" else _EXACT)
        runs[name] = run
    return runs


def _quantise(exact: Path, path: Path) -> None:
    """Store the weights of matrix products in int8, one scale a column; activations are rounded as they come."""
    from onnxruntime.quantization import quantize_dynamic  # type: ignore[import-untyped, unused-ignore]
    from onnxruntime.quantization.shape_inference import quant_pre_process  # type: ignore[import-untyped, unused-ignore]

    prepared = exact.with_name("prepared.onnx")
    handlers = list(logging.root.handlers)
    try:
        quant_pre_process(exact, prepared, skip_symbolic_shape=True, save_as_external_data=True)
        quantize_dynamic(
            prepared,
            path,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=_saturates(),
            use_external_data_format=True,
        )
    finally:
        logging.root.handlers[:] = handlers  # its calls of logging.info give the root logger one


def _saturates() -> bool:
    """Return whether products of 8 bits overflow here: x86 before VNNI adds them in 16 bits, and gets 7."""
    cpu = torch.cpu.get_capabilities()
    return cpu.get("architecture") == "x86_64" and not (cpu.get("avx512_vnni") or cpu.get("avx_vnni"))
