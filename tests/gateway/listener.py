"""A port of 127.0.0.1 on which a test says itself what comes back: for servers that simulated workers are too well-behaved for."""

import socket
import threading
import time


class Listener:
    """Accepts until close(); each connection goes to serve(socket) in a thread of its own."""

    def __init__(self):
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.guarded, args=(s,), daemon=True).start()

    def guarded(self, s):
        try:
            self.serve(s)
        except OSError:  # the gateway has left
            pass

    def serve(self, s):
        raise NotImplementedError

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Answers(Listener):
    """Answers each request that ends with a brace with the bytes given, `after` seconds later, and keeps the connection."""

    def __init__(self, answer, after=0):
        super().__init__()
        self.answer, self.after = answer, after

    def serve(self, s):
        with s:
            received = b""
            while piece := s.recv(65536):
                received += piece
                if b"\r\n\r\n" in received and received.rstrip().endswith(b"}"):
                    time.sleep(self.after)
                    s.sendall(self.answer)
                    received = b""


def read_head(s):
    """What came up to the end of a head, and behind it; less if the connection ended."""
    got = b""
    while b"\r\n\r\n" not in got and (piece := s.recv(65536)):
        got += piece
    return got
