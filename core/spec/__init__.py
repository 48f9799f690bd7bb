"""The job spec that users write. No torch here."""
