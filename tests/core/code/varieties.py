"""Small jobs that between them use all that a script writes out."""

from typing import Any

FLOAT = {"type": "ToDtype", "dtype": "float32", "scale": True}
MOONS: dict[str, Any] = {
    "data": {
        "train": {"type": "synthetic.moons", "samples": 150, "noise": 0.2, "seed": 1},
        "val": {"from": "train", "fraction": 0.2},
    },
    "model": {
        "type": "Sequential",
        "layers": [{"type": "Linear", "out_features": 7}, "Tanh", {"type": "Linear", "out_features": 2}],
    },
    "loss": "CrossEntropyLoss",
    "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9},
    "epochs": 4,
    "batch_size": 17,
    "seed": 11,
    "execution": {"device": "cpu", "threads": 1},
}
IRIS: dict[str, Any] = {
    **MOONS,
    "data": {
        "train": {"type": "sklearn.iris"},
        "val": {"from": "train", "fraction": 0.2, "stratify": True},
        "test": {"from": "train", "fraction": 0.1, "stratify": True},
        "preprocess": ["StandardScaler"],
    },
    "model": {
        "type": "Sequential",
        "layers": [
            {"type": "Linear", "out_features": 9},
            "BatchNorm1d",
            "ReLU",
            {"type": "Dropout", "p": 0.3},
            {"type": "Linear", "out_features": 3},
        ],
    },
}
LINNERUD: dict[str, Any] = {
    **MOONS,
    "data": {
        "train": {"type": "sklearn.linnerud"},
        "val": {"from": "train", "fraction": 0.25},
        "preprocess": ["MinMaxScaler", {"type": "StandardScaler", "columns": ["target"]}],
    },
    "model": {"type": "Sequential", "layers": [{"type": "Linear", "out_features": 3}]},
    "loss": "HuberLoss",
    "metrics": ["mae", "mse", "rmse", "r2"],
    "batch_size": 4,
}
IMAGES: dict[str, Any] = {
    **MOONS,
    "data": {
        "train": {"type": "sklearn.digits", "as": "image"},
        "val": {"from": "train", "fraction": 0.2},
        "max_samples": 150,
        "transforms": {
            "train": [FLOAT, "RandomHorizontalFlip", {"type": "RandomRotation", "degrees": 20}],
            "eval": [FLOAT],
        },
    },
    "model": {
        "type": "Sequential",
        "layers": [
            {"type": "Conv2d", "out_channels": 5, "kernel_size": 3},
            "BatchNorm2d",
            "ReLU",
            "Flatten",
            {"type": "Linear", "out_features": 10},
        ],
    },
    "epochs": 2,
    "batch_size": 18,
}
GRAPH: dict[str, Any] = {
    "type": "Graph",
    "inputs": ["x"],
    "nodes": [
        {"name": "steps", "type": "Unflatten", "dim": 1, "unflattened_size": [4, 1], "inputs": ["x"]},
        {"name": "gru", "type": "GRU", "hidden_size": 6, "batch_first": True, "inputs": ["steps"]},
        {"name": "last", "type": "ext.LastTimestep", "inputs": ["gru"]},
        {"name": "class", "type": "Linear", "out_features": 6, "inputs": ["x"]},
        {"name": "both", "type": "ext.Concatenate", "inputs": ["last", "class"]},
        {"name": "out", "type": "Linear", "out_features": 3, "inputs": ["both"]},
    ],
    "outputs": ["out"],
}
EVERY_METRIC = [
    "accuracy", {"type": "accuracy", "top_k": 2}, "f1", {"type": "f1", "average": "micro"}, "auroc", "log_loss",
    {"type": "precision", "average": "weighted"}, "recall", "confusion_matrix",
]  # fmt: skip

