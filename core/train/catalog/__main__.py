"""`python -m core.train.catalog [--check]`."""

import argparse
import difflib
import sys

from core.spec.catalog import FILE
from core.train.catalog import derive, text


def main() -> int:
    """Write the catalog, or with `--check` compare it and return 1 where it differs."""
    parser = argparse.ArgumentParser(prog="python -m core.train.catalog", description="Derive core/spec/catalog.json.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 with a diff if it does not match")
    arguments = parser.parse_args()
    new = text(derive())
    if not arguments.check:
        FILE.write_text(new, encoding="utf-8")
        return 0
    old = FILE.read_text(encoding="utf-8") if FILE.exists() else ""
    names = f"a/{FILE.name}", f"b/{FILE.name}"
    sys.stdout.writelines(
        difflib.unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), *names, n=0)
    )
    return int(old != new)


if __name__ == "__main__":
    sys.exit(main())
