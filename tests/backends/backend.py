"""A backend that answers for Rejoin, with nothing but Python: a start for your own.

    SECRET=… PORT=9000 python3 backend.py

It proves who asks, streams JSON lines, and stops its work at once when nobody wants the answer any more.
"""

import datetime
import hashlib
import hmac
import json
import os
import re
import select
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = os.environ["SECRET"].encode()
MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_AGE = datetime.timedelta(minutes=5)

# The turns of the last minutes. Each is asked once: who asks again has only recorded the request.
asked = {}
asked_lock = threading.Lock()


def is_signed(signature, body):
    """Whether the server with our secret sent this. The comparison takes as long whatever is wrong."""
    expected = hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), (signature or "").encode())


def is_fresh(question):
    """Whether a request, whose signature is right, is asked for the first time and just now."""
    now = datetime.datetime.now(datetime.timezone.utc)
    sent_at = datetime.datetime.fromisoformat(question["sent_at"].replace("Z", "+00:00"))
    with asked_lock:
        for turn in [turn for turn, at in asked.items() if now - at > 2 * MAX_AGE]:
            del asked[turn]
        if abs(now - sent_at) > MAX_AGE or question["turn"]["id"] in asked:
            return False
        asked[question["turn"]["id"]] = now
        return True


def answer(question):
    """The lines of an answer, made as they are asked for."""
    session, turn, messages = question["session"], question["turn"], question["messages"]
    prompt = "".join(part["text"] for part in messages[-1]["parts"] if part["kind"] == "text")
    yield {"kind": "reasoning", "text": f"{turn['by']['name']} asks in {session['title'] or session['id']}."}
    count = re.fullmatch(r"count to (\d+)", prompt)
    words = [f"{n + 1} " for n in range(int(count[1]))] if count else re.findall(r"\S+\s*", f"You said: {prompt}")
    for word in words:
        time.sleep(0.02)
        yield {"kind": "text", "text": word}
    yield {"kind": "done", "usage": {"words": len(words), "messages": len(messages)}}


class Backend(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if length > MAX_BODY_BYTES:
            return self.refuse(413, "the request is too large")
        body = self.rfile.read(length)
        if not is_signed(self.headers.get("X-Rejoin-Signature"), body):
            return self.refuse(401, "the signature is wrong")
        question = json.loads(body)
        if not is_fresh(question):
            return self.refuse(403, "the request is too old, or was answered before")
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        print("asked", question["turn"]["id"], flush=True)
        try:
            for line in answer(question):
                if self.is_left():
                    raise ConnectionError
                self.say(line)
            print("answered", question["turn"]["id"], flush=True)
        except ConnectionError:
            print("left", question["turn"]["id"], flush=True)
        except Exception:
            self.say({"kind": "error", "code": "backend_error", "message": "The backend failed."})
            raise

    def say(self, line):
        self.wfile.write(json.dumps(line).encode() + b"\n")

    def is_left(self):
        """Whether the server has closed the connection: it sends nothing more, so only the end can be read."""
        return bool(select.select([self.connection], [], [], 0)[0])

    def refuse(self, status, message):
        body = json.dumps({"error": {"message": message}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Says nothing of each request."""


server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", 9000))), Backend)
server.daemon_threads = True
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
