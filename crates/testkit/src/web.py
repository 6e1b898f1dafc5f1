"""A web server that misbehaves as its paths say, made of Python's http.server.

Arguments: folder to log into [certificate key]. The first line of output is the port.
Every request is one line of the file `requests` in that folder.
"""
import http.server
import os
import select
import socket
import ssl
import sys
import threading
import time
import urllib.parse

FOLDER = sys.argv[1]
COUNTS = {}
LOCK = threading.Lock()
BODY = b"the content\n"
CREDENTIALS = """{
  "Code": "Success", "Type": "AWS-HMAC", "Expiration": "2099-01-01T00:00:00Z",
  "AccessKeyId": "OF_SERVICE", "SecretAccessKey": "secret", "Token": "token"
}"""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def log(self, text):
        with LOCK, open(os.path.join(FOLDER, "requests"), "a") as log:
            log.write(text + "\n")

    def answer(self, body, status=200, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name == "Content-Length" for name, _ in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        # An address with a host is a request to a proxy; every host is this one.
        proxied = self.path.startswith("http://")
        user = self.headers.get("Authorization", "-")
        if proxied:
            user = "proxy:" + self.headers.get("Proxy-Authorization", "-")
        self.log(f"GET {self.path} {user}")
        url = urllib.parse.urlsplit(self.path)
        what, _, rest = url.path.lstrip("/").partition("/")
        act = getattr(self, "on_" + what, None)
        if act is None:
            return self.answer(b"", 404)
        act(rest, url.query)
        if proxied:
            self.close_connection = True

    def on_file(self, rest, query):
        self.answer(BODY)

    def on_status(self, rest, query):
        self.answer(b"<h1>no</h1>", int(rest.split("/")[0]))

    def on_flaky(self, rest, query):
        """<status>/<times>/…: so many times that status, then well."""
        status, times = map(int, rest.split("/")[:2])
        with LOCK:
            COUNTS[self.path] = COUNTS.get(self.path, 0) + 1
            bad = COUNTS[self.path] <= times
        if not bad:
            return self.answer(BODY)
        if status == 0:
            # Half of what is promised.
            self.answer(BODY[:4], headers=[("Content-Length", str(len(BODY)))])
            self.close_connection = True
            return
        self.answer(b"no", status, [("Retry-After", "0")])

    def on_redirect(self, rest, query):
        left = int(rest)
        to = f"{left - 1}" if left > 1 else "../file/x"
        self.answer(b"moved", 302, [("Location", to)])

    def on_loop(self, rest, query):
        self.answer(b"", 301, [("Location", self.path)])

    def on_to(self, rest, query):
        self.answer(b"", 307, [("Location", urllib.parse.unquote(query))])

    def on_nowhere(self, rest, query):
        self.answer(b"", 302)

    def on_short(self, rest, query):
        self.answer(BODY[:4], headers=[("Content-Length", "1000")])
        self.close_connection = True

    def on_long(self, rest, query):
        self.answer(BODY, headers=[("Content-Length", "4")])
        self.close_connection = True

    def on_huge(self, rest, query):
        self.answer(BODY, headers=[("Content-Length", str(1 << 62))])
        self.close_connection = True

    def on_chunked(self, rest, query):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in (BODY[:5], BODY[5:]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def on_endless(self, rest, query):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        part = b"x" * 65536
        try:
            while True:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        except OSError:
            self.close_connection = True

    def on_drip(self, rest, query):
        """A byte now and then, for ever."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"1\r\nx\r\n")
                time.sleep(0.05)
        except OSError:
            self.close_connection = True

    def on_stall(self, rest, query):
        """Some bytes, then silence."""
        self.answer(BODY[:4], headers=[("Content-Length", "1000")])
        select.select([self.connection], [], [])
        self.close_connection = True

    def on_zipped(self, rest, query):
        import gzip

        body = gzip.compress(b"0" * (1 << 20))
        self.answer(body, headers=[("Content-Encoding", "gzip")])

    def on_head(self, rest, query):
        """A head without end."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        try:
            while True:
                self.wfile.write(b"X-Bomb: " + b"y" * 1000 + b"\r\n")
        except OSError:
            self.close_connection = True

    def on_many(self, rest, query):
        """Many small headers."""
        self.answer(BODY, headers=[(f"X-{n}", "y") for n in range(1000)])

    def on_garbage(self, rest, query):
        self.wfile.write(b"\x00\x01garbage\r\n\r\n")
        self.close_connection = True

    def on_echo(self, rest, query):
        self.answer(str(self.headers).encode())

    # As S3, where the bucket is the first part of the path.

    def error(self, status, code, message="", headers=()):
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        self.answer(body.encode(), status, headers)

    def on_moved(self, rest, query):
        """A bucket of another region."""
        if "/eu-west-3/s3/" in self.headers.get("Authorization", ""):
            return self.answer(BODY)
        headers = [("x-amz-bucket-region", "eu-west-3")]
        self.error(301, "PermanentRedirect", "The bucket is elsewhere", headers)

    def on_lost(self, rest, query):
        """A bucket that always is in another region."""
        region = f"r{time.time_ns()}"
        self.error(301, "PermanentRedirect", "", [("x-amz-bucket-region", region)])

    def on_mirror(self, rest, query):
        """An error that shows what it got."""
        got = " ".join(v for _, v in self.headers.items()).replace("<", "")
        self.error(403, "AccessDenied", got)

    def on_bomb(self, rest, query):
        entities = "".join(
            f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(20)
        )
        xml = f'<!DOCTYPE x [<!ENTITY e0 "x">{entities}]><x>&e20;</x>'
        self.answer(xml.encode())

    def on_deep(self, rest, query):
        self.answer(b"<a>" * 1_000_000)

    def on_keys(self, rest, query):
        """A listing with keys that lead elsewhere."""
        keys = ["pre/good", "pre/../../../../../../tmp/evil"]
        found = "".join(f"<Contents><Key>{key}</Key></Contents>" for key in keys)
        if "list-type" in query:
            return self.answer(f"<ListBucketResult>{found}</ListBucketResult>".encode())
        self.answer(BODY)

    def on_pages(self, rest, query):
        """A listing without end and without keys."""
        self.answer(
            b"<ListBucketResult><IsTruncated>true</IsTruncated>"
            b"<NextContinuationToken>t</NextContinuationToken></ListBucketResult>"
        )

    # As the services that give credentials.

    def on_latest(self, rest, query):
        """The metadata of an instance, version 2."""
        if self.headers.get("X-aws-ec2-metadata-token") != "t0ken":
            return self.answer(b"", 401)
        found = {
            "meta-data/iam/security-credentials/": "the-role",
            "meta-data/iam/security-credentials/the-role": CREDENTIALS,
        }.get(rest)
        self.answer((found or "").encode(), 200 if found else 404)

    def on_container(self, rest, query):
        good = self.headers.get("Authorization", "-") == "container-token"
        self.answer(CREDENTIALS.encode() if good else b"", 200 if good else 403)

    def do_PUT(self):
        if self.path == "/latest/api/token":
            good = "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            return self.answer(b"t0ken" if good else b"", 200 if good else 400)
        self.log(f"PUT {self.path} {self.headers.get('Authorization', '-')}")
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.error(503, "SlowDown", "Please reduce your request rate")

    def do_CONNECT(self):
        self.log(f"CONNECT {self.path} {self.headers.get('Proxy-Authorization', '-')}")
        port = int(self.path.rsplit(":", 1)[1])
        far = socket.create_connection(("127.0.0.1", port))
        self.send_response(200)
        self.end_headers()
        near = self.connection
        while True:
            ready, _, _ = select.select([near, far], [], [])
            for one in ready:
                data = one.recv(65536)
                if not data:
                    far.close()
                    self.close_connection = True
                    return
                (far if one is near else near).sendall(data)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        # A client that goes away in the middle, or does not trust us, is its own business.
        pass


server = Server(("127.0.0.1", 0), Handler)
if len(sys.argv) > 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_address[1], flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
server.serve_forever()
