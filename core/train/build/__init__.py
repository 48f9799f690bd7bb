"""Everything that is built from a spec, in one place: model, loss, optimizer, schedule, transforms."""

from core.train.build.losses import loss
from core.train.build.lr_schedulers import lr_scheduler
from core.train.build.model import Inferred, infer, model
from core.train.build.optimizers import optimizer
from core.train.build.transforms import transforms

__all__ = ["Inferred", "infer", "loss", "lr_scheduler", "model", "optimizer", "transforms"]
