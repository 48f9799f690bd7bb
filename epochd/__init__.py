"""What people hold: a typed client, and a command line over it.

from epochd import Client

with Client() as client:
    job = client.submit({"model": ..., "loss": ..., "optimizer": ..., "epochs": 10, "batch_size": 64, "data": ...})
    for row in client.follow(job["id"]):
        print(row["epoch"], row["train"], row["val"])
"""

from epochd.client import Client
from epochd.errors import ClientError, RequestRefused, ServiceAway
from epochd.wire import Job, Row

__all__ = ["Client", "ClientError", "Job", "RequestRefused", "Row", "ServiceAway"]
