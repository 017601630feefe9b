"""Files that are whole or absent, whoever else writes beside them and wherever a writer is killed."""

import os

import pytest

from janus_runtime.whole_file import open_part, rename_new, rename_over


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.fixture(params=["links", "no links"])
def links(request, monkeypatch):
    """Both kinds of file system."""

    def refuse(*paths):
        raise PermissionError(1, "Operation not permitted")

    if request.param == "no links":
        monkeypatch.setattr(os, "link", refuse)


def write(path, data, rename=rename_new):
    with open_part(path) as file:
        file.write(data)
        rename(file, path)


def test_two_writers_of_equal_process_ids_do_not_meet(tmp_path, links, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with open_part(tmp_path / "a") as first:
        first.write(b"first")
        with open_part(tmp_path / "a") as second:
            second.write(b"second")
            rename_new(second, tmp_path / "a")
        with pytest.raises(FileExistsError):
            rename_new(first, tmp_path / "a")
        rename_new(first, tmp_path / "b")
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"second", b"first") and not hidden(tmp_path)


def test_the_mode_follows_the_umask(tmp_path, links):
    before = os.umask(0o027)
    try:
        write(tmp_path / "a", b"whole")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("rename", [rename_new, rename_over])
def test_no_name_before_the_bytes_are_on_the_disk(tmp_path, links, monkeypatch, rename):
    """At every call that could be a writer's last, the name is absent or its file whole."""
    path, calls = tmp_path / "a", []

    def spied(name):
        call = getattr(os, name)

        def spy(*arguments):
            calls.append(name)
            assert not path.exists()
            return call(*arguments)

        return spy

    for name in ("fsync", "link", "rename", "replace"):
        monkeypatch.setattr(os, name, spied(name))
    write(path, b"whole", rename)
    assert calls[0] == "fsync" and len(calls) > 1 and path.read_bytes() == b"whole" and not hidden(tmp_path)


def test_a_name_that_is_taken_is_kept(tmp_path, links):
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write(tmp_path / "a", b"other")
    assert (tmp_path / "a").read_bytes() == b"mine" and not hidden(tmp_path)
    write(tmp_path / "a", b"other", rename_over)
    assert (tmp_path / "a").read_bytes() == b"other" and not hidden(tmp_path)


def test_a_name_that_is_being_taken_is_left_to_its_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *paths: (_ for _ in ()).throw(OSError(95, "Operation not supported")))
    (tmp_path / ".a.claim").touch()
    with pytest.raises(FileExistsError):
        write(tmp_path / "a", b"other")
    assert hidden(tmp_path) == [".a.claim"] and not (tmp_path / "a").exists()


def test_an_interrupted_writer_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), open_part(tmp_path / "a") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
