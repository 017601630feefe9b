"""A command on a real terminal, for what depends on one: editing, Ctrl-C, width, control characters."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

# A machine that is busy takes long to start Python; no test waits this long for anything that comes.
PATIENCE = 120


def set_columns(descriptor, columns):
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


class Terminal:
    """Runs Python with `arguments` in a session of its own, whose terminal is the other end of `self.master`."""

    def __init__(self, *arguments, columns=80, **settings):
        self.master, slave = pty.openpty()
        set_columns(slave, columns)
        environment = {**os.environ, "TERM": "xterm", **settings.pop("env", {})}

        def own_terminal():
            # Tests may run in the background of a shell, which has Ctrl-C ignored there.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        streams = {"stdin": slave, "stdout": slave, "stderr": slave, **settings}
        command = [sys.executable, *map(str, arguments)]
        self.process = subprocess.Popen(command, env=environment, preexec_fn=own_terminal, **streams)
        os.close(slave)
        self.output = b""
        self._read = 0

    def send(self, keys):
        os.write(self.master, keys)

    def interrupt(self):
        """Ctrl-C, once the command waits for a key: Python's readline loses one that comes between its prompt and its wait."""
        asleep = 0
        while asleep < 3:
            time.sleep(0.02)
            asleep = asleep + 1 if self._is_asleep() else 0
        self.send(b"\x03")

    def _is_asleep(self):
        """Whether the command's main thread waits for something."""
        with open(f"/proc/{self.process.pid}/stat") as status:
            return status.read().rpartition(")")[2].split()[0] == "S"

    def expect(self, pattern):
        """Waits for a match in what was not matched yet, and returns it."""
        while not (match := re.compile(pattern).search(self.output, self._read)):
            assert self._more(), f"{pattern} is not in {self.output[self._read :]!r}"
        self._read = match.end()
        return match

    def wait(self):
        """Reads to the end -> exit code."""
        while self._more():
            pass
        return self.process.wait(PATIENCE)

    def _more(self):
        ready, _, _ = select.select([self.master], [], [], PATIENCE)
        assert ready, f"nothing more comes after {self.output[-400:]!r}"
        try:
            data = os.read(self.master, 65536)
        except OSError:  # Linux says so when the other end was closed
            return False
        self.output += data
        return bool(data)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        os.close(self.master)
