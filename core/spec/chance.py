"""Which transforms draw random numbers, and in what way: what training, preflight and exported code agree on."""

from core.spec.canonical import component as component_of
from core.spec.job import Component

NOTHING_TO_DO = ("ToImage", "ToPureTensor", "Identity")
"""Samples are tensors already; a tensor that calls itself an image would only slow the model down."""
FIXED = frozenset({
    *NOTHING_TO_DO, "ToDtype", "ToTensor", "ConvertImageDtype", "RGB", "Normalize", "Resize", "CenterCrop", "Grayscale",
    "Pad", "UniformTemporalSubsample",
})  # fmt: skip
"""Draw nothing: the whole batch at once."""
BY_ELEMENT = frozenset({"GaussianNoise"})
"""Random in every element, so a batch at once is already random for each sample."""
BY_CHANCE = frozenset({
    "RandomHorizontalFlip", "RandomVerticalFlip", "RandomGrayscale", "RandomInvert", "RandomEqualize",
    "RandomAutocontrast", "RandomPosterize", "RandomSolarize", "RandomAdjustSharpness",
})  # fmt: skip
"""Do always the same or nothing, with probability p: done to the batch, kept for the samples that chance takes."""
NESTING = ("Compose", "RandomApply", "RandomChoice", "RandomOrder")


def is_random(transform: Component) -> bool:
    """Return whether the transform draws random numbers."""
    if transform.type == "Compose":
        return any(is_random(component_of(item)) for item in transform.arguments["transforms"])
    if transform.type in ("GaussianBlur", "JPEG"):
        name, default = {"GaussianBlur": ("sigma", (0.1, 2.0)), "JPEG": ("quality", 0)}[transform.type]
        value = transform.arguments.get(name, default)
        return isinstance(value, (list, tuple)) and len(set(value)) > 1
    return transform.type not in FIXED
