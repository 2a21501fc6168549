"""Ports for servers of labs and tests that are told where to listen before they are started."""

import socket

LOOPBACK = "127.0.0.1"


def free_port(address: str = LOOPBACK) -> int:
    """Return a port of TCP that nobody has at this address, and that nobody else is given for a minute.

    One that is only found free can be gone before the server has it: others ask for any free port, too. This
    one has just ended a connection. While the kernel remembers that (TIME-WAIT, RFC 9293, 3.3.2), it gives
    the port to nobody who asks for any; a server may listen there that reuses addresses, as servers do.
    """
    with socket.create_server((address, 0)) as server, socket.create_connection(server.getsockname()) as peer:
        answering, _ = server.accept()
        answering.close()  # first: whoever ends a connection first is the one who remembers it
        peer.recv(1)
        port: int = server.getsockname()[1]
        return port
