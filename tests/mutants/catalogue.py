"""The list: every defect that the tests have to see."""

from tests.mutants import carrying, ownership, resuming

MUTANTS = (*ownership.MUTANTS, *carrying.MUTANTS, *resuming.MUTANTS)
