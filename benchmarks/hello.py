"""The least that Falcon and waitress can do: one JSON of the size of a package, made before.

`python -m benchmarks.hello PORT` serves it on loopback until it is terminated; `one` behind the
port keeps its threads on one core, as `packtrail serve` does.
"""

from __future__ import annotations

import logging
import sys

import falcon
import waitress

from adapters.cores import stay_on_one
from entrypoints.wiring import HTTP_THREADS

BODY = b'{"guid": "' + b"0" * 800 + b'"}\n'  # a package that is READY has 814 bytes


class Hello:
    def on_get(self, request: falcon.Request, response: falcon.Response) -> None:
        response.data = BODY


def main(port: int) -> None:
    app = falcon.App[falcon.Request, falcon.Response]()
    app.add_route("/", Hello())
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # as ours: a line costs as much
    waitress.serve(app, host="127.0.0.1", port=port, threads=HTTP_THREADS, _quiet=True)


if __name__ == "__main__":
    if sys.argv[2:] == ["one"]:
        stay_on_one()
    main(int(sys.argv[1]))
