"""A port that a test has chosen for a server is the server's."""

import socket

import pytest

from deploy.ports import LOOPBACK, free_port


def test_a_port_that_was_chosen_is_given_to_nobody_else_and_its_server_listens_there() -> None:
    port = free_port()
    with socket.socket() as other, pytest.raises(OSError, match="Address already in use"):
        other.bind((LOOPBACK, port))
    with socket.create_server((LOOPBACK, port)) as server:
        assert server.getsockname() == (LOOPBACK, port)


def test_two_ports_are_never_the_same() -> None:
    ports = [free_port() for _ in range(200)]
    assert len({*ports}) == len(ports)
