"""Prefect's server for a single run, as Prefect itself starts one.

`python -m sbi_models.pipeline.prefect_server.serve_once --host 127.0.0.1 --port 8123`
"""

import argparse
import sys

from sbi_models.errors import TrackingError
from sbi_models.pipeline.runtime import quick_imports

with quick_imports(freeze=True):
    import uvicorn
    from prefect.server.api.server import create_app

    from sbi_models.pipeline.prefect_server.database import prepare_database

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", required=True, type=int)
    given = parser.parse_args()
    try:
        prepare_database()
    except TrackingError as error:
        sys.exit(str(error))
    uvicorn.run(create_app, factory=True, host=given.host, port=given.port, lifespan="on", log_level="error")
