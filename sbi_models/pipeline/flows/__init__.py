"""The Prefect flows: the pipeline, its retraining, and the monitoring of its champion."""
