"""A hub id -> a folder of the hub client's cache: fetched, or as cached before where the hub gives no answer."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from janus_runtime.errors import first_line
from janus_runtime.packages import importing

from ..errors import CheckpointError
from .settings import FILES
from .weight_files import Located, choose_weights, index_of

# Of the answers that blame the request, those that another time may pass: too slow, too many.
_LATER = (408, 429)


def fetch(source: str, wanted: Mapping[str, Sequence[str]], needed: Sequence[str]) -> Located:
    """The hub's model `source`, `owner/name`: the JSON files that we read, licences, and the weights that are chosen, no others.

    `wanted`: of each folder inside, "" or "vae", the names that its weights may have. `needed`: files without which a cached copy is
    not whole. The first request waits for HF_HUB_ETAG_TIMEOUT seconds (10) and is not repeated; with HF_HUB_OFFLINE there is none.
    Raises CheckpointError.
    """
    _check_endpoint()
    with importing("export", "a hub id"):
        import huggingface_hub as hub
        from huggingface_hub import constants
        from huggingface_hub.errors import HFValidationError

    host = urlsplit(constants.ENDPOINT).netloc.rpartition("@")[2]
    if constants.HF_HUB_OFFLINE:
        return _open_cached(source, wanted, needed, "HF_HUB_OFFLINE forbids it")
    try:
        info = hub.HfApi().model_info(source, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        commit, names = info.sha, frozenset(file.rfilename for file in info.siblings or ())
    except HFValidationError as error:
        raise _failed(source, first_line(error)) from None
    except Exception as error:  # what answers may be no hub, and the client then raises whatever its answer makes it run into
        status = getattr(getattr(error, "response", None), "status_code", 0)
        if 400 <= status < 500 and status not in _LATER:
            raise _failed(source, f"{host} answers {status}: it has no such model, or wants a login ('hf auth login')") from None
        return _open_cached(source, wanted, needed, f"no answer of a hub from {host} ({first_line(error)})")
    if not commit or not names:
        return _open_cached(source, wanted, needed, f"no answer of a hub from {host} (no commit, or no files)")

    def get(name: str) -> Path:
        """-> the snapshot's folder."""
        try:
            path = Path(hub.hf_hub_download(source, name, etag_timeout=constants.HF_HUB_ETAG_TIMEOUT))
        except Exception as error:  # as above
            raise _failed(source, f"{name} from {host}: {first_line(error)}") from None
        folder = path.parents[name.count("/")].absolute()
        if folder.name != commit:
            raise _failed(source, f"{name} is of commit {folder.name}, expected {commit}: it changed meanwhile; run again")
        return folder

    small = sorted(name for name in names if name in _small_files(wanted) or _is_licence(name, wanted))
    if not small:
        raise _failed(source, f"it has none of {', '.join(needed)}; is it a model in the layout of transformers?")
    folder = [get(name) for name in small][-1]
    located = Located(folder, commit, names)
    for name in _chosen(located, wanted):
        get(name)
    return located


def _open_cached(source: str, wanted: Mapping[str, Sequence[str]], needed: Sequence[str], why: str) -> Located:
    """The snapshot that `main` pointed to when it was last fetched, by whatever program. Raises CheckpointError if it is not whole."""
    import huggingface_hub as hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(hub.snapshot_download(source, local_files_only=True, allow_patterns=_small_files(wanted))).absolute()
    except LocalEntryNotFoundError as error:
        # A subclass of newer clients: some of the files that the repository is known to have are missing.
        partial = hasattr(error, "snapshot_path")
        cached = f"what is cached of it is not whole: {str(error).split('. ')[0]}" if partial else "it is not cached"
        raise _failed(source, f"{why}, and {cached}") from None
    except ValueError as error:
        raise _failed(source, first_line(error)) from None
    names = frozenset(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    located = Located(folder, folder.name, names, (f"{why}: {source} is taken from the cache, at commit {folder.name}",))
    try:
        if missing := [name for name in needed if name not in names]:
            raise CheckpointError(f"{folder} lacks {', '.join(missing)}")
        _chosen(located, wanted)
    except CheckpointError as error:
        raise _failed(source, f"{why}, and what is cached of it is not whole: {error}") from None
    return located


def _chosen(located: Located, wanted: Mapping[str, Sequence[str]]) -> list[str]:
    """The files of weights, those of a folder inside only where it has some. Raises CheckpointError."""
    chosen = choose_weights(located.folder, located.names, wanted[""])[0]
    for inner, kinds in wanted.items():
        part = located.inside(inner)
        if inner and any(name in part.names for kind in kinds for name in (kind, index_of(kind))):
            chosen += [f"{inner}/{name}" for name in choose_weights(part.folder, part.names, kinds)[0]]
    return chosen


def _small_files(wanted: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        f"{inner}/{name}" if inner else name for inner, kinds in wanted.items() for name in (*FILES, *(index_of(kind) for kind in kinds))
    ]


def _is_licence(name: str, wanted: Mapping[str, Sequence[str]]) -> bool:
    inner, _, file = name.rpartition("/")
    return inner in wanted and file.startswith("LICENSE")


def _failed(source: str, reason: str) -> CheckpointError:
    return CheckpointError(f"no folder {source}, and fetching it from the hub failed: {reason}")


def _check_endpoint() -> None:
    """Raises CheckpointError where HF_ENDPOINT is no address, at which the client would fail without naming it."""
    address = os.environ.get("HF_ENDPOINT")
    try:
        parts = urlsplit(address or "https://")
        good = address is None or (parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0)
    except ValueError:  # half an IPv6 address, or a port that is no number
        good = False
    if not good:
        raise CheckpointError(f"HF_ENDPOINT is {address!r:.80}; expected an address such as https://huggingface.co, or leave it unset")
