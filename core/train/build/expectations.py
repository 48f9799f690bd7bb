"""What torch does not check itself: shapes that it would read in another way than was meant."""

import re
from collections.abc import Iterator

from torch import Tensor

from core.errors import Issue
from core.spec.job import Component
from core.spec.pointer import join

SEVERAL_INPUTS = {
    "Bilinear": (2, 2), "CosineSimilarity": (2, 2), "PairwiseDistance": (2, 2), "MultiheadAttention": (1, 3),
    "Transformer": (2, 2), "TransformerDecoder": (2, 2), "TransformerDecoderLayer": (2, 2), "ext.Add": (2, 100),
    "ext.Multiply": (2, 100), "ext.Concatenate": (2, 100),
}  # fmt: skip
"""The least and the most inputs of a graph's node. MultiheadAttention of one attends to itself, of two takes the second
for keys and values."""
RECURRENT = ("RNN", "LSTM", "GRU")
OF_SEQUENCES = (*RECURRENT, "TransformerEncoderLayer", "TransformerEncoder")
"""Without `batch_first` these take dimension 0 for time; here it is always the batch."""
ATTENDING = ("MultiheadAttention", "Transformer", "TransformerDecoderLayer")
"""The same, of several inputs."""
SOFTMAX = ("Softmax", "Softmin", "LogSoftmax")
"""Without `dim` these take dimension 1, but of sequences dimension 0, which is the batch."""
CELLS = ("RNNCell", "LSTMCell", "GRUCell")
_SPATIAL = re.compile(
    r"^(Conv|ConvTranspose|MaxPool|AvgPool|AdaptiveAvgPool|AdaptiveMaxPool|LPPool|FractionalMaxPool|BatchNorm|"
    r"InstanceNorm|Dropout|Softmax|CircularPad|ConstantPad|ReflectionPad|ReplicationPad|ZeroPad|UpsamplingNearest|"
    r"UpsamplingBilinear|CrossMapLRN)([123])d$"
)
_WORDS = {
    2: "(features)",
    3: "(channels, length)",
    4: "(channels, height, width)",
    5: "(channels, depth, height, width)",
}


def sample_shape(x: Tensor) -> tuple[int, ...]:
    """Return the shape of one sample of a batch."""
    return tuple(x.shape[1:])


def dimensions(kind: str) -> tuple[int, ...] | None:
    """Return how many dimensions a batch for such a layer may have; None for any number."""
    if kind in OF_SEQUENCES:
        return (3,)
    if kind in CELLS or kind == "BatchNorm1d":
        return (2,) if kind in CELLS else (2, 3)
    found = _SPATIAL.match(kind)
    return (int(found[2]) + 2,) if found else None


def unmet(component: Component, pointer: str, x: Tensor) -> Iterator[Issue]:
    """Say why a layer cannot take `x`, or would take it for something else."""
    kind = component.type
    allowed = dimensions(kind)
    if allowed is not None and x.ndim not in allowed:
        yield _wrong_dimensions(kind, pointer, x, allowed)
    elif kind in SOFTMAX and (mixed := _mixes_samples(component, pointer, x)) is not None:
        yield mixed
    elif kind in ("Embedding", "EmbeddingBag") and x.is_floating_point():
        hint = 'End data.transforms with {"type": "ToDtype", "dtype": "int64"}.'
        yield Issue(pointer, "not_integers", f"{kind} looks up integers; what comes in are numbers ({x.dtype}).", hint)


def _mixes_samples(component: Component, pointer: str, x: Tensor) -> Issue | None:
    dim = component.arguments.get("dim")
    if dim not in (0, -x.ndim) and (dim is not None or x.ndim != 3):
        return None
    at = join(pointer, "dim")
    detail = f"{component.type} over dimension 0 would mix the samples of a batch: samples begin at dimension 1."
    fix: dict[str, object] = {"op": "replace", "path": at, "value": -1}
    if dim is None:  # the layer may have been posted as a bare name
        fix = {"op": "replace", "path": pointer, "value": {"type": component.type, "dim": -1}}
    return Issue(at, "batch_is_dim", detail, 'Set "dim": the last dimension is -1.', (fix,))


def in_a_row(kind: str, pointer: str) -> Issue | None:
    """Say that a layer takes more than the one before it hands on, where it does."""
    if kind not in SEVERAL_INPUTS:
        return None
    hint = "A Graph's nodes may take several."
    if kind == "MultiheadAttention":
        hint = "Use TransformerEncoderLayer, which attends to its own input, or a Graph, whose nodes may take several."
    return Issue(pointer, "several_inputs", f"{kind} takes several inputs; layers in a row hand on one.", hint)


def at_a_node(kind: str, pointer: str, inputs: int) -> Issue | None:
    """Say that a graph's node has too few or too many inputs for its layer, where it has."""
    least, most = SEVERAL_INPUTS.get(kind, (1, 1))
    if least <= inputs <= most:
        return None
    words = f"{least}" if least == most else f"at least {least}" if most > 3 else f"{least} to {most}"
    hint = "Join them by a node of ext.Concatenate, ext.Add or ext.Multiply before it." if most == 1 else None
    detail = f"{kind} takes {words} input{'s' if words != '1' else ''}; this node has {inputs}."
    return Issue(join(pointer, "inputs"), "number_of_inputs", detail, hint)


def batch_is_time(component: Component, pointer: str) -> Issue | None:
    """Say that a layer would mix the samples of a batch, where it would."""
    if component.type not in (*OF_SEQUENCES[:-1], *ATTENDING) or component.arguments.get("batch_first") is True:
        return None
    at = join(pointer, "batch_first")
    detail = f"{component.type} without batch_first takes the batch for time and would mix samples."
    fix = {"op": "add", "path": at, "value": True}
    return Issue(
        at, "batch_is_time", detail, 'Batches come as (batch, time, features): set "batch_first": true.', (fix,)
    )


def _wrong_dimensions(kind: str, pointer: str, x: Tensor, allowed: tuple[int, ...]) -> Issue:
    needed = " or ".join("(time, features)" if kind in OF_SEQUENCES else _WORDS[count] for count in allowed)
    shape = sample_shape(x)
    detail = f"{kind} needs samples of shape {needed}; what comes in has shape {shape}."
    is_last_index = pointer.rsplit("/", 1)[-1].isdecimal()
    if not is_last_index:
        return Issue(pointer, "wrong_dimensions", detail)
    if (x.ndim > max(allowed) == 3 and kind in ("BatchNorm1d", "Dropout1d")) or (x.ndim > 2 and allowed == (2,)):
        return Issue(pointer, "wrong_dimensions", detail, "Flatten comes before it.", (_before(pointer, "Flatten"),))
    if x.ndim == 2 and allowed[-1] == 3:
        size = [shape[0], 1] if kind in OF_SEQUENCES else [1, shape[0]]
        reshape = {"type": "Unflatten", "dim": 1, "unflattened_size": size}
        hint = f"Unflatten makes a sequence of {shape[0]} steps of it."
        return Issue(pointer, "wrong_dimensions", detail, hint, (_before(pointer, reshape),))
    return Issue(pointer, "wrong_dimensions", detail)


def _before(pointer: str, value: object) -> dict[str, object]:
    """Return the JSON Patch operation that puts a layer before the one at `pointer`."""
    return {"op": "add", "path": pointer, "value": value}
