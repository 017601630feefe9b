"""A process that is frozen is ended; one that runs, however busy, is not."""

import os
import signal
import subprocess
import sys
import time

import pytest

from testing.ray_cluster import ROOT, state_of

CODE = """
import sys, time
sys.path.insert(0, sys.argv[1])
from janus_runtime.serve.ray.watchdog import Watchdog
dog = Watchdog(float(sys.argv[2]))
print(dog._process.pid, flush=True)
until = time.monotonic() + float(sys.argv[3])
while time.monotonic() < until:
    pass
"""


def start(silence_s, seconds):
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CODE, ROOT, str(silence_s), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    return process, int(process.stdout.readline())


def wait_for_end(pid):
    until = time.monotonic() + 20
    while state_of(pid) not in (None, "Z") and time.monotonic() < until:
        time.sleep(0.05)
    return state_of(pid) in (None, "Z")


def test_one_that_is_stopped_is_ended():
    with start(2, 60)[0] as process:
        os.kill(process.pid, signal.SIGSTOP)
        assert process.wait(30) == -signal.SIGKILL


@pytest.mark.alone  # beside other tests on two cores it may well stand still for two seconds
def test_one_that_is_busy_is_not_and_takes_its_watchdog_along():
    process, dog = start(2, 4)
    with process:
        assert process.wait(60) == 0
    assert wait_for_end(dog)


def test_one_that_goes_on_in_time_is_left_alone():
    process, dog = start(6, 60)
    with process:
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(1.5)
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(1)
        assert process.poll() is None
        process.kill()
    assert wait_for_end(dog)
