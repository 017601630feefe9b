"""The simulation against what can be computed by hand."""

import pytest
from click.testing import CliRunner

from bench.scale import Job, Timing, arrivals, capacity, main, percentile, simulate

TIMING = Timing({1: 10.0, 2: 12.0, 4: 20.0}, prefill_ms=30.0, overhead_ms=5.0, pixels_ms=100.0)


def test_a_request_alone_takes_its_prompt_its_steps_and_the_rest():
    # Eleven ids: one of the prompt, ten of steps.
    assert simulate([Job(3.0, 1, 11)], 1, TIMING, 4) == pytest.approx([0.030 + 10 * 0.010 + 0.005])
    assert simulate([Job(0.0, 2, 11, is_picture=True)], 2, TIMING, 4) == pytest.approx([0.060 + 10 * 0.012 + 0.100 + 0.005])


def test_two_that_come_together_take_two_replicas_or_share_steps():
    jobs = [Job(0.0, 1, 11), Job(0.0, 1, 11)]
    assert simulate(jobs, 2, TIMING, 4) == pytest.approx([0.135, 0.135])
    first, second = simulate(jobs, 1, TIMING, 4)
    assert 0.135 < first < second < 2 * 0.135


def test_who_finds_no_row_waits():
    jobs = [Job(0.0, 2, 11), Job(0.0, 2, 11)]
    first, second = simulate(jobs, 1, TIMING, 2)
    assert second == pytest.approx(2 * first - 0.005)


def test_steps_of_rows_that_were_not_measured():
    assert [TIMING.step(rows) for rows in (1, 3, 4, 6)] == [10.0, 16.0, 20.0, 28.0]
    assert Timing({2: 7.0}, 0, 0).step(5) == 7.0


def test_more_replicas_wait_less_at_the_same_load():
    """As queues do: many servers are rarely all busy."""
    waits = []
    for count in (1, 2, 8):
        rate = 0.8 * count * capacity(TIMING, 50, 4)
        jobs = [Job(at, 2, 50, is_picture=True) for at in arrivals(rate, 400, seed=1)]
        waits.append(percentile(simulate(jobs, count, TIMING, 4), 95))
    assert waits == sorted(waits, reverse=True)


def test_a_replica_that_is_full_draws_as_many_as_it_can():
    jobs = [Job(0.0, 2, 50, is_picture=True) for _ in range(200)]
    pace = len(jobs) / max(simulate(jobs, 1, Timing(TIMING.step_ms, 30.0, 0.0), 4))
    assert pace == pytest.approx(capacity(TIMING, 50, 4), rel=0.1)


def test_arrivals_come_at_their_rate():
    times = list(arrivals(5.0, 1000, seed=3))
    assert 4600 < len(times) < 5400 and times == sorted(times) and times[-1] < 1000


def test_the_plan():
    done = CliRunner().invoke(main, ["plan", "--result", "bench/results/serving-pro-1b.json", "--price", "0.5"], catch_exceptions=False)
    assert "0.0297 pictures a second" in done.output
    assert "| 1,000 | 1.1 | 54 | 27.00 | 6.75 |" in done.output


def test_the_wait():
    command = ["wait", "--result", "bench/results/serving-pro-1b.json", "--replicas", "1", "--load", "0.3", "--load", "0.9", "--hours", "2"]
    lines = CliRunner().invoke(main, command, catch_exceptions=False).output.splitlines()
    assert lines[0] == "one replica draws 107 pictures an hour, 8 at once; alone a picture takes 41 s"
    calm, full = ([float(each) for each in cell.split(",")] for cell in lines[-1].split("|")[2:4])
    # Nobody waits less than alone, and half of those who come to a replica that is nearly full wait for longer than a batch takes.
    assert 41 < calm[0] < calm[1] and calm[0] < full[0] < full[1]