VARIETIES: dict[str, dict[str, Any]] = {
    "sgd with step, exact classes, no validation": {
        **MOONS,
        "data": {"train": MOONS["data"]["train"]},
        "lr_scheduler": {"type": "StepLR", "step_size": 2, "gamma": 0.5},
        "gradient_clipping": {"clip_value": 0.02},
        "shuffle": False,
    },
    "adam, batch norm, dropout, every metric": {
        **IRIS,
        "optimizer": {"type": "Adam", "lr": 0.01, "weight_decay": 0.01},
        "lr_scheduler": {"type": "ExponentialLR", "gamma": 0.9, "interval": "step"},
        "gradient_clipping": {"max_norm": 0.5},
        "metrics": EVERY_METRIC,
        "evaluate_at_start": True,
        "drop_last": True,
    },
    "lbfgs on the whole set": {
        **MOONS,
        "optimizer": {"type": "LBFGS", "lr": 0.5, "max_iter": 4},
        "regularization": {"l2": 0.001},
        "batch_size": "full",
        "loss": "BCEWithLogitsLoss",
        "model": {
            "type": "Sequential",
            "layers": [{"type": "Linear", "out_features": 5}, "ReLU", {"type": "Linear", "out_features": 1}],
        },
        "metrics": ["accuracy", "f1", "auroc", "log_loss", "confusion_matrix"],
    },
    "lbfgs over several batches": {
        **MOONS,
        "optimizer": {"type": "LBFGS", "lr": 0.5, "max_iter": 3},
        "gradient_clipping": {"max_norm": 1.0},
        "accumulate_grad_batches": 3,
        "batch_size": 18,
        "epochs": 2,
    },
    "plateau with cooldown of early stopping": {
        **MOONS,
        "epochs": 14,
        "optimizer": {"type": "SGD", "lr": 3.0},
        "lr_scheduler": {"type": "ReduceLROnPlateau", "patience": 0, "factor": 0.3},
        "early_stopping": {
            "patience": 3,
            "cooldown": 2,
            "min_delta": 0.01,
            "start_from_epoch": 2,
            "baseline": 0.6,
            "stopping_threshold": 0.01,
        },
    },
    "accumulation, one cycle, max_steps": {
        **IRIS,
        "accumulate_grad_batches": 3,
        "max_steps": 8,
        "validate_every": {"epochs": 2},
        "optimizer": {"type": "AdamW", "lr": 0.01},
        "lr_scheduler": {"type": "OneCycleLR", "max_lr": 0.05, "total_steps": "steps", "interval": "step"},
        "regularization": {"l1": 0.001, "exclude": ["bias"]},
    },
    "validation within epochs": {
        **IRIS,
        "validate_every": {"steps": 3},
        "epochs": 8,
        "early_stopping": {"monitor": "val_accuracy", "patience": 4},
        "stop_when": [
            {"monitor": "val_loss", "below": 0.05},
            {"monitor": "train_loss", "converged": {"window": 3, "tolerance": 1e-9}},
        ],
        "lr_scheduler": {"type": "CosineAnnealingWarmRestarts", "T_0": 3, "interval": "step"},
        "ema": {"decay": 0.9},
    },
    "ema, warm-up and cosine": {
        **IRIS,
        "ema": {"decay": 0.8},
        "lr_scheduler": {
            "type": "SequentialLR",
            "schedulers": [{"type": "LinearLR", "total_iters": 2}, {"type": "CosineAnnealingLR", "T_max": "epochs"}],
            "milestones": [2],
        },
        "early_stopping": {"monitor": "val_loss", "patience": 2, "restore_best": False},
    },
    "swa with a rate of its own": {
        **IRIS,
        "epochs": 6,
        "swa": {"start_epoch": 3, "lr": 0.02},
        "lr_scheduler": {"type": "PolynomialLR", "total_iters": 4},
    },
    "swa from the start, without validation": {
        **IRIS,
        "data": {"train": {"type": "sklearn.iris"}},
        "swa": {"start_epoch": 1, "lr": 0.02},
    },
    "several targets, scaled": {
        **LINNERUD,
        "optimizer": {"type": "Rprop", "lr": 0.01},
        "early_stopping": {"monitor": "val_r2"},
    },
    "one of several targets": {
        **LINNERUD,
        "data": {
            **LINNERUD["data"],
            "columns": {"target": "Waist", "features": ["Chins", "Jumps"], "order_by": "Situps"},
            "preprocess": [
                {"type": "QuantileTransformer", "columns": ["Jumps"], "n_quantiles": 5},
                "PolynomialFeatures",
            ],
        },
        "model": {"type": "Sequential", "layers": [{"type": "Linear", "out_features": 1}]},
        "loss": "SmoothL1Loss",
    },
    "columns with a validation set of its own": {
        **MOONS,
        "data": {
            "train": {"type": "sklearn.iris"},
            "val": {"type": "sklearn.iris"},
            "columns": {"categorical": ["petal width (cm)"]},
            "preprocess": [
                {"type": "StandardScaler", "columns": ["sepal length (cm)", "petal length (cm)"]},
                "OneHotEncoder",
            ],
        },
        "model": {"type": "Sequential", "layers": [{"type": "Linear", "out_features": 3}]},
        "epochs": 2,
    },
    "several labels": {
        **MOONS,
        "data": {
            "train": {"type": "synthetic.multilabel_classification", "samples": 90, "n_classes": 4, "n_features": 6},
            "val": {"from": "train", "fraction": 0.3},
        },
        "model": {"type": "Sequential", "layers": [{"type": "Linear", "out_features": 4}]},
        "loss": ["BCEWithLogitsLoss", {"type": "MultiLabelMarginLoss", "coefficient": 0.25}],
        "metrics": ["accuracy", "f1", "auroc", "log_loss"],
    },
    "balanced classes": {
        **MOONS,
        "data": {
            "train": {"type": "synthetic.classification", "samples": 120, "weights": [0.8, 0.2], "n_classes": 2},
            "val": {"type": "synthetic.classification", "samples": 60, "weights": [0.8, 0.2], "seed": 1},
        },
        "loss": {"type": "BCEWithLogitsLoss", "weight": "balanced", "pos_weight": [1.5]},
        "model": {"type": "Sequential", "layers": [{"type": "Linear", "out_features": 1}]},
        "lr_scheduler": {
            "type": "ChainedScheduler",
            "schedulers": [{"type": "ConstantLR", "total_iters": 2}, {"type": "MultiStepLR", "milestones": [1, 3]}],
        },
    },
    "images, random transforms, frozen": {
        **IMAGES,
        "model": {**IMAGES["model"], "freeze": ["0"], "weight_init": "kaiming_uniform_"},
    },
    "images, fixed transforms, class weights": {
        **IMAGES,
        "data": {
            **IMAGES["data"],
            "transforms": {
                "train": ["ToImage", FLOAT, {"type": "Pad", "padding": 1}],
                "eval": [FLOAT, {"type": "Pad", "padding": 1}],
            },
        },
        "loss": {"type": "CrossEntropyLoss", "weight": "balanced"},
        "optimizer": {"type": "NAdam", "lr": 0.01, "param_groups": [{"match": "^4\\.", "lr": 0.02}]},
        "lr_scheduler": {
            "type": "CyclicLR",
            "base_lr": 0.001,
            "max_lr": 0.01,
            "step_size_up": 3,
            "interval": "step",
            "cycle_momentum": False,
        },
    },
    "a graph with a recurrent layer": {**IRIS, "model": GRAPH, "optimizer": {"type": "RAdam", "lr": 0.02}},
    "a transformer in bfloat16 where it is safe": {
        **IRIS,
        "precision": "bf16-mixed",
        "model": {
            "type": "Sequential",
            "layers": [
                {"type": "Unflatten", "dim": 1, "unflattened_size": [4, 1]},
                {"type": "LSTM", "hidden_size": 4, "batch_first": True},
                {
                    "type": "TransformerEncoder",
                    "num_layers": 1,
                    "encoder_layer": {
                        "type": "TransformerEncoderLayer",
                        "nhead": 2,
                        "dim_feedforward": 8,
                        "batch_first": True,
                    },
                },
                "ext.LastTimestep",
                {
                    "type": "ext.Parallel",
                    "branches": [
                        {"type": "Linear", "out_features": 3},
                        ["Identity", {"type": "Linear", "out_features": 2}],
                    ],
                },
                {"type": "ext.Residual", "layers": [{"type": "Linear", "out_features": 5}]},
                {"type": "Linear", "out_features": 3},
            ],
        },
        "loss": [{"type": "CrossEntropyLoss", "label_smoothing": 0.1}, {"type": "MultiMarginLoss", "coefficient": 0.5}],
    },
}
