"""A server of HTTP that prints every request as a line of JSON, for trials.

It answers with the given statuses, one after the other, and the last one for ever. With --tls it speaks TLS.
"""

import argparse
import http.server
import json
import ssl
import threading

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"))
parser.add_argument("statuses", type=int, nargs="+")
arguments = parser.parse_args()
printing = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    """Prints, and answers."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = {"path": self.path, "headers": headers, "body": body.decode()}
        with printing:
            statuses = arguments.statuses
            request["status"] = statuses.pop(0) if len(statuses) > 1 else statuses[0]
            print(json.dumps(request), flush=True)
        self.send_response(request["status"])
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Says nothing beside the requests."""


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
if arguments.tls:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*arguments.tls)
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(json.dumps({"port": server.server_address[1]}), flush=True)
server.serve_forever()
