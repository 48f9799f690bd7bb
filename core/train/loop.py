"""The training loop."""

from core.messages import StopReason
from core.train.trainer import Trainer


def fit(trainer: Trainer) -> StopReason:
    """Train until the plan, early stopping or a person says stop; return which.

    On a blackboard::

        for epoch in 1 ... epochs:
            for batch in order(seed, epoch):
                loss = loss_fn(model(batch.inputs), batch.target)
                loss.backward()
                optimizer.step()
            validate
            decide: early stopping, good enough, converged, smaller lr
            save a checkpoint, publish the epoch's row with it

    Raises:
        Interrupted: a stop was asked for; the state is whole, and training goes on from it exactly.
        TimeUsedUp: the time limit is reached; the state is whole.
    """
    trainer.begin()
    while trainer.at.stop_reason is None:
        for batches in trainer.updates():
            trainer.updater.update(batches)
            trainer.count(batches)
            trainer.look_up()
            trainer.validate_within_epoch()
            if trainer.at.verdict is not None:
                break
        trainer.finish_epoch()
    return trainer.at.stop_reason
