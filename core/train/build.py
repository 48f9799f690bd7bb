"""Everything that is built from a spec, in one place: model, loss, optimizer, schedule, transforms."""

from core.train.losses import loss
from core.train.lr_schedulers import lr_scheduler
from core.train.model import Inferred, infer, model
from core.train.optimizers import optimizer
from core.train.transforms import transforms

__all__ = ["Inferred", "infer", "loss", "lr_scheduler", "model", "optimizer", "transforms"]
