"""Requests that join and leave: what each gets is what it gets alone."""

import random
import threading
import time

import numpy as np
import pytest
from PIL import Image

import janus_runtime
from janus_runtime.backends import open_backend
from janus_runtime.bundle.bundle import Bundle
from janus_runtime.decoding.scheduler import Limits
from janus_runtime.errors import BackendError, Busy, Cancelled, DeadlineExceeded, JanusError, NumericalError, PromptError, TooLarge
from janus_runtime.events import Failed, Finished, Progress, Said, Started, Waiting
from janus_runtime.janus import janus_over
from janus_runtime.prompt import Message
from testing.collector import Collector
from testing.sessions import wait_until_idle
from testing.stand_in import StandIn
from tests.marks import needs_int8_cache

RED = Image.new("RGB", (70, 50), "red")
BLUE = Image.new("RGB", (30, 60), "blue")
PROMPTS = ["a cat", "two large dogs left of a tree", "a cat on a mat " * 12, "a cat on a mat " * 12 + "and a dog"]
QUESTIONS = ["What is this?", "What is that in the middle of the picture, and what is left of it?", "Why? " * 20]


def load(folder, backend="cpu", **limits):
    bundle = Bundle.open(folder)
    return janus_over(bundle, open_backend(backend, bundle), Limits(**limits))


def draw(janus, prompt="a cat", n=1, **settings):
    collector = Collector()
    collector.handle = janus.submit_drawing(prompt, n, post=collector.post, **settings)
    return collector


def ask(janus, *messages, **settings):
    collector = Collector()
    collector.handle = janus.submit_answer(messages, post=collector.post, **settings)
    return collector


def user(text, *images):
    return Message("user", text, images)


def some_request(rng):
    """A request as a function of a model, and a key that tells it from others."""
    seed = rng.randrange(3)
    if rng.random() < 0.5:
        settings = rng.choice([{}, {"temperature": 0.0}, {"top_k": 5, "cfg_weight": 2.0}, {"top_p": 0.7}])
        prompt, n = rng.choice(PROMPTS), rng.choice([1, 1, 2, 3])
        return ("draw", prompt, n, seed, tuple(settings.items())), lambda janus: draw(janus, prompt, n, seed=seed, **settings)
    photo, question = rng.choice([RED, BLUE, None]), rng.choice(QUESTIONS)
    turns = [user(question, *([photo] if photo else []))]
    if rng.random() < 0.4:
        turns += [Message("assistant", "It is a picture."), user(rng.choice(QUESTIONS))]
    tokens, temperature = rng.choice([1, 4, 12]), rng.choice([0.0, 1.5])
    key = ("ask", photo and photo.size, tuple(turn.text for turn in turns), tokens, temperature, seed)
    return key, lambda janus: ask(janus, *turns, max_tokens=tokens, temperature=temperature, seed=seed)


def results(collector):
    assert collector.error is None, collector.error
    drawn = [(picture.image_ids.tolist(), picture.seed, picture.image.tobytes()) for picture in collector.pictures]
    return drawn, collector.text, collector.text_ids, collector.finished.stop


