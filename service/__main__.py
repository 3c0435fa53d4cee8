"""python -m service --repository DIR [--listen HOST:PORT] [--metrics-port N]

`--help` lists every option; each can also be given as a `VAE_*` variable.
"""

import os
import sys

import uvloop

from service.check import check
from service.logs import adopt_libraries, make_logger
from service.processes import supervise
from service.repository import RepositoryError
from service.server import serve
from service.session import GraphError, ProviderError
from service.settings import SettingsError, process_environment, read_action, read_settings


def main() -> int:
    """Runs the service; 0 after a drain, 2 when it cannot start as it was asked to.

    With --check 1 when a version that would be served cannot be.
    """
    try:
        settings = read_settings(sys.argv[1:], process_environment())
        action = read_action(sys.argv[1:])
        if action == "print-config":
            print(settings.model_dump_json(indent=2))
            return 0
        if action == "check":
            table, sound = check(settings)
            print(table)
            return 0 if sound else 1
        log = make_logger(settings.log_level)
        adopt_libraries(log)
        if settings.processes > 1:
            return uvloop.run(supervise(settings, sys.argv[1:], log))
        if not uvloop.run(serve(settings, log)):
            sys.stderr.flush()
            os._exit(0)  # now, with a thread that loads; all else has ended
    except (SettingsError, RepositoryError, GraphError, ProviderError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
