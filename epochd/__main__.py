"""`python -m epochd` is `epochd`."""

from epochd.cli import main

if __name__ == "__main__":
    main()
