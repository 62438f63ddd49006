"""Gives commands of `sbi-models` in the current folder, on one Prefect server: `python small_commands.py
'["list"]'`, each a JSON list.

Prints exit code, standard output and standard error of each as one line of JSON.
"""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout

from sbi_models.cli.main import main
from sbi_models.pipeline.prefect_server.for_one_run import local_prefect
from sbi_models.pipeline.runtime import program_environment


def give(words: list[str]) -> tuple[int, str, str]:
    """One command; exit code, standard output and standard error."""
    output, errors, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["sbi-models", *words]
    with redirect_stdout(output), redirect_stderr(errors):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, output.getvalue(), errors.getvalue()


if __name__ == "__main__":
    with program_environment(), local_prefect():
        for argument in sys.argv[1:]:
            print("RESULT " + json.dumps(give(json.loads(argument))), flush=True)
