"""The script's model, as a person would write it: every size in numbers, our few layers as short classes."""

import keyword
import re
from typing import Any

from core.code.job import Job, arguments_of
from core.code.layout import Call, Page, Raw, literal, quoted, tupled, written
from core.spec import component
from core.spec.graph import order
from core.spec.job import Component

LEADING = frozenset({
    "in_features", "out_features", "in_channels", "out_channels", "num_features", "normalized_shape", "num_embeddings",
    "embedding_dim", "p", "kernel_size", "output_size", "num_groups", "num_channels", "d_model", "nhead", "embed_dim",
    "num_heads", "dim", "unflattened_size",
})  # fmt: skip
"""Arguments that people write without their names, where they come first."""
NAMED = frozenset({"kernel_size"})
"""Of these, those that are named unless they are the very first."""
STATEFUL = frozenset({"RNN", "LSTM", "GRU", "LSTMCell", "MultiheadAttention"})
"""Layers that return more than their output."""
OURS = ("num_classes", "weights", "replace", "freeze", "weight_init", "bias_init")
VISION = "torchvision."
FIXED: dict[str, dict[str, Any]] = {
    name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")
}
CLASSES = {
    "Sequence": '''class Sequence(nn.Sequential):
    """nn.Sequential that hands on the outputs of a recurrent layer, without its state."""

    def forward(self, x):
        for layer in self:
            x = layer(x)
            x = x[0] if isinstance(x, tuple) else x
        return x''',
    "Residual": '''class Residual(nn.Module):
    """shortcut(x) + layers(x)."""

    def __init__(self, layers, shortcut):
        super().__init__()
        self.layers = layers
        self.shortcut = shortcut

    def forward(self, x):
        return self.shortcut(x) + self.layers(x)''',
    "Parallel": '''class Parallel(nn.Module):
    """Branches over the same input, joined along dimension 1."""

    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        outputs = [branch(x) for branch in self.branches]
        outputs = [output[0] if isinstance(output, tuple) else output for output in outputs]
        return torch.cat(outputs, dim=1)''',
    "LastTimestep": '''class LastTimestep(nn.Module):
    """The last step of a sequence: x[B, T, F] to [B, F]."""

    def forward(self, x):
        return x[:, -1]''',
}
NORMS = "NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)"


def model(job: Job, page: Page) -> None:
    """Write the model with its initial weights, frozen parts and averages."""
    part = job.spec.model
    page.use("torch")
    page.use("torch", "nn")
    needed: set[str] = set()
    if part.type.startswith(VISION):
        lines = _vision(part, page, needed)
    elif part.type == "Graph":
        lines = _graph(part, page, needed)
    else:
        lines = written("model = ", _sequence(part.arguments["layers"], needed))
    for name, text in CLASSES.items():
        if name in needed:
            page.add(*text.splitlines())
    page.add(
        "# The model. Its initial weights are the first draws after the seed.",
        "torch.manual_seed(SEED)",
        *lines,
        *_initial(part),
        *_frozen(part),
        *_placed(job),
        "torch.manual_seed(SEED)  # what follows, such as dropout, draws the same for every initialization",
    )
    _averages(job, page)


def _sequence(layers: Any, needed: set[str]) -> Call:
    parts = [component(item) for item in layers]
    is_stateful = any(part.type in STATEFUL for part in parts)
    if is_stateful:
        needed.add("Sequence")
    name = "Sequence" if is_stateful else "nn.Sequential"
    return Call(name, tuple(_layer(part, needed) for part in parts), is_tall=bool(parts))


def _layer(part: Component, needed: set[str]) -> Call:
    arguments = part.arguments
    match part.type:
        case "Sequential":
            return _sequence(arguments["layers"], needed)
        case "ext.Residual":
            needed.add("Residual")
            shortcut = arguments.get("shortcut") or ()
            other = _sequence(shortcut, needed) if shortcut else Call("nn.Identity")
            return Call("Residual", (_sequence(arguments["layers"], needed), other))
        case "ext.Parallel":
            needed.add("Parallel")
            return Call("Parallel", tuple(_branch(branch, needed) for branch in arguments["branches"]))
        case "ext.LastTimestep":
            needed.add("LastTimestep")
            return Call("LastTimestep")
        case name:
            return _torch_layer(name, part, needed)


def _branch(value: Any, needed: set[str]) -> Call:
    return _sequence(value, needed) if isinstance(value, (list, tuple)) else _layer(component(value), needed)


def _torch_layer(name: str, part: Component, needed: set[str]) -> Call:
    given = {
        key: _layer(component(value), needed) if isinstance(value, dict) else tupled(value)
        for key, value in arguments_of("layers", part).items()
    }
    leading: list[Any] = []
    for key in list(given):
        if key not in LEADING or (key in NAMED and leading):
            break
        leading.append(given.pop(key))
    return Call(f"nn.{name}", tuple(leading), given)


def _vision(part: Component, page: Page, needed: set[str]) -> list[str]:
    page.use("torchvision", "models")
    name, arguments = part.type.removeprefix(VISION), part.arguments
    own = {key: tupled(value) for key, value in arguments.items() if key not in OURS and value is not None}
    given = {"num_classes": arguments["num_classes"], **FIXED.get(name, {}), **own}
    lines = written("model = ", Call(f"models.{name}", (), given))
    if arguments.get("weights") is not None:
        lines += [
            f"pretrained = models.get_model_weights({quoted(name)})[{quoted(arguments['weights'])}].get_state_dict()",
            "own = model.state_dict()",
            "fitting = {k: v for k, v in pretrained.items() if k in own and own[k].shape == v.shape}",
            "model.load_state_dict(fitting, strict=False)  # a head of another width keeps its own weights",
        ]
    for path, layer in (arguments.get("replace") or {}).items():
        call = Call("model.set_submodule", (path, _layer(component(layer), needed)))
        lines += written("", call)
    return lines


