import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from core.train.schedule import Schedule

EPOCHS = 9


def begun() -> Schedule:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    return Schedule(optimizer, StepLR(optimizer, step_size=2), swa=(4, 0.01))


def follow(schedule: Schedule, first: int, last: int) -> list[list[float]]:
    rates = []
    for epoch in range(first, last + 1):
        schedule.optimizer.step()
        schedule.after_epoch({}, epoch, epoch)
        rates.append(schedule.current())
    return rates


@pytest.mark.parametrize("epoch", range(1, EPOCHS))
def test_rates_before_and_within_swa_go_on_where_they_were(epoch: int) -> None:
    whole = follow(begun(), 1, EPOCHS)
    first, second = begun(), begun()
    rates = follow(first, 1, epoch)
    second.load_state_dict(first.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert second.lr == first.lr
    assert rates + follow(second, epoch + 1, EPOCHS) == whole
