"""Components against the catalog: names, arguments, nesting, limits."""

from collections.abc import Callable
from typing import Any

import pytest

from core.errors import Issue
from core.spec.components import MAX_LAYERS, MAX_NESTING

Body = dict[str, Any]
IssuesOf = Callable[[Body], tuple[Issue, ...]]
CONV = {"type": "Conv2d", "out_channels": 4, "kernel_size": 3}


def layers(*items: Any) -> Body:
    return {"model": {"type": "Sequential", "layers": list(items)}}


@pytest.mark.parametrize(
    ("changes", "pointer", "right"),
    [
        (layers("Dense"), "/model/layers/0", "Linear"),
        (layers("relu"), "/model/layers/0", "ReLU"),
        (layers(CONV, {**CONV, "type": "Conv2D"}), "/model/layers/1/type", "Conv2d"),
        (layers("nn.ReLU"), "/model/layers/0", "ReLU"),
        (layers("torch.nn.Flaten"), "/model/layers/0", "Flatten"),
        (layers("BatchNormalization"), "/model/layers/0", "BatchNorm1d"),
        (layers("Residual"), "/model/layers/0", "ext.Residual"),
        ({"model": "resnet18"}, "/model", "torchvision.resnet18"),
        ({"model": {"type": "sequential", "layers": ["ReLU"]}}, "/model/type", "Sequential"),
        ({"loss": "mse"}, "/loss", "MSELoss"),
        ({"loss": ["MSELoss", "crossentropy"]}, "/loss/1", "CrossEntropyLoss"),
        ({"optimizer": {"type": "adamw", "lr": 0.1}}, "/optimizer/type", "AdamW"),
        ({"lr_scheduler": "CosineAnealingLR"}, "/lr_scheduler", "CosineAnnealingLR"),
        ({"metrics": ["acc"]}, "/metrics/0", "accuracy"),
        ({"data": {"train": "MNIST"}}, "/data/train", "torchvision.MNIST"),
        ({"data": {"train": "digits"}}, "/data/train", "sklearn.digits"),
        ({"data": {"train": "sklearn.iris", "test": "moons"}}, "/data/test", "synthetic.moons"),
        ({"data": {"train": "sklearn.iris", "preprocess": ["StandardScalar"]}}, "/data/preprocess/0", "StandardScaler"),
        (
            {"data": {"train": "sklearn.iris", "transforms": {"eval": ["HorizontalFlip"]}}},
            "/data/transforms/eval/0",
            "RandomHorizontalFlip",
        ),
        ({"model": {"type": "Sequential", "layers": ["ReLU"], "weight_init": "he_normal"}}, "/model/weight_init",
         "kaiming_normal_"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_mended_by_the_nearest_right_one(
    issues_of: IssuesOf, changes: Body, pointer: str, right: str
) -> None:
    issue = issues_of(changes)[0]
    assert (issue.pointer, issue.code, issue.hint) == (pointer, "unknown_type", f"Did you mean `{right}`?")
    assert issue.fix == ({"op": "replace", "path": pointer, "value": right},)


def test_a_name_unlike_any_other_points_to_the_list(issues_of: IssuesOf) -> None:
    (issue,) = issues_of(layers("Quux9000"))
    assert issue.fix is None
    assert issue.hint == "GET /v1/components/layers lists them."


def test_a_name_of_another_kind_says_which(issues_of: IssuesOf) -> None:
    (issue,) = issues_of({"optimizer": "StepLR"})
    assert issue.detail == '"StepLR" is one of the lr schedulers, not of the optimizers.'


@pytest.mark.parametrize(
    ("changes", "pointer", "right"),
    [
        ({"optimizer": {"type": "Adam", "learning_rate": 0.1}}, "/optimizer", ("learning_rate", "lr")),
        ({"optimizer": {"type": "SGD", "wieght_decay": 0.1}}, "/optimizer", ("wieght_decay", "weight_decay")),
        (layers({"type": "Linear", "units": 3}), "/model/layers/0", ("units", "out_features")),
        (layers({"type": "LSTM", "units": 3}), "/model/layers/0", ("units", "hidden_size")),
        (layers({"type": "Dropout", "rate": 0.3}), "/model/layers/0", ("rate", "p")),
        (layers({"type": "Conv2d", "filters": 3, "kernel_size": 3}), "/model/layers/0", ("filters", "out_channels")),
        ({"metrics": [{"type": "accuracy", "k": 5}]}, "/metrics/0", ("k", "top_k")),
        ({"data": {"train": {"type": "synthetic.moons", "n_samples": 50}}}, "/data/train", ("n_samples", "samples")),
        (
            {"optimizer": {"type": "SGD", "param_groups": [{"match": "bias", "learning_rate": 0.1}]}},
            "/optimizer/param_groups/0",
            ("learning_rate", "lr"),
        ),
    ],
)
def test_an_unknown_argument_is_moved_to_the_nearest_right_one(
    issues_of: IssuesOf, changes: Body, pointer: str, right: tuple[str, str]
) -> None:
    (issue,) = issues_of(changes)
    wrong, meant = right
    assert (issue.pointer, issue.code) == (f"{pointer}/{wrong}", "unknown_argument")
    assert issue.fix == ({"op": "move", "from": f"{pointer}/{wrong}", "path": f"{pointer}/{meant}"},)


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        (layers("Linear"), "/model/layers/0/out_features", "missing_argument"),
        (layers({**CONV, "kernel_size": True}), "/model/layers/0/kernel_size", "wrong_type"),
        (layers({**CONV, "kernel_size": "3"}), "/model/layers/0/kernel_size", "wrong_type"),
        (layers({**CONV, "kernel_size": [3]}), "/model/layers/0/kernel_size", "out_of_range"),
        (layers({**CONV, "kernel_size": [3, 3.5]}), "/model/layers/0/kernel_size/1", "wrong_type"),
        (layers({**CONV, "padding_mode": "zero"}), "/model/layers/0/padding_mode", "not_allowed"),
        (layers({**CONV, "bias": 1}), "/model/layers/0/bias", "wrong_type"),
        (layers({**CONV, "device": "cuda"}), "/model/layers/0/device", "unknown_argument"),
        (layers({"type": "Linear", "out_features": 1.5}), "/model/layers/0/out_features", "wrong_type"),
        (layers({"type": "Linear", "out_features": None}), "/model/layers/0/out_features", "wrong_type"),
        (layers(3), "/model/layers/0", "wrong_type"),
        (layers({"out_features": 3}), "/model/layers/0/type", "missing"),
        (layers({"type": 3}), "/model/layers/0/type", "wrong_type"),
        (layers(), "/model/layers", "out_of_range"),
        ({"model": "Sequential"}, "/model/layers", "missing_argument"),
        ({"model": {"type": "torchvision.resnet18", "weights": "V3"}}, "/model/weights", "not_allowed"),
        ({"model": {"type": "torchvision.resnet18", "num_classes": 0}}, "/model/num_classes", "out_of_range"),
        (
            {"model": {"type": "torchvision.resnet18", "replace": {"fc": {"type": "Linear", "out_features": "9"}}}},
            "/model/replace/fc/out_features",
            "wrong_type",
        ),
        ({"model": {"type": "torchvision.resnet18", "freeze": "layer1"}}, "/model/freeze", "wrong_type"),
        ({"loss": {"type": "CrossEntropyLoss", "weight": "balance"}}, "/loss/weight", "not_allowed"),
        ({"loss": {"type": "CrossEntropyLoss", "weight": [1, "2"]}}, "/loss/weight/1", "wrong_type"),
        ({"loss": {"type": "MSELoss", "reduction": "none"}}, "/loss/reduction", "not_allowed"),
        ({"loss": {"type": "MSELoss", "coefficient": 2}}, "/loss/coefficient", "unknown_argument"),
        ({"optimizer": {"type": "SGD", "lr": "0.1"}}, "/optimizer/lr", "wrong_type"),
        ({"optimizer": {"type": "Adam", "betas": [0.9]}}, "/optimizer/betas", "out_of_range"),
        ({"optimizer": {"type": "SGD", "params": []}}, "/optimizer/params", "unknown_argument"),
        ({"optimizer": {"type": "SGD", "param_groups": [{"lr": 1}]}}, "/optimizer/param_groups/0/match", "missing"),
        (
            {"optimizer": {"type": "SGD", "param_groups": [{"match": "("}]}},
            "/optimizer/param_groups/0/match",
            "out_of_range",
        ),
        (
            {"optimizer": {"type": "SGD", "param_groups": [{"match": "x", "param_groups": []}]}},
            "/optimizer/param_groups/0/param_groups",
            "unknown_argument",
        ),
        ({"model": {"type": "Sequential", "layers": "ReLU"}}, "/model/layers", "wrong_type"),
        ({"lr_scheduler": {"type": "CosineAnnealingLR", "T_max": "epoch"}}, "/lr_scheduler/T_max", "not_allowed"),
        ({"lr_scheduler": "StepLR"}, "/lr_scheduler/step_size", "missing_argument"),
        ({"lr_scheduler": {"type": "StepLR", "step_size": 1, "interval": "batch"}}, "/lr_scheduler/interval",
         "not_allowed"),
        (
            {"lr_scheduler": {"type": "SequentialLR", "schedulers": ["LinearLR"], "milestones": [1.5]}},
            "/lr_scheduler/milestones/0",
            "wrong_type",
        ),
        (
            {"lr_scheduler": {"type": "ChainedScheduler", "schedulers": ["LinearLR", {"type": "StepLR"}]}},
            "/lr_scheduler/schedulers/1/step_size",
            "missing_argument",
        ),
        ({"metrics": [{"type": "f1", "average": "mean"}]}, "/metrics/0/average", "not_allowed"),
        ({"data": {"train": {"type": "sklearn.digits", "as": "images"}}}, "/data/train/as", "not_allowed"),
        ({"data": {"train": {"type": "sklearn.iris", "as": "image"}}}, "/data/train/as", "unknown_argument"),
        ({"data": {"train": {"type": "dataset"}}}, "/data/train/id", "missing_argument"),
        ({"data": {"train": {"type": "dataset", "id": "../x"}}}, "/data/train/id", "out_of_range"),
        ({"data": {"train": {"type": "dataset", "id": "ds_1", "version": 0}}}, "/data/train/version", "out_of_range"),
        ({"data": {"train": {"type": "synthetic.moons", "noise": -1}}}, "/data/train/noise", "out_of_range"),
        (
            {"data": {"train": "sklearn.iris", "transforms": {"train": [{"type": "ToDtype", "dtype": "f4"}]}}},
            "/data/transforms/train/0/dtype",
            "not_allowed",
        ),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_one_issue_at_its_pointer(
    issues_of: IssuesOf, changes: Body, pointer: str, code: str
) -> None:
    assert [(issue.pointer, issue.code) for issue in issues_of(changes)] == [(pointer, code)]


@pytest.mark.parametrize(
    ("changes", "right"),
    [
        ({"data": {"train": "sklearn.iris", "transforms": {"train": [{"type": "ToDtype", "dtype": "float"}]}}},
         "float32"),
        ({"precision": "bf16"}, "bf16-mixed"),
        ({"execution": {"device": "cuda"}}, "gpu"),
        ({"model": {"type": "torchvision.resnet18", "weights": "imagenet"}}, "DEFAULT"),
        ({"lr_scheduler": {"type": "LinearLR", "total_iters": "epoch"}}, "epochs"),
    ],
)  # fmt: skip
def test_a_wrong_word_is_mended_by_the_right_one(issues_of: IssuesOf, changes: Body, right: str) -> None:
    (issue,) = issues_of(changes)
    assert (issue.code, issue.hint) == ("not_allowed", f"Did you mean `{right}`?")


@pytest.mark.parametrize(
    "changes",
    [
        layers("BatchNorm2d", {"type": "GroupNorm", "num_groups": 2}, "LayerNorm", {"type": "LSTM", "hidden_size": 3}),
        layers(CONV, {**CONV, "kernel_size": [3, 5], "padding": "same"}, {"type": "MaxPool2d", "kernel_size": 2}),
        layers({"type": "Sequential", "layers": ["ReLU"]}, "ext.LastTimestep"),
        layers({"type": "ext.Parallel", "branches": [CONV, [CONV, "ReLU"], "Identity"]}),
        layers({"type": "TransformerEncoder", "encoder_layer": {"type": "TransformerEncoderLayer", "nhead": 2},
                "num_layers": 2}),
        {"model": "torchvision.resnet18"},
        {"model": {"type": "torchvision.vit_b_16", "dropout": 0.1, "weights": None, "num_classes": 10}},
        {"model": {"type": "Graph", "inputs": ["x"], "outputs": ["y"],
                   "nodes": [{"type": "Linear", "out_features": 3, "name": "y", "inputs": ["x"]}]}},
        {"optimizer": "LBFGS"},
        {"optimizer": {"type": "Adafactor", "eps": [None, 1e-3]}},
        {"lr_scheduler": {"type": "OneCycleLR", "max_lr": [0.1, 0.2], "total_steps": "steps", "interval": "step"}},
        {"lr_scheduler": {"type": "LinearLR", "total_iters": "epochs"}},
        {"loss": {"type": "CrossEntropyLoss", "weight": "balanced"}},
        {"data": {"train": {"type": "torchvision.MNIST", "train": False}}},
        {"data": {"train": {"type": "synthetic.blobs", "samples": 10, "centers": 3, "seed": 1}}},
        {"data": {"train": {"type": "dataset", "id": "ds_0198c0ffee", "version": 2}}},
        {"data": {"train": "sklearn.digits", "transforms": {"train": [
            "RGB", {"type": "RandomApply", "transforms": [{"type": "RandomRotation", "degrees": [-5, 5]}], "p": 0.3},
            {"type": "Resize", "size": 8, "interpolation": "bicubic"}]}}},
    ],
)  # fmt: skip
def test_right_components_are_taken_with_sizes_left_out(issues_of: IssuesOf, changes: Body) -> None:
    assert issues_of(changes) == ()


@pytest.mark.parametrize(
    ("changes", "pointer", "reason"),
    [
        ({"lr_scheduler": {"type": "LambdaLR", "lr_lambda": "x"}}, "/lr_scheduler/type", "Python function"),
        ({"lr_scheduler": "MultiplicativeLR"}, "/lr_scheduler", "Python function"),
        (
            {"data": {"train": "sklearn.iris", "transforms": {"train": ["Lambda"]}}},
            "/data/transforms/train/0",
            "Python function",
        ),
        (layers("ModuleList"), "/model/layers/0", "container"),
        (layers("LazyLinear"), "/model/layers/0", "inferred anyway"),
        (layers("DataParallel"), "/model/layers/0", "execution.gpus"),
        ({"loss": "TripletMarginLoss"}, "/loss", "more than the model's output"),
        ({"model": "torchvision.maskrcnn_resnet50_fpn"}, "/model", "one output per image"),
    ],
)
def test_what_a_spec_cannot_use_is_refused_by_name_with_the_reason(
    issues_of: IssuesOf, changes: Body, pointer: str, reason: str
) -> None:
    (issue,) = issues_of(changes)
    assert (issue.pointer, issue.code) == (pointer, "refused")
    assert reason in issue.detail


def test_a_lazy_layer_is_mended_by_the_layer_itself(issues_of: IssuesOf) -> None:
    (issue,) = issues_of(layers({"type": "LazyLinear", "out_features": 3}))
    assert issue.fix == ({"op": "replace", "path": "/model/layers/0/type", "value": "Linear"},)


@pytest.mark.parametrize(
    ("outer", "key", "pointer"),
    [
        ("ext.Residual", "layers", "/model/layers/0/layers/0"),
        ("Sequential", "layers", "/model/layers/0/layers/0"),
        ("ext.Parallel", "branches", "/model/layers/0/branches/0"),
    ],
)
def test_nested_layers_are_checked_where_they_stand(issues_of: IssuesOf, outer: str, key: str, pointer: str) -> None:
    (issue,) = issues_of(layers({"type": outer, key: ["ReLu"]}))
    assert issue.pointer == pointer


def test_layers_of_a_shortcut_and_of_a_branch_are_checked(issues_of: IssuesOf) -> None:
    residual = {"type": "ext.Residual", "layers": ["ReLU"], "shortcut": [{**CONV, "strides": 2}]}
    parallel = {"type": "ext.Parallel", "branches": ["ReLU", ["ReLU", 3]]}
    found = [issue.pointer for issue in issues_of(layers(residual, parallel))]
    assert found == ["/model/layers/0/shortcut/0/strides", "/model/layers/1/branches/1/1"]


def test_graph_nodes_need_a_name_and_inputs(issues_of: IssuesOf) -> None:
    graph = {"type": "Graph", "inputs": ["x"], "outputs": ["y"], "nodes": [{"type": "ReLU", "name": "y"}]}
    assert [issue.pointer for issue in issues_of({"model": graph})] == ["/model/nodes/0/inputs"]


def nested(depth: int) -> Any:
    inner: Any = "ReLU"
    for _ in range(depth - 1):
        inner = {"type": "ext.Parallel", "branches": [[inner]]}
    return inner


def test_components_may_be_nested_to_the_limit_and_not_deeper(issues_of: IssuesOf) -> None:
    assert issues_of(layers(nested(MAX_NESTING))) == ()
    (issue,) = issues_of(layers(nested(MAX_NESTING + 1)))
    assert issue.code == "too_deep"


def test_a_mistake_before_them_does_not_change_how_deep_components_may_be_nested(issues_of: IssuesOf) -> None:
    mistakes = [{"type": "ext.Residual", "layers": "ReLU"}] * 30
    found = issues_of(layers(*mistakes, nested(MAX_NESTING)))
    assert {issue.code for issue in found} == {"wrong_type"}


def test_layers_are_counted_to_the_limit_nested_ones_too(issues_of: IssuesOf) -> None:
    inner = {"type": "ext.Residual", "layers": ["ReLU"] * 100}
    outer = ["ReLU"] * (MAX_LAYERS - 101)
    assert issues_of(layers(*outer, inner)) == ()
    (issue,) = issues_of(layers(*outer, inner, "ReLU"))
    assert (issue.pointer, issue.code) == (f"/model/layers/{MAX_LAYERS - 100}", "too_many_layers")
