"""The steps of the pipeline: cache key, Prefect task and body of a step in one file."""
