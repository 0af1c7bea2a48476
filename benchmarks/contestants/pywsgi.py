"""A contestant on gevent's own server: `pywsgi.py MODULE PORT`."""

# Before every other import: psycopg chooses how it waits when it is imported.
from gevent import monkey

monkey.patch_all()

import importlib  # noqa: E402
import sys  # noqa: E402

from gevent.pywsgi import WSGIServer  # noqa: E402

if __name__ == "__main__":
    served = importlib.import_module(sys.argv[1]).app
    WSGIServer(("127.0.0.1", int(sys.argv[2])), served, log=None).serve_forever()
