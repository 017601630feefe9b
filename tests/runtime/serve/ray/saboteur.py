"""The application over model replicas whose engine raises while a file says so."""

import os
from pathlib import Path

from janus_runtime.serve.ray.app import application
from janus_runtime.serve.ray.arguments import Arguments
from janus_runtime.serve.ray.replica import ModelReplica


class Saboteur(ModelReplica):
    """`JANUS_SABOTAGE` names a folder; a file there with the name of this process's pid makes every step raise."""

    def __init__(self, arguments: Arguments) -> None:
        super().__init__(arguments)
        scheduler = self.janus._scheduler
        step, file = scheduler._step, Path(os.environ["JANUS_SABOTAGE"]) / str(os.getpid())

        def broken_step() -> None:
            if file.exists():
                raise RuntimeError("the engine broke")
            step()

        scheduler._step = broken_step


def app(arguments: Arguments):
    return application(arguments, Saboteur)
