"""Words of other libraries for the names used here, so that a suggestion is right where spelling is no guide.

Compared without case, underscores and hyphens. Only names whose spelling is far from the right one stand here.
"""

Pairs = tuple[tuple[str, str], ...]

FIELDS: dict[tuple[str, ...], Pairs] = {
    (): (
        ("num_epochs", "epochs"), ("n_epochs", "epochs"), ("max_epochs", "epochs"), ("criterion", "loss"),
        ("loss_fn", "loss"), ("objective", "loss"), ("network", "model"), ("architecture", "model"),
        ("scheduler", "lr_scheduler"), ("lr_schedule", "lr_scheduler"), ("grad_clip", "gradient_clipping"),
        ("clip_grad_norm", "gradient_clipping"), ("dataset", "data"), ("random_state", "seed"),
        ("gradient_accumulation_steps", "accumulate_grad_batches"), ("regularizer", "regularization"),
        ("tags", "metadata"), ("labels", "metadata"),
    ),
    ("data",): (
        ("dataset", "train"), ("source", "train"), ("training", "train"), ("validation", "val"), ("valid", "val"),
        ("augmentation", "transforms"), ("limit", "max_samples"),
    ),
    ("data", "val"): (("split", "fraction"), ("ratio", "fraction"), ("size", "fraction"), ("share", "fraction")),
    ("data", "test"): (("split", "fraction"), ("ratio", "fraction"), ("size", "fraction"), ("share", "fraction")),
    ("early_stopping",): (
        ("metric", "monitor"), ("restore_best_weights", "restore_best"), ("tolerance", "min_delta"),
        ("delta", "min_delta"), ("warmup", "start_from_epoch"),
    ),
}  # fmt: skip
"""By the path of the object that has the field."""

TYPES: dict[str, Pairs] = {
    "layers": (
        ("Dense", "Linear"), ("FullyConnected", "Linear"), ("FC", "Linear"), ("BatchNormalization", "BatchNorm1d"),
        ("BatchNorm", "BatchNorm1d"), ("LayerNormalization", "LayerNorm"), ("MaxPooling1D", "MaxPool1d"),
        ("MaxPooling2D", "MaxPool2d"), ("AveragePooling1D", "AvgPool1d"), ("AveragePooling2D", "AvgPool2d"),
        ("GlobalAveragePooling2D", "AdaptiveAvgPool2d"), ("GlobalMaxPooling2D", "AdaptiveMaxPool2d"),
        ("Convolution2D", "Conv2d"), ("Conv", "Conv2d"), ("Conv2DTranspose", "ConvTranspose2d"), ("Swish", "SiLU"),
        ("SpatialDropout2D", "Dropout2d"), ("ZeroPadding2D", "ZeroPad2d"), ("UpSampling2D", "Upsample"),
        ("Add", "ext.Residual"), ("Skip", "ext.Residual"), ("Concatenate", "ext.Parallel"),
    ),
    "losses": (
        ("categorical_crossentropy", "CrossEntropyLoss"), ("sparse_categorical_crossentropy", "CrossEntropyLoss"),
        ("softmax_cross_entropy", "CrossEntropyLoss"), ("cross_entropy", "CrossEntropyLoss"),
        ("binary_crossentropy", "BCEWithLogitsLoss"), ("bce", "BCEWithLogitsLoss"), ("mse", "MSELoss"),
        ("mean_squared_error", "MSELoss"), ("l2", "MSELoss"), ("mae", "L1Loss"), ("mean_absolute_error", "L1Loss"),
        ("huber", "HuberLoss"), ("nll", "NLLLoss"), ("kl", "KLDivLoss"), ("log_loss", "CrossEntropyLoss"),
    ),
    "optimizers": (("momentum", "SGD"), ("nesterov", "SGD"), ("gradient_descent", "SGD")),
    "lr_schedulers": (
        ("cosine", "CosineAnnealingLR"), ("step", "StepLR"), ("plateau", "ReduceLROnPlateau"),
        ("warmup", "LinearLR"), ("linear", "LinearLR"), ("exponential", "ExponentialLR"), ("onecycle", "OneCycleLR"),
        ("constant", "ConstantLR"), ("polynomial", "PolynomialLR"), ("cyclic", "CyclicLR"),
    ),
    "initializers": (
        ("he_normal", "kaiming_normal_"), ("he_uniform", "kaiming_uniform_"), ("he", "kaiming_normal_"),
        ("glorot_normal", "xavier_normal_"), ("glorot_uniform", "xavier_uniform_"), ("xavier", "xavier_uniform_"),
        ("kaiming", "kaiming_normal_"), ("truncated_normal", "trunc_normal_"),
    ),
    "metrics": (
        ("acc", "accuracy"), ("auc", "auroc"), ("roc_auc", "auroc"), ("f_score", "f1"),
        ("mean_absolute_error", "mae"), ("cross_entropy", "log_loss"), ("top_k_accuracy", "accuracy"),
    ),
    "models": (("mlp", "Sequential"), ("Functional", "Graph")),
    "transforms": (
        ("HorizontalFlip", "RandomHorizontalFlip"), ("VerticalFlip", "RandomVerticalFlip"),
        ("Rotate", "RandomRotation"), ("Crop", "RandomCrop"), ("Affine", "RandomAffine"), ("Noise", "GaussianNoise"),
        ("ToFloat", "ToDtype"), ("ConvertDtype", "ToDtype"),
    ),
    "data_sources": (("upload", "dataset"),),
    "preprocess": (
        ("standardize", "StandardScaler"), ("zscore", "StandardScaler"), ("normalize", "StandardScaler"),
        ("Imputer", "SimpleImputer"), ("one_hot", "OneHotEncoder"),
    ),
}  # fmt: skip
"""By the kind of the component."""

ARGUMENTS: Pairs = (
    ("learning_rate", "lr"), ("decay", "weight_decay"), ("l2", "weight_decay"), ("beta_1", "betas"),
    ("beta1", "betas"), ("epsilon", "eps"), ("units", "out_features"), ("units", "hidden_size"),
    ("output_dim", "out_features"), ("output_dim", "embedding_dim"), ("input_dim", "in_features"),
    ("input_dim", "num_embeddings"), ("out_features", "out_channels"), ("out_channels", "out_features"),
    ("filters", "out_channels"), ("pool_size", "kernel_size"), ("strides", "stride"), ("rate", "p"),
    ("dropout_rate", "p"), ("dropout", "p"), ("probability", "p"), ("prob", "p"), ("hidden_dim", "hidden_size"),
    ("n_layers", "num_layers"), ("classes", "num_classes"), ("pretrained", "weights"), ("n_samples", "samples"),
    ("n_samples", "samples"), ("random_state", "seed"), ("k", "top_k"), ("top", "top_k"), ("heads", "nhead"),
    ("num_heads", "nhead"), ("nhead", "num_heads"), ("alpha", "negative_slope"), ("step", "step_size"),
    ("metric", "monitor"), ("min_lr", "eta_min"), ("class_weight", "weight"),
)  # fmt: skip
"""For arguments of all components; the first that the component has is meant."""

WORDS: Pairs = (
    ("float", "float32"), ("double", "float64"), ("half", "float16"), ("int", "int64"), ("long", "int64"),
    ("byte", "uint8"), ("pretrained", "DEFAULT"), ("imagenet", "DEFAULT"), ("minimum", "min"), ("maximum", "max"),
    ("fp16", "16-mixed"), ("fp32", "32-true"), ("cuda", "gpu"), ("cubic", "bicubic"), ("linear", "bilinear"),
)  # fmt: skip
"""For arguments and fields that take one of a few words."""
