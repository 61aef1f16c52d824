"""The meeting place of a trial's workers: its port, its words, and what is behind an error."""

import socket
import threading
import time

import pytest
import torch.distributed as dist

from salt_lab.errors import DataError, TrialFailed
from salt_lab.record.lock import TrialBusy
from salt_lab.train import meeting
from salt_lab.train.lost import PortTaken, Word, WorkerLost
from salt_lab.train.meeting import Meeting, reserve_port, word_of

ECHO = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1234")


@pytest.fixture
def pair():
    """The ends of rank 0 and rank 1."""
    port = reserve_port()
    first = Meeting(0, 2, "127.0.0.1", port)
    return first, Meeting(1, 2, "127.0.0.1", port)


def test_a_reserved_port_is_nobody_elses():
    port = reserve_port()
    with pytest.raises(OSError, match="in use"), socket.socket() as other:
        other.bind(("127.0.0.1", port))
    Meeting(0, 1, "127.0.0.1", port)


def test_a_port_that_another_program_has_is_said_to_be_taken():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(PortTaken, match=r"port \d+ of 127\.0\.0\.1: another program has it; reserve another"):
            Meeting(0, 2, "127.0.0.1", other.getsockname()[1])


def test_a_worker_may_be_there_before_rank_0_is():
    port, late = reserve_port(), []
    waiting = threading.Thread(target=lambda: late.append(Meeting(1, 2, "127.0.0.1", port).wait_for_go()))
    waiting.start()
    time.sleep(0.2)
    first = Meeting(0, 2, "127.0.0.1", port)
    first.go()
    waiting.join(10)
    assert late == [True]


def test_without_anything_to_do_nobody_goes_in(pair):
    pair[0].say(Word("done"))
    assert pair[1].wait_for_go() is False


@pytest.mark.parametrize("error", [TrialBusy("trial x is being run"), DataError("no pictures"), KeyboardInterrupt("SIGTERM")])
def test_what_rank_0_ends_with_is_what_all_end_with(pair, error):
    pair[0].say(word_of(error, ""))
    with pytest.raises(type(error), match=str(error)):
        pair[1].wait_for_go()


def test_rank_0_serves_until_the_others_have_heard_how_it_ended(pair):
    pair[0].say(Word("done"))
    heard = threading.Timer(0.3, lambda: pair[1].end(5))
    heard.start()
    began = time.monotonic()
    pair[0].part(5)
    assert 0.1 < time.monotonic() - began < 4


class TestWhatIsBehindAnError:
    def test_an_error_of_rank_0s_own_is_itself(self, pair):
        error = ValueError("gloomy")
        assert pair[0].why(error, lambda: None) is error

    def test_behind_an_echo_is_the_other_workers_own_error_with_its_traceback(self, pair):
        pair[1].say(word_of(ValueError("no such box\nsecond line"), "Traceback of rank 1"))
        found = pair[0].why(ECHO, lambda: None)
        assert isinstance(found, TrialFailed) and str(found) == "worker 1 of 2: ValueError: no such box"
        assert str(found.__cause__) == "Traceback of rank 1"

    def test_an_error_of_the_labs_own_keeps_its_kind(self, pair):
        pair[1].say(word_of(DataError("no pictures"), ""))
        assert isinstance(pair[0].why(ECHO, lambda: None), DataError)

    def test_a_worker_that_somebody_saw_die_is_told_as_they_saw_it(self, pair):
        found = pair[0].why(ECHO, lambda: "worker 1 of 2 was killed by SIGKILL")
        assert isinstance(found, WorkerLost) and str(found) == "worker 1 of 2 was killed by SIGKILL"

    def test_one_that_died_unseen_is_the_one_without_a_word(self, pair, monkeypatch):
        monkeypatch.setattr(meeting, "WORD_SECONDS", 0.1)
        assert str(pair[0].why(ECHO, lambda: None)).startswith("worker 1 of 2 ended without a word")

    @pytest.mark.parametrize("echo", [ECHO, dist.DistBackendError("NCCL error"), ConnectionResetError("reset")])
    def test_errors_of_the_connection_are_echoes(self, echo):
        assert word_of(echo, "").state == "echo"
