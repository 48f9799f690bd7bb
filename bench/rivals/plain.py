# ruff: noqa: ANN001, ANN201 - written as a user would
"""A plain loop tuned by hand: tensors once, one permutation and index an epoch, no step waits for a number."""

import torch
from torch import nn
from torch.nn.functional import affine_grid, grid_sample

from bench.rivals.job import Watch, answer, arrays, given
from bench.rivals.models import model as model_of


def moved(images):
    """Turn, scale and shift each image by numbers of its own, all at once; add noise."""
    count = len(images)
    angle = torch.empty(count).uniform_(-10, 10).deg2rad()
    scale = torch.empty(count).uniform_(0.9, 1.1)
    shift = torch.empty(count, 2).uniform_(-0.1, 0.1).mul(images.shape[-1]).round() * 2 / images.shape[-1]
    cos, sin = angle.cos() / scale, angle.sin() / scale
    theta = torch.stack([cos, sin, -shift[:, 0], -sin, cos, -shift[:, 1]], 1).reshape(count, 2, 3)
    grid = affine_grid(theta, images.shape, align_corners=False)
    made = grid_sample(images + 1, grid, mode="nearest", align_corners=False) - 1  # black is -1
    return (made + torch.randn_like(made) * 0.04).clamp(-1, 1)


def main():
    job = given()
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    x_train, y_train, x_val, y_val = map(torch.from_numpy, arrays(job))
    is_augmented = "augmented" in job.name
    model = model_of(job.name)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = getattr(torch.optim, job.optimizer)(model.parameters(), lr=job.lr)
    best, wait, watch = float("inf"), 0, Watch()
    for _ in range(job.epochs):
        model.train()
        order = torch.randperm(len(x_train))
        x, y = x_train[order], y_train[order]
        train_loss, correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for inputs, target in zip(x.split(job.batch_size), y.split(job.batch_size), strict=True):
            optimizer.zero_grad()
            output = model(moved(inputs) if is_augmented else inputs)
            loss = loss_fn(output, target)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                train_loss += loss * len(target)
                correct += (output.argmax(1) == target).sum()
        model.eval()
        val_loss, val_correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        with torch.no_grad():
            for inputs, target in zip(x_val.split(1024), y_val.split(1024), strict=True):
                output = model(inputs)
                val_loss += loss_fn(output, target) * len(target)
                val_correct += (output.argmax(1) == target).sum()
        mean = float(val_loss)
        watch.lap()
        wait = 0 if mean < best else wait + 1
        best = min(best, mean)
        if wait >= job.patience:
            break
    accuracy = int(val_correct) / len(y_val)
    answer(watch, accuracy, lambda: torch.save(model.state_dict(), job.weights), "torch")


if __name__ == "__main__":
    main()
