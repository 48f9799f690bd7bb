# ruff: noqa: ANN001, ANN002, ANN003, ANN201, ANN204 - written as a user would
"""skorch on arrays in memory, with its own scoring and early stopping."""

import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping, EpochScoring
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from torch import nn

from bench.rivals.job import Watch, answer, arrays, given
from bench.rivals.models import model as model_of


class Laps(Callback):
    def __init__(self, watch):
        self.watch = watch

    def on_train_begin(self, *_, **__):
        self.watch.start()

    def on_epoch_end(self, *_, **__):
        self.watch.lap()


def main():
    job = given()
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    x_train, y_train, x_val, y_val = arrays(job)
    watch = Watch()
    net = NeuralNetClassifier(
        model_of(job.name),
        criterion=nn.CrossEntropyLoss,
        optimizer=getattr(torch.optim, job.optimizer),
        lr=job.lr,
        max_epochs=job.epochs,
        batch_size=job.batch_size,
        iterator_train__shuffle=True,
        iterator_valid__batch_size=1024,
        train_split=predefined_split(Dataset(x_val, y_val)),
        callbacks=[
            ("train_acc", EpochScoring("accuracy", name="train_acc", on_train=True, lower_is_better=False)),
            ("stop", EarlyStopping("valid_loss", patience=job.patience)),
            ("laps", Laps(watch)),
        ],
        verbose=0,
    )
    net.fit(x_train, y_train)
    accuracy = float(net.history[-1, "valid_acc"])
    answer(watch, accuracy, lambda: torch.save(net.module_.state_dict(), job.weights), "torch", "skorch")


if __name__ == "__main__":
    main()
