"""The key of a job, against real TLS on loopback; Flink itself reads it in tests/cluster."""

import socket
import ssl
import stat
import threading

import pytest
from cryptography.hazmat.primitives.serialization import pkcs12

from runners.flink.keys import Key


@pytest.fixture
def keys(tmp_path) -> list[Key]:
    """Two jobs' keys."""
    folders = [tmp_path / name for name in ("mine", "theirs")]
    for folder in folders:
        folder.mkdir(mode=0o700)
    return [Key.make(folder) for folder in folders]


def talk(server: Key, client: ssl.SSLContext) -> bytes:
    """What a server that wants the key answers to a client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.pem)
    context.load_verify_locations(server.pem)
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        raw, _ = listener.accept()
        try:
            with context.wrap_socket(raw, server_side=True) as secure:
                secure.sendall(b"welcome")
        except OSError:
            raw.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with socket.create_connection(listener.getsockname(), 5) as raw, client.wrap_socket(raw) as secure:
            return secure.recv(100)
    finally:
        thread.join()
        listener.close()


def test_who_gets_in(keys):
    """The job's own key on both sides; neither another job's, nor none."""
    mine, theirs = keys
    assert talk(mine, mine.context()) == b"welcome"
    with pytest.raises(OSError):
        talk(mine, theirs.context())
    with pytest.raises(OSError):
        talk(theirs, mine.context())
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(OSError):
        talk(mine, stranger)


def test_files(keys):
    """Their owner's alone; the PKCS12 file holds the same key, and opens with the password only."""
    key = keys[0]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (key.store, key.pem)} == {0o600}
    private, certificate, _ = pkcs12.load_key_and_certificates(key.store.read_bytes(), key.password.encode())
    assert private is not None and certificate is not None
    assert ssl.PEM_cert_to_DER_cert(
        key.pem.read_text().partition("-----BEGIN CERT")[1]
        + key.pem.read_text().partition("-----BEGIN CERT")[2]
    )
    with pytest.raises(ValueError):
        pkcs12.load_key_and_certificates(key.store.read_bytes(), b"another")
    assert keys[0].password != keys[1].password and len(key.password) == 64


def test_settings(keys):
    """Both sides of Flink's connections, and its REST interface, want a key."""
    settings = keys[0].settings()
    for side in ("internal", "rest"):
        assert settings[f"security.ssl.{side}.enabled"] is True
        assert settings[f"security.ssl.{side}.truststore"] == settings[f"security.ssl.{side}.keystore"]
    assert settings["security.ssl.rest.authentication-enabled"] is True
