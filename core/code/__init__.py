"""A job as one plain PyTorch file: the user's way out of this service, and a check on its trainer. No torch here."""

from core.code.job import CodeRefused, Upload
from core.code.script import script

__all__ = ["CodeRefused", "Upload", "script"]
