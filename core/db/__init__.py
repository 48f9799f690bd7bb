"""The database: engine, tables, and every SQL statement of epochd. One synchronous layer for API and worker."""
