"""A service as in scripts: threads and random generators, created at the top."""

import logging
import os
import random
import threading
import time

from flask import Flask

app = Flask(__name__)
handler = logging.StreamHandler()
logging.basicConfig(handlers=[handler])
generator = random.Random()  # noqa: S311
ticks = 0


def tick():
    global ticks
    while True:
        ticks += 1
        time.sleep(0.01)


writes = threading.Event()


def write():
    with handler.lock:
        writes.set()
        threading.Event().wait()


threading.Thread(target=tick, daemon=True).start()
threading.Thread(target=write, daemon=True).start()
writes.wait()


@app.get("/livez")
def livez():
    return "alive"


@app.get("/ticks")
def count():
    return str(ticks)


@app.get("/log")
def log():
    app.logger.warning("a line")
    return "written"


numbers = {}


@app.get("/number")
def number():
    numbers.setdefault(os.getpid(), generator.random())
    return numbers
