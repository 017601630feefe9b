"""A real server on a free port of loopback, for every test that asks it something."""

import asyncio
import dataclasses
import importlib.util
import threading
from contextlib import contextmanager

import pytest

import janus_runtime
from tests.runtime.serve.http_client import HttpClient

_MISSING = [name for name in ("fastapi", "uvicorn", "multipart", "prometheus_client") if importlib.util.find_spec(name) is None]


class _SkippedModule(pytest.Module):
    def collect(self):
        pytest.skip(f"{', '.join(_MISSING)} not installed, which the server needs: pip install '.[serve]'")


def pytest_pycollect_makemodule(module_path, parent):
    """Modules of this folder are not imported where what they import is missing."""
    return _SkippedModule.from_parent(parent, path=module_path) if _MISSING else None


@contextmanager
def serving(model, port=0, **settings):
    """A server over `model` in a thread, as a client of it. `.service` is what its routes work with, `.server` what runs it."""
    from janus_runtime.serve.run import Server, address_of, listen
    from janus_runtime.serve.service import Service
    from janus_runtime.serve.settings import ServeSettings

    settings = ServeSettings(port=port, **settings)
    listener = listen(settings)
    service = Service.of(model, settings)
    server = Server(service)
    failed = []

    def run():
        try:
            server.run(sockets=[listener])
        except BaseException as error:  # for the test to show
            failed.append(error)

    thread = threading.Thread(target=run, name="server")
    thread.start()
    client = HttpClient(address_of(listener), service=service, server=server)
    try:
        yield client
    finally:
        # What a test left running is of no use any more.
        service.traffic.stopping = True
        server.should_exit = True
        thread.join()
        listener.close()
        assert not failed, failed


@pytest.fixture(scope="session")
def model():
    """What the server talks to."""
    with janus_runtime.load(backend="cpu", max_rows=8, max_queue=4) as opened:
        yield opened


@pytest.fixture(scope="session")
def server(model):
    """The server that most tests share."""
    with serving(model, edits=True, max_queue=4, ping_s=0.05) as client:
        yield client


@pytest.fixture(scope="session")
def openai():
    return pytest.importorskip("openai", reason="the openai client is not installed: pip install '.[dev]'")


@pytest.fixture(scope="session")
def client(openai, server):
    """OpenAI's client, which here refuses answers that are not of its types, and asks once."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, _strict_response_validation=True) as opened:
        yield opened


@pytest.fixture(scope="session")
def scripted_model(model):
    from tests.runtime.serve.scripted_model import ScriptedModel

    return ScriptedModel(model.manifest)


@pytest.fixture(scope="session")
def session_server(scripted_model):
    with serving(scripted_model, edits=True, ping_s=0.05) as client:
        yield client


@pytest.fixture
def scripted(model, scripted_model):
    """A model that does what the test says; as new."""
    vars(scripted_model).clear()
    scripted_model.__init__(model.manifest)
    yield scripted_model
    for request in scripted_model.submitted:
        request.handle.cancel()


@pytest.fixture
def scripted_server(scripted, session_server):
    """A server over `scripted`. Starting one for each test would take longer than the tests."""
    yield session_server


@pytest.fixture
def fresh_server(scripted):
    """A server over `scripted` that nobody has asked yet."""
    with serving(scripted) as client:
        yield client


@pytest.fixture
def run_async():
    """Runs a coroutine on a loop of its own."""
    return lambda coroutine: asyncio.run(coroutine)


@pytest.fixture
def settings():
    """`settings(name=value)` -> those of a server."""
    from janus_runtime.serve.settings import ServeSettings

    return lambda **changed: dataclasses.replace(ServeSettings(), **changed)
