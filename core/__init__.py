"""What epochd knows: the job spec, the database, the data, the training loop. Neither HTTP nor Celery."""
