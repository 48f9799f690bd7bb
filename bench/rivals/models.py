"""The jobs' models in torch, as their specs describe them."""

from torch import nn


def model(name: str) -> nn.Module:
    """Return the model of a job."""
    match name:
        case "mlp":
            return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
        case "tabular":
            return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
        case "cnn" | "cnn-augmented":
            return nn.Sequential(
                nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
            )  # fmt: skip
        case "resnet18":
            from torchvision.models import resnet18

            return resnet18(num_classes=10)
        case _:
            raise ValueError(f"no job is called {name}")
