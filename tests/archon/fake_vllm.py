"""A Python that seems to have vLLM: a server of a few lines that starts at once, for tests of processes.

It is told what to do by its environment: FAKE_SAYS (print this and fail), FAKE_SLOW (seconds until it answers),
FAKE_DELAY (seconds per reply), FAKE_DIES (instead of replying). Like vLLM it has a child that survives it, in a
session of its own at that.
"""

from __future__ import annotations

import sys
from pathlib import Path

from archon.backends.vllm.keeper import writers
from archon.backends.vllm.server import place

_SERVER = """
import argparse, json, os, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

parser = argparse.ArgumentParser()
for flag in ("--model", "--host", "--max-model-len"):
    parser.add_argument(flag)
parser.add_argument("--port", type=int)
for flag in ("--enable-prompt-tokens-details", "--disable-uvicorn-access-log", "--enable-chunked-prefill"):
    parser.add_argument(flag, action=argparse.BooleanOptionalAction)
args = parser.parse_args()
print("Starting to load model", flush=True)
if "FAKE_SAYS" in os.environ:
    sys.exit(os.environ["FAKE_SAYS"])
time.sleep(float(os.environ.get("FAKE_SLOW", 0)))
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True)

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.answer({"version": "0.32.0"})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "FAKE_DIES" in os.environ:
            os._exit(7)
        time.sleep(float(os.environ.get("FAKE_DELAY", 0)))
        choice = {"message": {"role": "assistant", "content": str(os.getpid())}, "finish_reason": "stop"}
        n = asked.get("n", 1)
        usage = {"prompt_tokens": 3, "completion_tokens": n, "total_tokens": 3 + n}
        choices = [{"index": i, **choice} for i in range(n)]
        self.answer({"id": "1", "object": "chat.completion", "created": 0, "choices": choices, "usage": usage})

    def log_message(self, *said):
        pass

class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

Server((args.host, args.port), Handler).serve_forever()
"""


def fake_python(folder: Path) -> str:
    """The path of a Python that has the fake."""
    package = folder / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    for part in (package, *package.parents[:2]):
        (part / "__init__.py").touch()
    (package / "api_server.py").write_text(_SERVER)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexport PYTHONPATH={folder}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(python)


def left() -> list[int]:
    """The processes of servers whose keepers have this test's place; the keepers not among them."""
    return [pid for pid in writers(f"{place()}/") if b"keeper.py" not in _command(pid)]


def keepers() -> list[int]:
    """The keepers."""
    return [pid for pid in writers(f"{place()}/") if b"keeper.py" in _command(pid)]


def _command(pid: int) -> bytes:
    """Its command line; a keeper's where there is none any more, as it is the last to go."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() or b"keeper.py"
    except OSError:
        return b"keeper.py"
