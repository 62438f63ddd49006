"""The steps of the pipeline: cache key, Prefect task and body of each in one file."""

from sbi_models.pipeline.runtime import make_folders

make_folders()  # Prefect, which the modules of this package import, looks for them when it is imported