class TestCompany:
    @pytest.mark.parametrize("count", [60, pytest.param(400, marks=pytest.mark.slow)])
    @pytest.mark.parametrize("precision", ["fp32", pytest.param("int4", marks=needs_int8_cache)])
    def test_requests_that_join_and_leave_get_what_they_get_alone(self, bundles, precision, count):
        rng = random.Random(1)
        asked = [some_request(rng) for _ in range(count)]
        folder = bundles("tiny", precision)
        alone = {}
        with load(folder, retained_bytes=0) as janus:
            for key, submit in asked:
                if key not in alone:
                    alone[key] = results(submit(janus).wait())
        with load(folder, max_rows=9, memory_bytes=400_000_000) as janus:
            running, cancelled = [], 0
            for key, submit in asked:
                collector = submit(janus)
                if rng.random() < 0.2:
                    cancelled += 1
                    steps = rng.randrange(6)
                    if steps:
                        cancel_later(collector, steps)
                    else:
                        collector.handle.cancel()
                else:
                    running.append((key, collector))
                while sum(not isinstance(each.events[-1:] and each.events[-1], Finished) for _, each in running) > 12:
                    time.sleep(0.001)
            for key, collector in running:
                assert results(collector.wait()) == alone[key], key
            wait_until_idle(janus)
            status = janus.status()
        assert cancelled > count / 10 and status.rows == 0
        assert status.stepped_rows / status.steps > 2, "they shared steps"
        assert status.reused_tokens > 1000

    def test_flow_pictures_and_answers(self, bundles):
        """Of any number of steps, which begin whenever there is room."""
        rng = random.Random(2)
        with load(bundles("tiny-flow"), max_rows=8) as janus:
            asked = [(rng.choice(PROMPTS[:3]), rng.choice([2, 3, 5]), rng.randrange(9)) for _ in range(30)]
            alone = {each: draw(janus, each[0], steps=each[1], seed=each[2]).wait().pictures[0] for each in set(asked)}
            said = ask(janus, user("What is this?", RED), max_tokens=9).wait().text
            together = [draw(janus, prompt, steps=steps, seed=seed) for prompt, steps, seed in asked]
            answers = [ask(janus, user("What is this?", RED), max_tokens=9) for _ in range(3)]
            for each, collector in zip(asked, together, strict=True):
                assert np.array_equal(collector.wait().pictures[0].latents, alone[each].latents)
            assert {answer.wait().text for answer in answers} == {said}
            wait_until_idle(janus)
            assert janus.status().stepped_rows / janus.status().steps > 2 and janus.status().rows == 0

    @pytest.mark.parametrize("flavour", ["slice", "gqa"])
    def test_on_a_device(self, bundles, janus, flavour):
        """Lanes join once the steps that are queued are done; rows of a kind share a loop."""
        bundle = Bundle.open(bundles("tiny"))
        prompts = [(prompt, seed) for prompt in PROMPTS[:2] for seed in range(3)]
        with janus_over(bundle, StandIn(flavour, lengths=(64, 160, 480)), Limits(max_rows=8)) as device:
            drawn = [draw(device, prompt, seed=seed, n=1 + seed) for prompt, seed in prompts]
            said = [ask(device, user(question, RED), max_tokens=7) for question in QUESTIONS]
            for (prompt, seed), collector in zip(prompts, drawn, strict=True):
                expected = draw(janus, prompt, seed=seed, n=1 + seed).wait()
                assert results(collector.wait()) == results(expected)
            for question, collector in zip(QUESTIONS, said, strict=True):
                assert results(collector.wait()) == results(ask(janus, user(question, RED), max_tokens=7).wait())
            wait_until_idle(device)
            assert device.status().rows == 0 and not device._scheduler._lanes

    def test_threads_share_steps(self, bundles):
        with load(bundles("tiny")) as janus:
            expected = [picture.image_ids.tolist() for picture in janus.generate("a cat", n=2, seed=4)]
            before = janus.status()
            found, together = [None] * 4, threading.Barrier(4)

            def work(index):
                together.wait()
                found[index] = janus.generate("a cat", n=2, seed=4)

            threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [[picture.image_ids.tolist() for picture in pictures] for pictures in found] == [expected] * 4
            assert janus.status().steps - before.steps < 4 * 16


def cancel_later(collector, steps):
    seen = []

    def look(event):
        seen.append(event)
        if len(seen) == steps:
            collector.handle.cancel()

    collector.on_event = look


