"""Threads that decode between forward passes: nobody goes on where one has failed."""

import threading
import time

import pytest

from beam_zoo.errors import UserError
from beam_zoo.images import decoders
from beam_zoo.images.decoders import Decoding, Threads, Wanted
from beam_zoo.images.failure import Failure


@pytest.fixture
def threads():
    found = Threads(Decoding([], late=False, least_side=None), 2, "cpu")
    yield found
    found.close()


def test_in_order_of_the_images(threads, monkeypatch):
    monkeypatch.setattr(decoders, "decode", lambda wanted, *_: Failure(wanted.offset, "image", "", False))
    decoded = threads.start([lambda n=n: Wanted(n, None, []) for n in range(500)])()
    assert [left.offset for left in decoded.left] == list(range(500))


@pytest.mark.parametrize("at", [0, 1, 30])
def test_one_fails(threads, monkeypatch, at):
    done, lock = [], threading.Lock()

    def decode(wanted, *_):
        time.sleep(0.01)
        with lock:
            done.append(wanted.offset)
        return []

    def wanted(number: int) -> Wanted:
        if number == at:
            raise UserError("no credentials")
        return Wanted(number, None, [])

    monkeypatch.setattr(decoders, "decode", decode)
    with pytest.raises(UserError, match="no credentials"):
        threads.start([lambda n=n: wanted(n) for n in range(200)])()
    threads.close()
    assert len(done) < at + 10
