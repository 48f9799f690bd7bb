"""Claims jobs, supervises their trainers, keeps the queue alive. Never imports torch."""