class TestReuse:
    def test_a_second_question_about_a_picture_computes_its_question_alone(self, bundles):
        with load(bundles("tiny")) as janus:
            first = ask(janus, user("What is this?", RED), max_tokens=3).wait()
            before = janus.status()
            second = ask(janus, user("What colour is it?", RED), max_tokens=3).wait()
            computed = janus.status().prefilled_tokens - before.prefilled_tokens
            usage = second.finished.usage
            assert first.finished.usage.cached_tokens == 0
            assert usage.cached_tokens % 32 == 0 and usage.cached_tokens + computed == usage.text_tokens + usage.image_tokens
            assert computed < 32 + len(janus._prompter.encode("What colour is it?\n\nAssistant:"))

    def test_a_conversation_sent_again_goes_on_where_it_was(self, bundles):
        with load(bundles("tiny")) as janus:
            messages = [user("What is this?", RED)]
            for turn in range(4):
                answer = ask(janus, *messages, max_tokens=6).wait()
                usage = answer.finished.usage
                assert usage.text_tokens + usage.image_tokens - usage.cached_tokens < 100 or not turn
                messages += [Message("assistant", answer.text.strip() or "Nothing."), user(f"And {turn}?")]

    def test_another_picture_or_another_beginning_is_not_taken(self, bundles):
        with load(bundles("tiny")) as janus:
            ask(janus, user("What is this?", RED), max_tokens=3).wait()
            other = ask(janus, user("What is this?", BLUE), max_tokens=3).wait()
            (place,) = janus._prompter.picture_places(janus._prompter.conversation([user("What is this?", BLUE)]))
            assert other.finished.usage.cached_tokens == place // 32 * 32, "the system's text alone"
            told = ask(janus, Message("system", "Be short."), user("What is this?", RED), max_tokens=3).wait()
            assert told.finished.usage.cached_tokens == 0

    def test_conversations_in_turn_keep_theirs(self, bundles):
        """All begin with the system's words; none takes another's row for them."""
        with load(bundles("tiny")) as janus:
            photos = [RED, BLUE, Image.new("RGB", (50, 50), "green")]
            for photo in photos:
                ask(janus, user("What is this?", photo), max_tokens=3).wait()
            for photo in photos:
                usage = ask(janus, user("Which colour is it?", photo), max_tokens=3).wait().finished.usage
                (place,) = janus._prompter.picture_places(janus._prompter.conversation([user("Which?", photo)]))
                assert usage.cached_tokens >= (place + janus.manifest.image_input.num_tokens) // 32 * 32

    def test_the_same_question_needs_no_prefill(self, bundles):
        with load(bundles("tiny")) as janus:
            first, again = (ask(janus, user("What is this?", RED), max_tokens=5, seed=seed).wait() for seed in (0, 1))
            usage = again.finished.usage
            assert usage.cached_tokens == usage.text_tokens + usage.image_tokens and again.text == first.text

    def test_what_decoding_made_is_not_reused(self, bundles):
        """Keys of steps differ from those of a prefill in their last bits, which would make an answer depend on who asked before."""
        with load(bundles("tiny")) as janus:
            answer = ask(janus, user("What is this?", RED), max_tokens=40).wait()
            prompt = answer.finished.usage.text_tokens + answer.finished.usage.image_tokens
            again = ask(janus, user("What is this?", RED), Message("assistant", answer.text or "x"), user("So?"), max_tokens=2).wait()
            assert again.finished.usage.cached_tokens <= prompt // 32 * 32

    def test_no_more_is_kept_than_may_be(self, bundles):
        with load(bundles("tiny"), retained_bytes=3_000_000) as janus:
            for number in range(12):
                ask(janus, user(f"{number} is what?", RED), max_tokens=2).wait()
            wait_until_idle(janus)
            assert 0 < janus.status().cache_bytes <= 3_000_000

    def test_pictures_of_a_prompt_prefill_once(self, bundles):
        with load(bundles("tiny")) as janus:
            draw(janus, "a cat on a mat " * 9, n=6).wait()
            prompt = len(janus._prompter.image("a cat on a mat " * 9))
            assert janus.status().prefilled_tokens == 2 * prompt


def test_preload_opens_what_requests_need(bundles):
    for model in ("tiny", "tiny-flow"):
        with load(bundles(model)) as janus:
            assert janus.preload() > 0
            opened = set(janus._engines._open)
            draw(janus, partial_images=1, **({"steps": 2} if janus.manifest.flow else {})).wait()
            ask(janus, user("What is this?", RED), max_tokens=2).wait()
            assert set(janus._engines._open) == opened


