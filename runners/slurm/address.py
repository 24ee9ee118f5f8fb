"""How this host is reached from another."""

import os
import socket

from beam_zoo.errors import UserError

PORT = 9  # of no service that matters: it only says which way a packet would go


def address_towards(host: str) -> str:
    """IP address of this host that a connection to another would come from.

    Raises:
        UserError: the host's name is unknown here.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, PORT))  # sends nothing
            return probe.getsockname()[0]
    except OSError as error:
        raise UserError(f"{os.uname().nodename} cannot reach {host}: {error.strerror or error}") from None
