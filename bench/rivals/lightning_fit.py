# ruff: noqa: ANN001, ANN002, ANN201, ANN204 - written as a user would
"""PyTorch Lightning on tensors in memory, with its own early stopping and torchmetrics."""

import logging
import warnings

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from bench.rivals.job import Watch, answer, arrays, given
from bench.rivals.models import model as model_of


class Classifier(lightning.LightningModule):
    def __init__(self, job, classes):
        super().__init__()
        self.job, self.model, self.loss_fn = job, model_of(job.name), nn.CrossEntropyLoss()
        self.train_accuracy = MulticlassAccuracy(classes, average="micro")
        self.val_accuracy = MulticlassAccuracy(classes, average="micro")

    def training_step(self, batch, _):
        inputs, target = batch
        output = self.model(inputs)
        loss = self.loss_fn(output, target)
        self.train_accuracy(output, target)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        self.log("train_accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, _):
        inputs, target = batch
        output = self.model(inputs)
        self.val_accuracy(output, target)
        self.log("val_loss", self.loss_fn(output, target))
        self.log("val_accuracy", self.val_accuracy)

    def configure_optimizers(self):
        return getattr(torch.optim, self.job.optimizer)(self.parameters(), lr=self.job.lr)


class Laps(Callback):
    def __init__(self, watch):
        self.watch = watch

    def on_train_epoch_start(self, *_):
        if not self.watch.epochs:
            self.watch.start()

    def on_train_epoch_end(self, *_):
        self.watch.lap()


def main():
    job = given()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(job.threads)
    lightning.seed_everything(job.seed, verbose=False)
    x_train, y_train, x_val, y_val = map(torch.from_numpy, arrays(job))
    watch = Watch()
    trainer = lightning.Trainer(
        max_epochs=job.epochs,
        accelerator="cpu",
        callbacks=[EarlyStopping("val_loss", patience=job.patience), Laps(watch)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    module = Classifier(job, int(y_train.max()) + 1)
    train = DataLoader(TensorDataset(x_train, y_train), job.batch_size, shuffle=True)
    trainer.fit(module, train, DataLoader(TensorDataset(x_val, y_val), 1024))
    accuracy = float(trainer.callback_metrics["val_accuracy"])
    answer(watch, accuracy, lambda: torch.save(module.model.state_dict(), job.weights), "torch", "lightning")


if __name__ == "__main__":
    main()