class TestLimits:
    def test_rows_are_never_more_than_may_be(self, bundles, monkeypatch):
        with load(bundles("tiny"), max_rows=5) as janus:
            most = []
            asked = [draw(janus, n=3, seed=seed) for seed in range(4)] + [ask(janus, user("What?"), max_tokens=9) for _ in range(4)]
            while not all(isinstance(each.events[-1:] and each.events[-1], Finished) for each in asked):
                most.append(janus.status().rows)
            assert max(most) <= 5

    def test_bytes_too(self, bundles):
        with load(bundles("tiny")) as janus:
            draw(janus).wait()
            lanes = janus._scheduler.find("tokens")
            row = lanes.session.row_bytes(len(janus._prompter.image("a cat")) + 15)
        with load(bundles("tiny"), memory_bytes=5 * row) as janus:
            asked = [draw(janus, seed=seed) for seed in range(6)]
            while not all(isinstance(each.events[-1:] and each.events[-1], Finished) for each in asked):
                assert janus.status().cache_bytes <= 5 * row

    def test_more_than_there_may_ever_be_is_an_error(self, bundles):
        with load(bundles("tiny"), max_rows=1) as janus:
            error = draw(janus).wait().error
            assert isinstance(error, BackendError) and "2 rows of" in str(error) and "1 rows" in str(error)
            assert ask(janus, user("What?"), max_tokens=2).wait().error is None
        with load(bundles("tiny"), memory_bytes=1000) as janus:
            assert isinstance(ask(janus, user("What?"), max_tokens=2).wait().error, BackendError)

    def test_rows_of_conversations_are_not_waited_for(self, bundles):
        """They may never be closed."""
        with load(bundles("tiny"), max_rows=1) as janus:
            chat = janus.chat()
            expected = "".join(chat.say("What?", max_tokens=4))
            with pytest.raises(TooLarge, match="of which open conversations hold 1 rows; close one"):
                list(janus.describe(RED, max_tokens=2))
            assert "".join(chat.say("What?", max_tokens=4)) is not None
            chat.close()
            assert "".join(janus.chat().say("What?", max_tokens=4)) == expected

    def test_a_full_queue(self, bundles):
        with load(bundles("tiny"), max_rows=2, max_queue=2) as janus:
            hold = threading.Event()
            first = Collector()
            first.on_event = lambda event: isinstance(event, Progress) and hold.wait(60)
            janus.submit_drawing("a cat", post=first.post, progress=True)
            while not first.progress:
                time.sleep(0.001)
            others = [draw(janus), draw(janus)]
            with pytest.raises(Busy, match="2 requests wait already, as many as may; try again later") as caught:
                draw(janus)
            assert 1 <= caught.value.retry_after_s <= 60 and caught.value.code == "busy"
            assert janus.status().waiting == 2
            hold.set()
            for each in (first, *others):
                assert each.wait().error is None
            assert [event.ahead for event in others[1].events if isinstance(event, Waiting)] == [1, 0]

    def test_a_deadline(self, bundles):
        with load(bundles("tiny"), max_rows=2) as janus:
            late = draw(janus, n=9, deadline_s=0.0).wait()
            assert isinstance(late.error, DeadlineExceeded) and late.error.code == "deadline"
            assert "not done after 0 s" in str(late.error)
            waiting = [draw(janus, n=8), draw(janus, deadline_s=0.001)]
            assert isinstance(waiting[1].wait().error, DeadlineExceeded)
            assert waiting[0].wait().error is None

    @pytest.mark.parametrize("limits", [{"max_rows": 0}, {"memory_bytes": 0}, {"max_queue": -1}])
    def test_limits_below_one(self, tiny, limits):
        with pytest.raises(ValueError, match=f"{next(iter(limits))} is .*; expected 1 or more"):
            janus_runtime.load(tiny, **limits)


