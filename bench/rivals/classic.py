# ruff: noqa: ANN001, ANN201, ANN204 - written as a user would
"""The script of every tutorial: a Dataset with transforms per sample, a DataLoader, `.item()` in each step."""

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from bench.rivals.job import Watch, answer, given, raw
from bench.rivals.models import model as model_of


class Samples(Dataset):
    def __init__(self, x, y, transform):
        self.x, self.y, self.transform = x, y, transform

    def __len__(self):
        return len(self.x)

    def __getitem__(self, at):
        return self.transform(Image.fromarray(self.x[at, 0])), int(self.y[at])


def main():
    job = given()
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    x_train, y_train, x_val, y_val = raw(job)
    plain = [transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))]
    moved = [transforms.RandomAffine(10, translate=(0.1, 0.1), scale=(0.9, 1.1))] if "augmented" in job.name else []
    train = DataLoader(Samples(x_train, y_train, transforms.Compose(moved + plain)), job.batch_size, shuffle=True)
    val = DataLoader(Samples(x_val, y_val, transforms.Compose(plain)), job.batch_size)
    model = model_of(job.name)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = getattr(torch.optim, job.optimizer)(model.parameters(), lr=job.lr)
    best, wait, watch = float("inf"), 0, Watch()
    for _ in range(job.epochs):
        model.train()
        train_loss, correct = 0.0, 0
        for inputs, target in train:
            optimizer.zero_grad()
            output = model(inputs)
            loss = loss_fn(output, target)
            loss.backward()
            optimizer.step()
            train_loss += loss.item() * len(target)
            correct += (output.argmax(1) == target).sum().item()
        model.eval()
        val_loss, val_correct = 0.0, 0
        with torch.no_grad():
            for inputs, target in val:
                output = model(inputs)
                val_loss += loss_fn(output, target).item() * len(target)
                val_correct += (output.argmax(1) == target).sum().item()
        watch.lap()
        wait = 0 if val_loss < best else wait + 1
        best = min(best, val_loss)
        if wait >= job.patience:
            break
    answer(watch, val_correct / len(y_val), lambda: torch.save(model.state_dict(), job.weights), "torch", "torchvision")


if __name__ == "__main__":
    main()
