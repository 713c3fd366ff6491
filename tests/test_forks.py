"""Forks at every stage of a call, and children of every kind."""

import pytest

from tests.test_processes import FORK, forks, python

pytestmark = forks

# `fork(child)` forks at a stage, once or more; `in_child` fails if the child does.
PROGRAM = (
    FORK
    + """
    import threading

    fl.set_num_threads(2, fixed=True)
    parent = os.getpid()
    with fl.num_threads(1):
        expected = results()

    def computes():
        return results() == expected and fl.mse_loss(x[:10], x[:10]) == 0

    def exits():
        os._exit(0)

    def forks_again():
        in_child(computes)
        return results() == expected

    def computes_in_threads():
        found = []
        threads = [threading.Thread(target=lambda: found.append(results())) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found == [expected] * 3

    def executes_another_program():
        os.execv(sys.executable, [sys.executable, "-c", ""])

    def is_killed():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        pid = os.fork()
        if pid == 0:
            while True:
                results()
        os.kill(pid, signal.SIGKILL)
        return os.waitpid(pid, 0)[1] == signal.SIGKILL

    def before_the_first_region(child):
        in_child(child)

    def after_a_region(child):
        results()
        in_child(child)
        results()
        in_child(child)

    def in_a_thread_with_a_team(child):
        results()

        def run():
            results()
            in_child(child)
            assert results() == expected

        for _ in range(3):
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()

    def after_a_thread_with_a_team(child):
        thread = threading.Thread(target=results)
        thread.start()
        thread.join()
        in_child(child)

    def while_others_compute(child):
        done = threading.Event()

        def run():
            while not done.is_set():
                assert results() == expected

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(4):
                in_child(child)
        finally:
            done.set()
            for thread in threads:
                thread.join()

    def while_threads_begin_and_end(child):
        done = threading.Event()

        def run():
            while not done.is_set():
                thread = threading.Thread(target=results)
                thread.start()
                thread.join()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            for _ in range(4):
                in_child(child)
        finally:
            done.set()
            thread.join()

    class Lazy:
        def __init__(self, fork):
            self.fork = fork

        def __array__(self, dtype=None, copy=None):
            self.fork()
            return x

    def fork_and_return(child):
        '''Forks; the child continues as the parent does.'''
        pid = os.fork()
        if pid:
            assert os.waitpid(pid, 0)[1] == 0
        else:
            signal.alarm(60)

    def in_an_argument(child):
        value = fl.mse_loss(Lazy(lambda: fork_and_return(child)), 0.5)
        assert value.hex() == expected[0]
        if os.getpid() != parent:
            os._exit(0 if child() else 2)

    def in_a_signal_handler(child):
        pending = [1]

        def handler(*_):
            if pending:
                pending.pop()
                fork_and_return(child)

        signal.signal(signal.SIGVTALRM, handler)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.01)
        long, size = np.broadcast_to(np.int8(1), (1 << 26,)), 1 << 26
        try:
            while pending:
                value, gradient = fl.mse_loss.value_and_grad(long, 0.5, wrt="target")
                assert value == 0.25 and gradient == -1
            if os.getpid() != parent:
                os._exit(0 if child() else 2)
        except BaseException:
            if os.getpid() != parent:
                os._exit(3)
            raise

    {stage}({child})
    assert results() == expected
    assert fl.get_num_threads() == 2
"""
)
STAGES = [
    "before_the_first_region",
    "after_a_region",
    "in_a_thread_with_a_team",
    "after_a_thread_with_a_team",
    "while_others_compute",
    "while_threads_begin_and_end",
    "in_an_argument",
    "in_a_signal_handler",
]
CHILDREN = [
    "computes",
    "exits",
    "forks_again",
    "computes_in_threads",
    "executes_another_program",
    "is_killed",
]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.rotate("child")
def test_fork(stage, child):
    """Parent and child compute the bits of one thread, and end."""
    call = f"{stage}({child})"
    python(PROGRAM.replace("{stage}({child})", call))
