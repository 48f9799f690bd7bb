"""`core.spec` is used by the API, the worker and the command line: it brings no heavy library with it."""

import subprocess
import sys


def test_parsing_a_spec_imports_neither_torch_nor_numpy() -> None:
    program = (
        "import sys, core.spec\n"
        "assert 'core.spec.catalog' in sys.modules\n"
        "from core.spec import catalog\n"
        "assert catalog._tables.cache_info().currsize == 0, 'the catalog is read at the first question'\n"
        "try:\n"
        '    core.spec.parse(\'{"model": {"type": "Sequential", "layers": ["relu"]}}\')\n'
        "except Exception as error:\n"
        "    assert any('ReLU' in (issue.hint or '') for issue in error.issues)\n"
        "heavy = {'torch', 'torchvision', 'numpy', 'sklearn', 'scipy', 'sqlalchemy', 'celery', 'fastapi'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
