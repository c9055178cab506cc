"""The line protocol between a client program and the test that drives it; ../README.md describes it."""

import asyncio
import json
import os
import sys
import time

_begun = time.monotonic()
config = json.loads(sys.argv[1])


def say(at, **fields):
    """Tells the driver what happened; safe from any thread, as one line is one write."""
    line = {"at": at, "ms": round((time.monotonic() - _begun) * 1000), **fields}
    os.write(1, (json.dumps(line) + "\n").encode())


def commands():
    """The commands, one by one, until `quit` or the end of the input."""
    for line in sys.stdin:
        command = json.loads(line)
        name = command.pop("do")
        if name == "quit":
            return
        yield name, command


async def obey(**actions):
    """Carries out commands in the order in which they come, beside everything else that the loop does."""
    loop = asyncio.get_running_loop()
    source = commands()
    while (command := await loop.run_in_executor(None, next, source, None)) is not None:
        name, fields = command
        await actions[name](**fields)


def url(path=""):
    """The address of the socket, with the parameters of this run where the library has no place for them."""
    query = "&".join(f"{key}={value}" for key, value in config.get("params", {}).items())
    return f"{config['url']}{path}" + (f"?{query}" if query else "")
