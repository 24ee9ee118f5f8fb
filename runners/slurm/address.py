"""The IP address of this host."""

import os
import socket

from beam_zoo.errors import UserError

PORT = 9  # any number: nothing is sent


def address_towards(host: str) -> str:
    """The source address of connections from this host to another.

    Raises:
        UserError: the other host cannot be resolved or reached.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, PORT))  # sends nothing
            return probe.getsockname()[0]
    except OSError as error:
        raise UserError(f"{os.uname().nodename} cannot reach {host}: {error.strerror or error}") from None
