import os
import signal
import threading

from bench.base.signals import listening


def test_signals_are_heard_within_and_as_before_after() -> None:
    heard: list[int] = []
    before = signal.getsignal(signal.SIGUSR1)
    with listening(lambda number, frame: heard.append(number), signal.SIGUSR1):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert heard == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) is before


def test_in_another_thread_nobody_listens_and_nothing_fails() -> None:
    found: list[object] = []

    def work() -> None:
        with listening(lambda number, frame: None, signal.SIGUSR1):
            found.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGUSR1)]
