"""What is carried to a GPU machine: nothing that does not fit, and each section as soon as what it needs is there."""

import pytest

from bench.gpu import pack
from bench.gpu.sections import SECTIONS, Section
from janus_runtime.errors import JanusError


def nothing(place):
    """A section of a test."""
    return {}


@pytest.mark.parametrize("room", [10, 15, 100])
def test_calls(room):
    sections = {
        "first": Section(nothing, 30),
        "long": Section(nothing, 540),
        "needs a set": Section(nothing, 60, "ort"),
        "needs both": Section(nothing, 60, "ort", ("b",)),
        "needs what is not here": Section(nothing, 60, "trt86"),
    }
    items = [("ort.00", 9), ("ort.01", 5), ("b", 5)]
    calls = pack.plan_calls(items, sections, room, 200)
    assert [name for call in calls for name in call.items] == ["ort.00", "ort.01", "b"]
    sizes = dict(items)
    assert all(sum(sizes[name] for name in call.items) <= room for call in calls)
    order = [name for call in calls for name in call.sections]
    assert sorted(order) == ["first", "long", "needs a set", "needs both"]
    there = set()
    for call in calls:
        there |= set(call.items)
        assert "needs a set" not in call.sections or {"ort.00", "ort.01"} <= there
        assert "needs both" not in call.sections or {"ort.00", "ort.01", "b"} <= there
        assert sum(sections[name].limit_s for name in call.sections) / 3 <= 200


def test_a_part_too_large():
    with pytest.raises(JanusError, match="ort.00 is 40.0 MiB, and only 30.0 MiB travel with the project; make smaller parts"):
        pack.plan_calls([("ort.00", 40 << 20)], SECTIONS, 30 << 20, 200)


def test_the_project_leaves_room_for_a_part():
    """Parts of the sets are made of 31 MiB."""
    assert pack.travelling_bytes() + (31 << 20) < 64 << 20


def test_the_calls_are_printed(run, tmp_path, monkeypatch):
    made = []

    def python(module, *arguments):
        made.append((module, *arguments))

    monkeypatch.setattr(pack, "run_module", python)
    for name in ("ort.00", "ort.01"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_bytes(bytes(100))
        (tmp_path / name / "unpack.sh").touch()
    parts = [option for name in ("ort.00", "ort.01") for option in ("--part", tmp_path / name)]
    (tmp_path / "packed" / "always").mkdir(parents=True)
    result = run(pack.main, tmp_path / "packed", *parts)
    assert result.exit_code == 0, result.stderr
    assert [each[0] for each in made] == ["janus_export.cli", "testing.seeded_bundle", "testing.seeded_bundle", "pip", "bench.gpu.parity"]
    assert f"bash {tmp_path}/ort.01/unpack.sh {tmp_path}/ort.01/part\n  bash {tmp_path}/ort.00/unpack.sh done ort" in result.stdout
    printed = result.stdout.split("bench.gpu.first")
    assert [name for name in SECTIONS if f" {name} " in result.stdout] == [name for name in SECTIONS if name != "tensorrt-nano"]
    assert len(printed) == result.stdout.count("call ") + 1
    bad = run(pack.main, tmp_path / "packed", "--part", tmp_path)
    assert bad.exit_code == 1 and "is no part of a set; expected a folder with part and unpack.sh" in bad.stderr
