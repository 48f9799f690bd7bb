"""What is wrong with a deployment, seen from one of its machines: `epochd doctor` starts `python -m core.doctor`.

    settings    the variables are readable and fit together
    database    answers, has this program's tables, can be written, is whole; its clock
    broker      answers, keeps what it is told
    storage     can be written and read; space and inodes of every folder
    service     workers, queues without one, jobs whose lease is over
    machine     versions, limits of the process, GPUs
    template    a trainer can be forked and can build a model         only when asked for: it takes a while

Every check says ok, warning or error, what was found with numbers, and what to do. Nothing is changed.
"""
