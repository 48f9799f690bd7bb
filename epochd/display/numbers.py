"""Numbers as people read them."""

from epochd.wire import Row


def number(value: float | None) -> str:
    """Return four significant digits, and no more zeros than needed: 0.003, 0.9667, 12.35, 3e-05."""
    return "-" if value is None else f"{value:.4g}"


def scalars(row: Row, split: str) -> dict[str, str]:
    """Return a row's single numbers of `train` or `val`; what is not finite by its name, matrices left out."""
    non_finite = row.get("non_finite") or {}
    values = (row["train"] if split == "train" else row["val"]) or {}
    return {
        name: non_finite.get(f"{split}.{name}", number(value))
        for name, value in values.items()
        if value is None or isinstance(value, int | float)
    }


def seconds_in_words(seconds: float) -> str:
    """Return `8.4 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def bytes_in_words(size: int) -> str:
    """Return `712 B`, `18.6 KiB` and so on up to TiB."""
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"
