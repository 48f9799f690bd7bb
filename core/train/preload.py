"""What the template process imports before it forks: everything a training imports, and nothing of torch that it runs.

No operator, no tensor, no thread: an OpenMP pool does not survive a fork. Not in the list is what reads uploaded tables
(`core.datasets.uploaded`): pyarrow's allocator starts a thread when it is imported.
"""

import importlib

from core.spec import catalog
from core.versions import installed

MODULES = (
    "torch",
    "torch._dynamo",  # the first optimizer imports it, for seconds
    "torch._meta_registrations",
    "torch.optim.lr_scheduler",
    "torch.utils.flop_counter",
    "torchvision.models",
    "torchvision.transforms.v2",
    "sklearn.datasets",
    "sklearn.impute",
    "sklearn.preprocessing",
    "safetensors.torch",
    "core.datasets.bundled",
    "core.datasets.folder",
    "core.datasets.loading",
    "core.datasets.preprocess",
    "core.datasets.splitting",
    "core.datasets.synthetic",
    "core.train.preflight",
    "core.train.preflight.warming",
    "core.train.run",
)

for module in MODULES:
    importlib.import_module(module)
catalog.kinds()  # read once here, not in every child
for name in ("scikit-learn", "torchvision"):
    installed(name)
# scikit-learn asks every installed package what data frames it knows, once in a process: 8 ms that no child need spend.
importlib.import_module("sklearn.preprocessing").StandardScaler().fit([[0.0]])
