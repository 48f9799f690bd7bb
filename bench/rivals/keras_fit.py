# ruff: noqa: ANN001, ANN201, ANN204, ARG002 - written as a user would
"""Keras 3 with `fit` on arrays in memory; KERAS_BACKEND says on which engine."""

import os

import keras
from keras import layers

from bench.rivals.job import Watch, answer, arrays, given


def residual(x, filters, stride):
    """Return a block of ResNet-18."""
    shortcut = x
    x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same", use_bias=False)(x))
    if stride > 1:
        shortcut = layers.BatchNormalization()(layers.Conv2D(filters, 1, strides=stride, use_bias=False)(shortcut))
    return layers.ReLU()(layers.Add()([x, shortcut]))


def resnet18():
    inputs = x = layers.Input((32, 32, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(64, 7, strides=2, padding="same", use_bias=False)(x)))
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    for filters in (64, 128, 256, 512):
        x = residual(residual(x, filters, 1 if filters == 64 else 2), filters, 1)
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def model_of(name):
    match name:
        case "mlp":
            return keras.Sequential([layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(10)])
        case "tabular":
            hidden = [layers.Dense(64, activation="relu") for _ in range(2)]
            return keras.Sequential([*hidden, layers.Dense(2)])
        case "cnn":
            return keras.Sequential([
                layers.Conv2D(16, 3, padding="same", use_bias=False), layers.BatchNormalization(), layers.ReLU(),
                layers.MaxPooling2D(2),
                layers.Conv2D(32, 3, padding="same", use_bias=False), layers.BatchNormalization(), layers.ReLU(),
                layers.GlobalAveragePooling2D(), layers.Dense(10),
            ])  # fmt: skip
        case _:
            return resnet18()


class Laps(keras.callbacks.Callback):
    def __init__(self, watch):
        super().__init__()
        self.watch = watch

    def on_train_begin(self, logs=None):
        self.watch.start()

    def on_epoch_end(self, epoch, logs=None):
        self.watch.lap()


def main():
    job = given()
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        torch.set_num_threads(job.threads)
    keras.utils.set_random_seed(job.seed)
    x_train, y_train, x_val, y_val = arrays(job)
    if x_train.ndim == 4:  # Keras puts channels last
        x_train, x_val = x_train.transpose(0, 2, 3, 1), x_val.transpose(0, 2, 3, 1)
    model, watch = model_of(job.name), Watch()
    model.compile(
        optimizer=getattr(keras.optimizers, job.optimizer)(job.lr),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        x_train,
        y_train,
        batch_size=job.batch_size,
        epochs=job.epochs,
        validation_data=(x_val, y_val),
        validation_batch_size=1024,
        callbacks=[keras.callbacks.EarlyStopping("val_loss", patience=job.patience), Laps(watch)],
        verbose=0,
    )
    accuracy = history.history["val_accuracy"][-1]
    answer(watch, accuracy, lambda: model.save_weights(f"{job.weights}.weights.h5"), "keras", backend)


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "torch")
    main()
