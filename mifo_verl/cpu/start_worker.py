"""Run by Ray in place of its ``setup_worker.py``, see ``forkserver.py``; imports nothing that takes time."""

import json
import os
import socket
import sys

if __name__ == "__main__":
    request = {"arguments": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
            server.connect(f"\0{os.environ['MIFO_FORK_SERVER']}")
            socket.send_fds(server, [json.dumps(request).encode()], [1, 2])
            forked = bool(server.recv(16))
    except (KeyError, OSError):
        forked = False
    if not forked:
        worker = next(argument for argument in sys.argv if argument.endswith("default_worker.py"))
        own = os.path.join(os.path.dirname(worker), "setup_worker.py")
        os.execv(sys.executable, [sys.executable, own, *sys.argv[1:]])
