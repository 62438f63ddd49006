"""The steps of the pipeline: cache key, Prefect task and body of each in one file."""
