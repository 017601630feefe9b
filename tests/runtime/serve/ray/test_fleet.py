"""Where calls go."""

import pytest

from janus_runtime.decoding.scheduler import Status
from janus_runtime.serve.ray.calls import Call
from janus_runtime.serve.ray.fleet import Fleet, Stats, choose_home

STATUS = Status(0, 0, 0, 8, 0, None, 100, 0, 0, 0, 0)


def call(number=0, rows=2, head=None, avoid=()):
    return Call(f"call-{number}", "me", "drawing", (), {}, rows, head, frozenset(avoid))


def stats(**rows):
    return Stats(max_rows=8, max_queue=4, rows=rows, status=STATUS)


@pytest.fixture
def fleet():
    opened = Fleet(ingress="me")
    opened.see({"a": stats(), "b": stats()})
    return opened


def test_each_call_goes_where_the_fewest_rows_are_wanted(fleet):
    first = fleet.rank(call(0, rows=4), ["a", "b"])[0]
    other = fleet.rank(call(1, rows=2), ["a", "b"])[0]
    assert {first, other} == {"a", "b"}
    assert fleet.rank(call(2, rows=2), ["a", "b"])[0] == other
    # Four rows each.
    fleet.release(call(0))
    assert fleet.rank(call(3), ["a", "b"])[0] == first


def test_rows_of_other_ingresses_count_and_our_own_are_not_counted_twice(fleet):
    fleet.see({"a": stats(you=2, me=6), "b": stats(you=4)})
    assert fleet.rank(call(), ["a", "b"])[0] == "a"
    fleet.see({"a": stats(you=6), "b": stats(you=4)})
    assert fleet.rank(call(), ["a", "b"])[0] == "b"


def test_a_call_that_is_sent_again_does_not_count_against_where_it_was(fleet):
    fleet.see({"a": stats(), "b": stats(you=1)})
    for _ in range(3):
        assert fleet.rank(call(), ["a", "b"])[0] == "a"


def test_one_that_failed_it_comes_last_whatever_it_has_to_do(fleet):
    fleet.see({"a": stats(), "b": stats(you=20)})
    assert fleet.rank(call(avoid=["a"]), ["a", "b"]) == ["b", "a"]


def test_a_suspect_comes_last_until_its_time_is_over(fleet, monkeypatch):
    fleet.see({"a": stats(), "b": stats(you=20)})
    fleet.suspect("a", 30)
    assert fleet.rank(call(), ["a", "b"]) == ["b", "a"]
    monkeypatch.setattr("time.monotonic", lambda: float("inf"))
    assert fleet.rank(call(1), ["a", "b"]) == ["a", "b"]


def test_a_conversation_goes_where_it_was_while_there_is_room(fleet):
    heads = [bytes([number]) * 32 for number in range(100)]
    homes = [choose_home(head, ["a", "b"]) for head in heads]
    assert 30 < homes.count("a") < 70
    for number, (head, home) in enumerate(zip(heads, homes, strict=True)):
        assert fleet.rank(call(number, rows=1, head=head), ["a", "b"])[0] == home
        fleet.release(call(number))
    assert (fleet.kept, fleet.spilled) == (100, 0)


def test_its_replica_is_the_same_whoever_else_comes_or_goes():
    heads = [bytes([number]) * 32 for number in range(100)]
    three = [choose_home(head, ["a", "b", "c"]) for head in heads]
    two = [choose_home(head, ["b", "a"]) for head in heads]
    assert all(before == after for before, after in zip(three, two, strict=True) if before != "c")


def test_it_goes_elsewhere_where_its_replica_is_full_or_not_to_be_trusted(fleet):
    head = b"head" * 8
    home = choose_home(head, ["a", "b"])
    (other,) = {"a", "b"} - {home}
    fleet.see({home: stats(you=8), other: stats(you=5)})
    assert fleet.rank(call(0, rows=1, head=head), ["a", "b"])[0] == other
    # As full as everybody, it is still the best place.
    fleet.see({home: stats(you=8), other: stats(you=9)})
    assert fleet.rank(call(1, rows=1, head=head), ["a", "b"])[0] == home
    fleet.suspect(home, 30)
    assert fleet.rank(call(2, rows=1, head=head), ["a", "b"])[0] == other
    assert (fleet.kept, fleet.spilled) == (1, 2)


def test_where_a_call_is():
    fleet = Fleet(ingress="me")
    assert fleet.where(call()) is None
    assert fleet.rank(call(), []) == [] and fleet.where(call()) is None
    fleet.rank(call(), ["a"])
    assert fleet.where(call()) == "a"
    fleet.place(call(), "b")
    assert fleet.where(call()) == "b"
    fleet.release(call())
    assert fleet.where(call()) is None
