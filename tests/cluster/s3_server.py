"""An S3 server that can be slow or busy: `python -m tests.cluster.s3_server HOST PORT MOOD`.

The file MOOD says how it answers: well (empty), `busy` (every tenth request gets a 503) or `slow`
(each takes 200 ms longer).
"""

import itertools
import sys
import time
from pathlib import Path

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

SLOWER_S = 0.2
BUSY_EVERY = 10
SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


def main(host: str, port: str, mood_file: str) -> None:
    """Serve until killed; what is stored is in memory."""
    application = DomainDispatcherApplication(create_backend_app)
    requests = itertools.count(1)

    def moody(environ, start_response):
        mood = Path(mood_file).read_text()
        if mood == "slow":
            time.sleep(SLOWER_S)
        if mood == "busy" and next(requests) % BUSY_EVERY == 0:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [SLOW_DOWN]
        return application(environ, start_response)

    run_simple(host, int(port), moody, threaded=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
