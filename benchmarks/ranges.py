"""ranges.py: byte ranges per second from a server some milliseconds away, connections kept and not.

    python benchmarks/ranges.py [--latency-ms 20] [--num-ranges 100] [--kilobytes 256] [--rounds 3]

The server is on loopback and waits one latency before each answer, and one more on a new connection (what
the handshake of TCP costs; that of TLS costs another, which plain http does not show). For `a connection
each` it closes after each, which is what every range paid before connections were kept. Contenders take
turns; medians with their range.
"""

from __future__ import annotations

import argparse
import http.server
import platform
import re
import statistics
import threading
import time

from viper_e2e.shards import RemoteFile


class FarHandler(http.server.BaseHTTPRequestHandler):
    """Answers ranges of a file that is nowhere, after the latency."""

    protocol_version = "HTTP/1.1"
    latency_seconds = 0.02
    new_connections = 0

    def setup(self):
        super().setup()
        FarHandler.new_connections += 1
        time.sleep(self.latency_seconds)

    def do_GET(self):
        time.sleep(self.latency_seconds)
        first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"]).groups())
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{10**12}")
        self.send_header("Content-Length", str(last - first + 1))
        if "each" in self.path:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(bytes(last - first + 1))

    def log_message(self, *_):
        pass


def rate(source: RemoteFile, num_ranges: int, size: int) -> float:
    """Ranges per second."""
    since = time.perf_counter()
    for i in range(num_ranges):
        source.read(i * size, size)
    return num_ranges / (time.perf_counter() - since)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument("--num-ranges", type=int, default=100)
    parser.add_argument("--kilobytes", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    FarHandler.latency_seconds = args.latency_ms / 1000
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), FarHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        contenders = {"a connection each": "each", "connections kept": "kept"}
        results: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(args.rounds):
            for name, values in results.items():
                source = RemoteFile(f"http://127.0.0.1:{server.server_port}/{contenders[name]}.tar")
                values.append(rate(source, args.num_ranges, args.kilobytes * 1024))
        server.shutdown()
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, Python {platform.python_version()}; "
        f"{args.latency_ms:g} ms, {args.num_ranges} ranges of {args.kilobytes} kB, {args.rounds} rounds"
    )
    for name, values in results.items():
        print(f"{name:<20}{statistics.median(values):6.1f} ranges/s ({min(values):.1f}–{max(values):.1f})")
    print(f"new connections: {FarHandler.new_connections}")


if __name__ == "__main__":
    main()
