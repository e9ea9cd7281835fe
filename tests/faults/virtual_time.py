"""A clock whose time passes only when all of its threads wait: hours of faults in seconds.

The threads are real ones, but one runs at a time, and only waiting hands over to another: to the
one that was notified first, else to the one whose time comes first. So every run is the same.
"""

import heapq
import itertools
import threading
from collections import deque


class Deadlock(AssertionError):
    """All threads wait, and nothing will ever wake one."""


class _Gone(BaseException):
    """Ends a thread that would wait for ever, when the test is over."""


class _Task:
    def __init__(self, name):
        self.name = name
        self.go = threading.Lock()  # free: it may run; a semaphore would be many times slower
        self.go.acquire()
        self.is_done = False
        self.token = 0  # of its present wait: what was to wake an earlier one is stale
        self.was_woken = False
        self.failure = None


class VirtualClock:
    """See `edgekit.runtime.clock.Clock`; `sleep` is for what the test itself stages."""

    def __init__(self):
        self._now_ns = 10**15
        self._main = self._current = _Task("main")
        self._tasks = [self._main]
        self._ready = deque()
        self._timers = []
        self._order = itertools.count()
        self._is_over = False

    def now_ns(self):
        return self._now_ns

    def sleep(self, seconds):
        self._block(seconds)

    def hang(self):
        """Wait for ever, as a read in a driver does."""
        self._block(None)

    def condition(self):
        return _Condition(self)

    def start(self, work, name):
        task = _Task(name)

        def body():
            task.go.acquire()
            try:
                if not self._is_over:
                    work()
            except _Gone:
                pass
            task.is_done = True
            if not self._is_over:
                self._hand_over()

        thread = threading.Thread(target=body, name=f"virtual-{name}", daemon=True)
        thread.start()
        task.thread = thread
        self._tasks.append(task)
        self._ready.append((task, task.token))
        return _Thread(self, task)

    def alive(self):
        """Return the names of the threads that have not ended."""
        return [task.name for task in self._tasks if task is not self._main and not task.is_done]

    def end(self):
        """End all threads, wherever they wait."""
        self._is_over = True
        for task in self._tasks:
            if task is not self._main and not task.is_done:
                task.go.release()
                task.thread.join(10)
                assert not task.thread.is_alive(), task.name

    def wake(self, task, token):
        self._ready.append((task, token))

    def block(self, seconds):
        return self._block(seconds)

    def _block(self, seconds):
        """Wait to be woken; False: the time came first."""
        if self._is_over:
            raise _Gone
        me = self._current
        me.token += 1
        if seconds is not None:
            until_ns = self._now_ns + max(0, round(1e9 * seconds))
            heapq.heappush(self._timers, (until_ns, next(self._order), me, me.token))
        self._hand_over()
        me.go.acquire()
        if me.failure is not None:
            raise me.failure
        if self._is_over:
            raise _Gone
        return me.was_woken

    def _hand_over(self):
        """Let the next thread run; it may be this one."""
        while self._ready:
            task, token = self._ready.popleft()
            if token == task.token and not task.is_done:
                self._run(task, was_woken=True)
                return
        while self._timers:
            until_ns, _, task, token = heapq.heappop(self._timers)
            if token == task.token and not task.is_done:
                self._now_ns = max(self._now_ns, until_ns)
                self._run(task, was_woken=False)
                return
        self._main.failure = Deadlock(f"all wait: {self.alive()}")
        self._run(self._main, was_woken=False)

    def _run(self, task, *, was_woken):
        self._current = task
        task.was_woken = was_woken
        task.token += 1
        task.go.release()

    @property
    def current(self):
        return self._current


class _Condition:
    def __init__(self, clock):
        self._clock = clock
        self._owner, self._depth = None, 0
        self._waiting = []
        self._queue = []

    def __enter__(self):
        me = self._clock.current
        while self._owner not in (None, me):
            self._queue.append((me, me.token + 1))
            self._clock.block(None)
        self._owner = me
        self._depth += 1
        return True

    def __exit__(self, *_):
        self._depth -= 1
        if not self._depth:
            self._owner = None
            if self._queue:
                self._clock.wake(*self._queue.pop(0))

    def wait(self, timeout=None):
        me, depth = self._clock.current, self._depth
        assert self._owner is me, "waiting without the lock"
        self._depth = 1
        place = (me, me.token + 1)
        self._waiting.append(place)
        self.__exit__()
        try:
            woken = self._clock.block(timeout)
        finally:
            if place in self._waiting:
                self._waiting.remove(place)
        self.__enter__()
        self._depth = depth
        return woken

    def notify_all(self):
        waiting, self._waiting = self._waiting, []
        for task, token in waiting:
            self._clock.wake(task, token)


class _Thread:
    def __init__(self, clock, task):
        self._clock, self._task = clock, task

    def is_alive(self):
        return not self._task.is_done

    def join(self, timeout=None):
        until_ns = None if timeout is None else self._clock.now_ns() + round(1e9 * timeout)
        while not self._task.is_done and (until_ns is None or self._clock.now_ns() < until_ns):
            self._clock.sleep(0.01)
