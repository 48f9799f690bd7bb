"""What a worker process loads."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_worker_never_imports_torch() -> None:
    program = (
        "import sys\n"
        "import worker.__main__, worker.app, worker.housekeeping, worker.supervisor\n"
        "print([name for name in ('torch', 'torchvision', 'sklearn') if name in sys.modules])\n"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_trainers_environment_has_no_setting_of_the_operator() -> None:
    program = (
        "import os\n"
        "os.environ['EPOCHD_DATABASE_URL'] = 'postgresql://u:hunter2@h/d'\n"
        "from core.process import Template\n"
        "print(Template([])._environment())\n"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "EPOCHD_" not in found.stdout