class TestEnds:
    def test_events_come_in_order_and_end_once(self, bundles):
        with load(bundles("tiny")) as janus:
            drawn = draw(janus, n=2, progress=True, partial_images=2).wait()
            kinds = [type(event).__name__ for event in drawn.events]
            assert kinds[0] == "Started" and kinds[-1] == "Finished" and kinds.count("Drawn") == 2
            assert [(event.step, event.total) for event in drawn.progress] == [(step, 16) for step in range(1, 17)]
            for number in range(2):
                assert [event.index for event in drawn.partials if event.number == number] == [0, 1]
            usage = drawn.finished.usage
            assert (usage.text_tokens, usage.completion_tokens) == (len(janus._prompter.image("a cat")), 32)
            said = ask(janus, user("What is this?", RED), max_tokens=5).wait()
            assert isinstance(said.events[0], Started) and all(isinstance(event, Said) for event in said.events[1:-1])
            assert said.finished.usage.completion_tokens == len(said.text_ids) <= 5

    def test_partial_pictures_become_the_picture(self, bundles):
        """What is drawn of them is what the picture has there."""
        with load(bundles("tiny")) as janus:
            drawn = draw(janus, seed=3, partial_images=3).wait()
            (picture,) = drawn.pictures
            decoder = janus._engines["image_preview"]
            for partial, count in zip(drawn.partials, (3, 7, 12), strict=True):
                ids = picture.image_ids.copy()
                for place in range(count, 16):
                    ids[place] = ids[place - 4 if place >= 4 else place - 1]
                pixels = decoder.run({"image_ids": ids[None]})["pixels"][0]
                expected = np.clip((pixels.transpose(1, 2, 0) + 1) / 2 * 255, 0, 255).astype(np.uint8)
                assert np.array_equal(np.asarray(partial.image), expected)

    def test_nan_in_one_row_is_the_error_of_that_request_alone(self, bundles, monkeypatch):
        with load(bundles("tiny")) as janus:
            alone = results(draw(janus, seed=1).wait())
            real = janus._engines.predict
            spoiled = []

            def spoil(modality, hidden):
                logits, name = real(modality, hidden)
                if len(hidden) == 6 and not spoiled:
                    logits = logits.copy()
                    logits[3, 2] = np.nan
                    spoiled.append(True)
                return logits, name

            monkeypatch.setattr(janus._engines, "predict", spoil)
            # Of one request each, since the pictures of a request end together.
            hold = threading.Event()
            first = Collector()
            first.on_event = lambda event: isinstance(event, Started) and hold.wait(60)
            janus.submit_drawing("a cat", seed=1, post=first.post)
            others = [draw(janus, seed=1), draw(janus, seed=1)]
            hold.set()
            ends = [each.wait() for each in (first, *others)]
            assert spoiled and sum(isinstance(each.error, NumericalError) for each in ends) == 1
            for each in ends:
                assert each.error is not None or results(each) == alone
            wait_until_idle(janus)
            assert janus.status().rows == 0

    def test_an_engine_that_fails_ends_who_is_in_the_call_and_nobody_later(self, bundles, monkeypatch):
        with load(bundles("tiny")) as janus:
            expected = results(draw(janus, seed=1).wait())
            with monkeypatch.context() as patch:
                patch.setattr(janus._engines, "embed_ids", lambda *given: (_ for _ in ()).throw(OSError("gone")))
                failed = draw(janus, seed=1).wait().error
                assert isinstance(failed, JanusError) and "OSError: gone" in str(failed)
            assert results(draw(janus, seed=1).wait()) == expected
            wait_until_idle(janus)
            assert janus.status().rows == 0

    def test_a_caller_who_raises_is_alone(self, bundles):
        """An event that its caller cannot take ends his request, not those of others."""
        with load(bundles("tiny")) as janus:

            def refuse(event):
                raise RuntimeError("the loop is closed")

            janus.submit_drawing("a cat", post=refuse)
            assert draw(janus).wait().error is None
            wait_until_idle(janus)
            assert janus.status().rows == 0

    def test_cancelled_while_waiting_while_drawing_and_when_done(self, bundles):
        with load(bundles("tiny"), max_rows=2) as janus:
            first, second = draw(janus, n=5), draw(janus)
            second.handle.cancel()
            assert isinstance(second.wait().error, Cancelled) and not second.pictures
            first.handle.cancel()
            assert isinstance(first.wait().error, Cancelled)
            done = draw(janus).wait()
            done.handle.cancel()
            assert sum(isinstance(event, Failed | Finished) for event in done.events) == 1

    def test_closing_ends_what_runs(self, bundles):
        janus = load(bundles("tiny"), max_rows=2)
        asked = [draw(janus, n=50) for _ in range(3)]
        janus.close()
        for each in asked:
            assert "this model is closed" in str(each.wait().error)
        with pytest.raises(JanusError, match="this model is closed"):
            draw(janus)
        janus.close()

    def test_an_idle_model_has_no_thread_at_work(self, bundles):
        with load(bundles("tiny")) as janus:
            draw(janus).wait()
            wait_until_idle(janus)
            while janus._scheduler._thread is not None:
                time.sleep(0.001)
            used = time.process_time()
            time.sleep(0.3)
            assert time.process_time() - used < 0.1

    @pytest.mark.parametrize(
        "messages",
        [
            [],
            [Message("assistant", "hi")],
            [user("a"), user("b")],
            [user("a"), Message("assistant", "b")],
            [Message("system", "a"), Message("system", "b"), user("c")],
            [user("a"), Message("assistant", "b", (RED,)), user("c")],
            [user("")],
        ],
        ids=["none", "assistant", "twice", "no-question", "two-systems", "its-picture", "empty"],
    )
    def test_conversations_that_are_none(self, janus, messages):
        with pytest.raises(PromptError):
            ask(janus, *messages)
