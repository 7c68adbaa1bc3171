"""The vendors' servers, in one process: `python -I server.py FOLDER CERTIFICATE KEY`, on ports 80 and 443.

FOLDER/HOST/PATH answers for http(s)://HOST/PATH. FOLDER/faults.json holds a list of {match, fault}: what happens to
addresses that the regular expression `match` finds (see FAULTS). It is read anew for every request; every request is
written to FOLDER/requests.log. Standard library only, since it runs with whatever Python starts the tests.
"""

from __future__ import annotations

import json
import re
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

# page: a captive portal's page in place of the file; hash: the last byte is another; truncated: it breaks off half-way;
# slow: a tenth of a second for each KiB; empty: the connection closes without an answer
FAULTS = ("500", "404", "403", "page", "hash", "truncated", "slow", "empty")


class Handler(BaseHTTPRequestHandler):
    top = Path()
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        host = (self.headers.get("Host") or "").partition(":")[0]
        path = unquote(self.path.partition("?")[0])
        fault = self._fault(f"{host}{path}")
        with (self.top / "requests.log").open("a") as log:
            log.write(f"{host}{path} {fault or ''}\n")
        if fault in ("500", "404", "403"):
            return self._answer(int(fault), b"")
        if fault == "empty":
            self.close_connection = True
            return None
        place = self.top / host / path.lstrip("/")
        if fault == "page":
            return self._answer(200, b"<html><title>Sign in</title></html>")
        if ".." in path or not place.is_file():
            return self._answer(404, b"")
        content = place.read_bytes()
        if fault == "hash":
            content = content[:-1] + bytes([content[-1] ^ 1])
        if fault == "truncated":
            self._answer(200, content, len(content) // 2)
            self.close_connection = True
            return None
        return self._answer(200, content, pause=0.1 if fault == "slow" else 0.0)

    def _answer(self, code: int, content: bytes, only: int | None = None, pause: float = 0.0) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not pause:
            self.wfile.write(content[:only])
            return
        for begin in range(0, len(content), 1024):
            self.wfile.write(content[begin : begin + 1024])
            self.wfile.flush()
            time.sleep(pause)

    def _fault(self, address: str) -> str | None:
        try:
            rules = json.loads((self.top / "faults.json").read_text())
        except (OSError, ValueError):
            return None
        return next((rule["fault"] for rule in rules if re.search(rule["match"], address)), None)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing on stderr."""


class Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no news."""


def main(folder: str, certificate: str, key: str) -> None:
    Handler.top = Path(folder)
    plain = Server(("127.0.0.1", 80), Handler)
    secure = Server(("127.0.0.1", 443), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    # the handshake in the request's own thread: a client that dies in it must not hold up the others
    secure.socket = context.wrap_socket(secure.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=secure.serve_forever, daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    plain.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:4])
