"""http_server.py: an HTTP server on this machine that behaves as a test wants."""

from __future__ import annotations

import http.server
import threading
from contextlib import contextmanager

FILE = bytes(range(256)) * 40


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as ``server.behave(handler)`` does; else by range."""

    def do_GET(self):
        self.server.asked.append(dict(self.headers))
        if self.server.behave is None or not self.server.behave(self):
            self.ranged(FILE)

    def ranged(self, data: bytes):
        first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1]
        place = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        self.say(206, part, {"Content-Range": place})

    def say(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> bool:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        return True

    def log_message(self, *_: object):
        pass


@contextmanager
def serving(behave=None, handler=Handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.behave, server.asked, server.daemon_threads = behave, [], True
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
