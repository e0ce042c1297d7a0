"""A server process that fails on purpose; started by path with flags, it prints its port first.

It ends when its stdin closes, so that it never outlives a killed test run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NONSENSE = {
    "html": b"<html><body>Welcome to nginx!</body></html>",
    "empty-choices": b'{"choices": []}',
    "missing-text": b'{"choices": [{"index": 0, "finish_reason": "stop"}]}',
    "wrong-type": b'{"choices": "none"}',
    "list": b"[1, 2, 3]",
    "deep": b"[" * 100_000,
    "cut-json": b'{"choices": [{"text": "half an ans',
}


class Counts:
    """What the server saw, for `GET /counts`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked: Counter[str] = Counter()
        self.answered = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.keys: list[str] = []
        self.bodies: list[dict] = []
        self.times: list[float] = []


def answer(prompt: str, repetition: int) -> str:
    """The text given for a prompt: a test can tell which answer belongs to which question."""
    return f"re[{repetition}]: {prompt}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fault", default="none")
    parser.add_argument("--times", type=int, default=-1, help="faulty answers a prompt before good ones; -1: always")
    parser.add_argument("--only", default="", help="only prompts that contain this are faulty")
    parser.add_argument("--retry-after", default="")
    parser.add_argument("--code", default="")
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--die-after", type=int, default=-1, help="the process ends after this many answers")
    parser.add_argument("--no-completions", action="store_true")
    parser.add_argument("--port", type=int, default=0, help="0: a free one; a server that comes back needs its old one")
    parser.add_argument("--answer", help="every good answer, whatever was asked")
    flags = parser.parse_args()
    counts = Counts()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            return None

        def do_GET(self) -> None:
            with counts.lock:
                seen = {k: v for k, v in vars(counts).items() if k != "lock"}
            self._send(200, json.dumps(seen).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            chat = "messages" in body
            prompt = body["messages"][-1]["content"] if chat else body.get("prompt", "")
            with counts.lock:
                counts.keys.append(self.headers.get("Authorization", ""))
                counts.bodies.append(body)
                counts.times.append(time.monotonic())
                if flags.no_completions and not chat:
                    self._send(404, b'{"error": {"message": "not a text model"}}')
                    return
                repetition = counts.asked[prompt]
                counts.asked[prompt] += 1
                counts.in_flight += 1
                counts.most_in_flight = max(counts.most_in_flight, counts.in_flight)
            time.sleep(flags.delay)
            faulty = flags.only in prompt and (flags.times < 0 or repetition < flags.times)
            text = answer(prompt, repetition) if flags.answer is None else flags.answer
            choice = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            good = {"choices": [{"index": 0, "finish_reason": "stop", **choice}], "usage": {"completion_tokens": 3}}
            with counts.lock:
                counts.in_flight -= 1
            if faulty and flags.fault != "none":
                self._fail(prompt)
            else:
                self._send(200, json.dumps(good).encode())
                with counts.lock:
                    counts.answered += 1
                    dead = counts.answered == flags.die_after
                if dead:
                    os._exit(1)

        def _fail(self, prompt: str) -> None:
            if flags.fault.isdigit():
                # Like real servers, the reply repeats what was sent.
                error = {"message": f"cannot take {prompt!r}", "code": flags.code or None}
                headers = {"Retry-After": flags.retry_after} if flags.retry_after else {}
                if flags.fault.startswith("3"):
                    headers["Location"] = "/elsewhere"
                self._send(int(flags.fault), json.dumps({"error": error}).encode(), headers)
            elif flags.fault == "slow":
                time.sleep(30)
            elif flags.fault == "half":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b'{"choices": [{"te')
                self.wfile.flush()
                self.close_connection = True
            else:
                self._send(200, NONSENSE[flags.fault])

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        # With the default of 5, a burst of connections would wait a second for its second try.
        request_queue_size = 128

    server = Server(("127.0.0.1", flags.port), Handler)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