def _graph(part: Component, page: Page, needed: set[str]) -> list[str]:
    """Write a graph as a module of named layers, whose `forward` reads like the wiring."""
    nodes = [dict(node) for node in part.arguments["nodes"]]
    layers: dict[str, Any] = {}
    for node in nodes:
        layer = component({key: value for key, value in node.items() if key not in ("name", "inputs")})
        if layer.type not in ("ext.Add", "ext.Multiply", "ext.Concatenate"):
            layers[node["name"]] = _layer(layer, needed)
    source = part.arguments["inputs"][0]
    body = [line for place in order(nodes) for line in _node(nodes[place])]
    page.add(
        "class Net(nn.ModuleDict):",
        '    """Layers by name, wired in `forward`."""',
        "",
        f"    def forward(self, {_variable(source)}):",
        *(f"        {line}" for line in body),
        f"        return {_variable(part.arguments['outputs'][0])}",
    )
    return written("model = ", Call("Net", (layers,), is_tall=True))


def _node(node: dict[str, Any]) -> list[str]:
    name, inputs = _variable(node["name"]), [_variable(value) for value in node["inputs"]]
    match node["type"]:
        case "ext.Add" | "ext.Multiply" as kind:
            return [f"{name} = {(' + ' if kind == 'ext.Add' else ' * ').join(inputs)}"]
        case "ext.Concatenate":
            return [f"{name} = torch.cat([{', '.join(inputs)}], dim={literal(node.get('dim', 1))})"]
        case kind:
            if kind == "MultiheadAttention":
                inputs += [inputs[-1]] * (3 - len(inputs))
            taken = "[0]" if kind in STATEFUL else ""
            return [f"{name} = self[{quoted(node['name'])}]({', '.join(inputs)}){taken}"]


def _variable(name: str) -> str:
    return f"{name}_" if keyword.iskeyword(name) or name in ("self", "torch", "nn") else name


def _initial(part: Component) -> list[str]:
    """Write what fills the weights, where the spec says how."""
    kinds = {name: part.arguments.get(f"{name}_init") for name in ("weight", "bias")}
    calls = {
        name: Call(f"nn.init.{fill.type}", (Raw("parameter"),), _filled(fill))
        for name, value in kinds.items()
        if value is not None and (fill := component(value))
    }
    if not calls:
        return []
    lines = ["for module in model.modules():"]
    if not part.type.startswith(VISION) and not re.search(r"Norm", str(part.arguments)):
        lines += ["    for name, parameter in module.named_parameters(recurse=False):"]
    else:
        lines = [NORMS, *lines, "    if isinstance(module, NORMS):", "        continue  # their weights are scales"]
        lines += ["    for name, parameter in module.named_parameters(recurse=False):"]
    if "bias" in calls:
        lines += ['        if "bias" in name:', *written("", calls["bias"], indent=3)]
        if "weight" in calls:
            lines += ["        elif parameter.ndim >= 2:", *written("", calls["weight"], indent=3)]
        return lines
    return [*lines, '        if "bias" not in name and parameter.ndim >= 2:', *written("", calls["weight"], indent=3)]


def _filled(fill: Component) -> dict[str, Any]:
    return {name: tupled(value) for name, value in arguments_of("initializers", fill).items()}


def _frozen(part: Component) -> list[str]:
    names = list(part.arguments.get("freeze") or ())
    if not names:
        return []
    return [
        *written("frozen = ", tuple(names)),
        "for name, parameter in model.named_parameters():",
        '    if any(name == part or name.startswith(part + ".") for part in frozen):',
        "        parameter.requires_grad_(False)",
    ]


def _placed(job: Job) -> list[str]:
    if job.spec.precision == "bf16-true":
        return [f"model.to({'device, ' if job.is_on_gpu else ''}torch.bfloat16)"]
    return ["model.to(device)"] if job.is_on_gpu else []


def _averages(job: Job, page: Page) -> None:
    if job.spec.ema is not None:
        page.use("torch.optim.swa_utils", "AveragedModel", "get_ema_multi_avg_fn")
        average = Call("get_ema_multi_avg_fn", (job.spec.ema.decay,))
        page.add("# A second set of weights follows the first: average = decay * average + (1 - decay) * weight",
                 *written("average = ", Call("AveragedModel", (Raw("model"),), {"multi_avg_fn": average})))  # fmt: skip
    if job.spec.swa is not None:
        page.use("torch.optim.swa_utils", "AveragedModel", "get_swa_multi_avg_fn")
        page.add(
            f"# From epoch {job.spec.swa.start_epoch} on, the weights after every epoch are averaged.",
            "average = AveragedModel(model, multi_avg_fn=get_swa_multi_avg_fn())",
        )


def judged(job: Job) -> str:
    """Return the name of the model that is validated and returned."""
    return "average.module" if job.spec.ema else "judged" if job.spec.swa else "model"


def has_batch_norm(job: Job) -> bool:
    """Whether the model may have BatchNorm's running statistics."""
    part = job.spec.model
    return part.type.startswith(VISION) or "BatchNorm" in str(part.arguments)
