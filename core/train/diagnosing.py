"""What somebody who watches the curves would say: each diagnosis once a job, with its numbers and a change to try.

    code                  said when
    lr_too_high           train loss is twice what it was at its best, or no number any more
    loss_stuck            train loss has moved by less than 0.5 % in five epochs
    overfitting           val loss is 10 % above its best of five epochs ago, while train loss went on falling
    underfitting          at the end train loss is above 70 % of where it began, and val loss not far from it
    vanishing_gradients   twice in a row the first layer's gradients are below a thousandth of the last layer's
    exploding_gradients   the gradients' norm is a hundred times what it was at its lowest, and nothing clips it
    dead_relus            more than half of a ReLU's units give zero for every sample that was looked at

Gradients and units are looked at in epochs 1, 2, 4, 8, … only, so that looking costs nothing.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from core.spec.job import JobSpec
from core.train.components import as_json
from core.train.probing import Probe, pointer_of

RISEN = 2.0
MOVED = 0.005
STUCK_EPOCHS = 5
WORSE = 0.1
LEARNED = 0.05
PATIENCE = 5
UNLEARNED = 0.7
NEAR = 0.1
VANISHED = 1e-3
VANISHED_LAYERS = 3
"""A model with fewer layers has no way to lose gradients in."""
EXPLODED = 100.0
DEAD = 0.5
SATURATING = ("Sigmoid", "Tanh", "Softsign", "Hardsigmoid", "Hardtanh")

Finding = tuple[str, str, dict[str, Any], list[dict[str, Any]]]
"""Code, one sentence, the numbers in it, a change of the spec as JSON Patch."""


class Diagnoser:
    """Looks at every row once; what it has seen and said is in every checkpoint.

    Args:
        spec: to suggest changes of.
        lr: that the optimizer began with.
        probe: looks into the model; none: gradients by layer and dead units are not looked at.
    """

    def __init__(self, spec: JobSpec, lr: float, probe: Probe | None = None) -> None:
        self.spec, self.lr, self.probe = spec, lr, probe
        self.said: list[str] = []
        self.losses: list[list[Any]] = []
        """Epoch, train loss and val loss (None where not validated): the first, the best of val, the latest."""
        self.least_norm: float | None = None
        self.gradients: list[float] = []
        """Root mean square of the gradients of each layer's weight, as of the last look."""
        self.vanished = 0
        """Looks in a row that found vanishing gradients."""

    def is_look_due(self, epoch: int) -> bool:
        """Whether the model is looked into in this epoch."""
        return self.probe is not None and epoch & (epoch - 1) == 0

    def after_backward(self) -> None:
        """Look at the gradients of an update."""
        if self.probe is not None:
            self.gradients = self.probe.gradients()

    def look(self, row: Mapping[str, Any], *, is_last: bool) -> list[dict[str, Any]]:
        """Return what is to be said after an epoch, as decisions.

        Args:
            row: the epoch's, as it is published.
            is_last: whether training is over.
        """
        epoch, train = int(row["epoch"]), float(row["train"]["loss"])
        val = None if row["val"] is None else float(row["val"]["loss"])
        self._note(epoch, train, val)
        found = [*self._of_losses(epoch, train, val, is_last=is_last), *self._of_norm(row["grad_norm"])]
        if self.is_look_due(epoch):
            found += [*self._of_layers(), *self._of_units()]
        fresh = [finding for finding in found if finding[0] not in self.said]
        self.said += [finding[0] for finding in fresh]
        return [
            {"kind": "diagnosis", "epoch": epoch, "step": row["step"], "code": code, "message": message,
             **numbers, "suggestion": change}
            for code, message, numbers, change in fresh
        ]  # fmt: skip

    def _note(self, epoch: int, train: float, val: float | None) -> None:
        """Remember the losses that later epochs are compared with: the first few, the best ones, the one before."""
        self.losses.append([epoch, train, val])
        if len(self.losses) > 2 * STUCK_EPOCHS:
            kept = {id(one) for one in (*self.losses[:STUCK_EPOCHS], *self.losses[-2:])}
            kept |= {id(one) for one in (self._best(1), self._best(2)) if one is not None}
            self.losses = [one for one in self.losses if id(one) in kept]

    def _best(self, column: int) -> list[Any] | None:
        known = [one for one in self.losses if one[column] is not None and math.isfinite(one[column])]
        return min(known, key=lambda one: one[column], default=None)

    def _of_losses(self, epoch: int, train: float, val: float | None, *, is_last: bool) -> Iterator[Finding]:
        yield from self._risen(train)
        yield from self._stuck(epoch)
        yield from self._overfitted(epoch, train, val)
        if is_last and not self.said:
            yield from self._underfitted(train, val)

    def _risen(self, train: float) -> Iterator[Finding]:
        best = self._best(1)
        if not math.isfinite(train):
            numbers = {"train_loss": train, "lr": self.lr}
            yield "lr_too_high", "The training loss is no number any more.", numbers, self._with_lr(0.1)
        elif best is not None and best[1] > 0 and train > RISEN * best[1]:
            message = f"The training loss rose from {best[1]:.4g} (epoch {best[0]}) to {train:.4g}."
            numbers = {"train_loss": train, "best_train_loss": best[1], "best_epoch": best[0], "lr": self.lr}
            yield "lr_too_high", message, numbers, self._with_lr(0.1)

    def _stuck(self, epoch: int) -> Iterator[Finding]:
        first = [one[1] for one in self.losses[:STUCK_EPOCHS]]
        if epoch != STUCK_EPOCHS or len(first) < STUCK_EPOCHS or not all(map(math.isfinite, first)):
            return
        moved = max(first) - min(first)
        if moved < MOVED * abs(first[0]):
            message = f"In {STUCK_EPOCHS} epochs the training loss moved by {moved:.2g}, from {first[0]:.4g}."
            numbers = {"first_train_loss": first[0], "train_loss": first[-1], "moved": moved, "lr": self.lr}
            yield "loss_stuck", message, numbers, self._with_lr(10)

    def _overfitted(self, epoch: int, train: float, val: float | None) -> Iterator[Finding]:
        best = self._best(2)
        if val is None or best is None or epoch - best[0] < PATIENCE:
            return
        has_risen = val > best[2] + WORSE * abs(best[2])
        if has_risen and train < best[1] - LEARNED * abs(best[1]):
            message = (
                f"Since epoch {best[0]} the validation loss rose from {best[2]:.4g} to {val:.4g}, while the training "
                f"loss fell from {best[1]:.4g} to {train:.4g}."
            )
            numbers = {"train_loss": train, "val_loss": val, "best_val_loss": best[2], "best_epoch": best[0]}
            yield "overfitting", message, numbers, self._against_overfitting()

    def _underfitted(self, train: float, val: float | None) -> Iterator[Finding]:
        first = self.losses[0][1]
        is_near = val is None or val < train + NEAR * abs(train)
        if len(self.losses) < 2 or not math.isfinite(train) or train <= UNLEARNED * first or not is_near:
            return
        message = f"The training loss ended at {train:.4g}, {train / first:.0%} of the first epoch's {first:.4g}."
        numbers = {"train_loss": train, "first_train_loss": first, "val_loss": val}
        falls = train < self.losses[-2][1] * (1 - 2 * MOVED)
        longer = [{"op": "replace", "path": "/epochs", "value": 2 * self.spec.epochs}]
        yield "underfitting", message, numbers, longer if falls else self._with_lr(3)

    def _of_norm(self, norm: float | None) -> Iterator[Finding]:
        if norm is None:
            return
        least = self.least_norm
        if math.isfinite(norm):
            self.least_norm = norm if least is None else min(least, norm)
        has_exploded = not math.isfinite(norm) or (least is not None and 0 < least * EXPLODED < norm)
        if has_exploded and self.spec.gradient_clipping is None:
            before = "finite" if least is None else f"{least:.3g} at its lowest"
            message = f"The gradients' norm is {norm:.3g}; it was {before}."
            clip = [{"op": "add", "path": "/gradient_clipping", "value": {"max_norm": 1.0}}]
            yield "exploding_gradients", message, {"grad_norm": norm, "least_grad_norm": least}, clip

    def _of_layers(self) -> Iterator[Finding]:
        if self.probe is None or len(self.gradients) < VANISHED_LAYERS or not self.gradients[-1]:
            return
        first, last = self.gradients[0], self.gradients[-1]
        self.vanished = self.vanished + 1 if first < VANISHED * last else 0
        if self.vanished >= 2:
            names = self.probe.names
            message = f"The gradients of {names[0]} are {first / last:.1g} times those of {names[-1]}."
            numbers = {"first_layer": names[0], "first_rms": first, "last_layer": names[-1], "last_rms": last}
            yield "vanishing_gradients", message, numbers, self._without_saturation()

    def _of_units(self) -> Iterator[Finding]:
        dead = [] if self.probe is None else self.probe.dead_units()
        name, share = max(dead, key=lambda one: one[1], default=("", 0.0))
        if share > DEAD:
            message = f"{share:.0%} of the units of {name} are zero for all samples looked at: they learn nothing more."
            pointer = pointer_of(as_json(self.spec.model), name)
            change = [{"op": "replace", "path": pointer, "value": "LeakyReLU"}] if pointer else self._with_lr(0.1)
            yield "dead_relus", message, {"layer": name, "dead_share": share}, change

    def _with_lr(self, factor: float) -> list[dict[str, Any]]:
        lr = float(f"{self.lr * factor:.6g}")
        if not self.spec.optimizer.arguments:  # it may have been posted as a bare name
            return [{"op": "replace", "path": "/optimizer", "value": {"type": self.spec.optimizer.type, "lr": lr}}]
        return [{"op": "add", "path": "/optimizer/lr", "value": lr}]

    def _against_overfitting(self) -> list[dict[str, Any]]:
        if self.spec.early_stopping is None:
            value = {"monitor": "val_loss", "patience": PATIENCE}
            return [{"op": "add", "path": "/early_stopping", "value": value}]
        return [{"op": "add", "path": "/regularization", "value": {"l2": 1e-4, "exclude": ["bias"]}}]

    def _without_saturation(self) -> list[dict[str, Any]]:
        layers = self.spec.model.arguments.get("layers") or ()
        kinds = [layer if isinstance(layer, str) else layer["type"] for layer in layers]
        found = [
            {"op": "replace", "path": f"/model/layers/{place}", "value": "ReLU"}
            for place, kind in enumerate(kinds)
            if kind in SATURATING
        ]
        return found or [{"op": "add", "path": "/model/weight_init", "value": "kaiming_normal_"}]

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen and said, for the checkpoint."""
        return {
            "said": list(self.said),
            "losses": [list(one) for one in self.losses],
            "least_norm": self.least_norm,
            "gradients": list(self.gradients),
            "vanished": self.vanished,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.said, self.losses = list(state["said"]), [list(one) for one in state["losses"]]
        self.least_norm, self.gradients = state["least_norm"], list(state["gradients"])
        self.vanished = state["vanished"]
