import gc
import threading

import numpy as np
import pytest
from PIL import Image

from janus_runtime.decoding.lane import TokenLane
from janus_runtime.decoding.sessions import open_session
from janus_runtime.errors import Cancelled, ImageError, JanusError, NumericalError, PromptError
from janus_runtime.pictures.image import preprocess
from janus_runtime.prompt import splice
from testing.sessions import wait_until_idle

RED = Image.new("RGB", (70, 50), "red")
BLUE = Image.new("RGB", (30, 60), "blue")


def test_text_streams_and_adds_up(janus):
    answer = janus.describe(RED, "What is this?", max_tokens=12)
    pieces = list(answer)
    assert len(pieces) > 1
    assert "".join(pieces) == answer.text == janus._prompter.decode(answer.text_ids)
    assert answer.stop in ("eos", "length") and len(answer.text_ids) <= 12
    assert {"load", "encode", "prefill", "steps"} <= answer.timings.keys()


def text_ids(answer):
    list(answer)
    return answer.text_ids


def test_greedy_is_repeatable_and_sampling_follows_its_seed(janus):
    assert text_ids(janus.describe(RED, max_tokens=8)) == text_ids(janus.describe(RED, max_tokens=8, seed=9))
    drawn = [text_ids(janus.describe(RED, max_tokens=8, temperature=2.0, seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_an_answer_that_is_dropped_gives_its_row_back(janus):
    """Without the cycle collector, which comes by now and then."""
    gc.disable()
    try:
        for drop in (lambda answer: None, next, list):
            answer = janus.describe(RED, max_tokens=400)
            drop(answer)
            del answer
            wait_until_idle(janus)
            assert janus.status().rows == 0, drop
    finally:
        gc.enable()


def test_conversations_keep_their_rows_apart(janus):
    """Two that take turns, and one that is closed meanwhile, say what one alone says."""
    alone = janus.chat()
    expected = [text_ids(alone.say(f"What about {turn}?", [RED] if turn == 2 else [], max_tokens=9)) for turn in range(6)]
    alone.close()
    first, second, third = janus.chat(), janus.chat(), janus.chat()
    for turn in range(6):
        for chat in (first, second):
            assert text_ids(chat.say(f"What about {turn}?", [RED] if turn == 2 else [], max_tokens=9)) == expected[turn]
        if turn == 1:
            list(third.say("And you?", BLUE, max_tokens=3))
            third.close()
            assert janus.status().rows == 2
    assert first.length == second.length


def test_every_picture_counts_and_so_does_their_order(janus, monkeypatch):
    """The embedded prompt holds what the encoder gives of each picture, in the order in which they were given."""
    embedded = []
    real = TokenLane
    monkeypatch.setattr("janus_runtime.answering.TokenLane", lambda **given: embedded.append(given["prompts"][0][1]) or real(**given))
    features = {id(image): janus._engines.encode_image(preprocess(image, janus.manifest.image_input)) for image in (RED, BLUE)}
    assert not np.allclose(*features.values(), atol=1e-3), "the two pictures look alike to this model"
    for images in ((RED, BLUE), (BLUE, RED), (RED,)):
        janus.chat().say("Compare.", images, max_tokens=1)
        places = np.isin(janus._prompter.question("Compare.", len(images)), janus._prompter.replaced)
        assert np.array_equal(embedded[-1][places], np.concatenate([features[id(image)] for image in images]))


def test_describe_takes_paths_and_lists(janus, tmp_path):
    path = tmp_path / "red.png"
    RED.save(path)
    expected = text_ids(janus.describe(RED, max_tokens=4))
    assert text_ids(janus.describe(str(path), max_tokens=4)) == expected
    assert text_ids(janus.describe([path], max_tokens=4)) == expected


@pytest.fixture
def script(janus, monkeypatch):
    """`script(ids)`: what answers say from now on, and then the letter z."""

    def begin(ids):
        left, rest = list(ids), janus._prompter.encode("z")[0]

        def predict(modality, hidden):
            logits = np.zeros((len(hidden), janus.manifest.language_model.vocab_size), np.float32)
            logits[:, left.pop(0) if left else rest] = 1
            return logits, "text_head"

        monkeypatch.setattr(janus._engines, "predict", predict)

    # Rows keep the logits after their prompts, and what is scripted must be asked for.
    forget_prompts(janus)
    yield begin
    forget_prompts(janus)


def forget_prompts(janus):
    gc.collect()  # Conversations of earlier tests have their rows until they are gone.
    wait_until_idle(janus)
    if lanes := janus._scheduler.find("tokens"):
        retained, lanes._retained = lanes._retained, 0
        lanes._evict()
        lanes._retained = retained


def test_the_end_token_ends_and_is_not_shown(janus, script):
    eos = janus.manifest.tokens.eos.id
    letters = janus._prompter.encode("ok")
    script([*letters, eos, *letters])
    answer = janus.chat().say("hi")
    assert "".join(answer) == "ok" and answer.stop == "eos" and answer.text_ids == letters


def test_the_limit_ends_without_a_step_too_many(janus, script):
    letters = janus._prompter.encode("abcdefgh")
    script(letters)
    chat, prompt = janus.chat(), len(janus._prompter.question("hi", 0))
    answer = chat.say("hi", max_tokens=3)
    list(answer)
    assert answer.stop == "length" and answer.text_ids == letters[:3]
    # The third id was shown but is not in the cache yet.
    assert chat.length == prompt + 2 == held(janus, chat)


def held(janus, chat):
    """Tokens in the row of a conversation."""
    wait_until_idle(janus)
    return janus._scheduler.find("tokens").session.lengths[chat._place.rows[0]]


@pytest.mark.parametrize("ending", ["eos", "length", "abandoned", "cancelled"])
def test_a_second_turn_continues_the_same_conversation(janus, script, ending):
    """The cache between turns holds what one prompt of the whole conversation would."""
    eos = janus.manifest.tokens.eos.id
    letters = janus._prompter.encode("fine")
    script([*letters, eos])
    chat = janus.chat()
    cancel = threading.Event()
    answer = chat.say("How are you?", RED, max_tokens=len(letters) if ending == "length" else 50, cancel=cancel)
    if ending in ("abandoned", "cancelled"):
        next(answer)
        if ending == "cancelled":
            cancel.set()
            with pytest.raises(Cancelled):
                list(answer)
        said = answer.text_ids
    else:
        list(answer)
        said = letters
    chat.say("And now?", max_tokens=1)
    wait_until_idle(janus)

    prompter = janus._prompter
    first = prompter.question("How are you?", 1)
    second = prompter.question("And now?", 0, first=False)
    ids = np.array([*first, *said, eos, *second], np.int32)
    embeds = janus._engines.embed_text(ids)
    features = janus._engines.encode_image(preprocess(RED, janus.manifest.image_input))[None]
    splice(embeds, ids, prompter.replaced, features)
    with open_session(janus._engines, "text", 1, 1024) as whole:
        whole.fill([embeds], [0])
        session, (row,) = janus._scheduler.find("tokens").session, chat._place.rows
        assert session.lengths[row] == len(ids) == chat.length
        for index, tensor in enumerate(whole._cache):
            expected, got = tensor[0, :, : len(ids)], session._cache[index][session._slots[row], :, : len(ids)]
            assert np.abs(expected - got).max() <= 1e-4 * np.abs(expected).max(), index


def test_how_far_an_answer_was_drawn_changes_nothing(janus):
    """Ids that nobody has read are forgotten, however many there are."""
    texts = []
    for wait in (False, True):
        chat = janus.chat()
        answer = chat.say("hello", max_tokens=40)
        next(answer)
        if wait:
            wait_until_idle(janus)
        texts.append(text_ids(chat.say("again", max_tokens=6)))
    assert texts[0] == texts[1]


def test_an_old_answer_does_not_mix_into_a_new_one(janus, script):
    script(janus._prompter.encode("abcdefgh"))
    chat = janus.chat()
    old = chat.say("hi")
    next(old)
    new = chat.say("again", max_tokens=2)
    with pytest.raises(JanusError, match="this answer ended when the next turn began"):
        list(old)
    assert len(text_ids(new)) == 2


def predict_nan(modality, hidden):
    return np.full((len(hidden), 320), np.nan, np.float32), "text_head"


def test_a_turn_that_fails_in_the_engine_can_be_said_again(janus, monkeypatch):
    chat = janus.chat()
    list(chat.say("hello", max_tokens=2))
    before = chat.length
    with monkeypatch.context() as patch:
        patch.setattr(janus._engines, "predict", predict_nan)
        with pytest.raises(NumericalError, match="text_head gave NaN"):
            chat.say("again")
    assert chat.length == before
    other = janus.chat()
    list(other.say("hello", max_tokens=2))
    assert text_ids(chat.say("again", max_tokens=4)) == text_ids(other.say("again", max_tokens=4))


def test_a_first_turn_that_fails_can_be_said_again(janus, monkeypatch):
    chat = janus.chat()
    with monkeypatch.context() as patch:
        patch.setattr(janus._engines, "predict", predict_nan)
        with pytest.raises(NumericalError, match="text_head gave NaN"):
            chat.say("hello", RED)
    assert text_ids(chat.say("hello", RED, max_tokens=4)) == text_ids(janus.chat().say("hello", RED, max_tokens=4))


def test_an_answer_that_fails_in_the_engine_is_no_end(janus, monkeypatch):
    """The token whose step failed was said; it is computed again with the next turn."""
    chat, other = janus.chat(), janus.chat()
    real, calls = janus._engines.predict, []

    def fail_later(*given):
        calls.append(given)
        return real(*given) if len(calls) == 1 else predict_nan(*given)

    with monkeypatch.context() as patch:
        patch.setattr(janus._engines, "predict", fail_later)
        answer = chat.say("hello", max_tokens=5)
        with pytest.raises(NumericalError):
            list(answer)
    assert len(answer.text_ids) == 1
    list(other.say("hello", max_tokens=1))
    assert text_ids(chat.say("again", max_tokens=4)) == text_ids(other.say("again", max_tokens=4))
    assert chat.length == other.length


def test_cancelled_before_the_costly_part(janus):
    cancel = threading.Event()
    cancel.set()
    chat = janus.chat()
    with pytest.raises(Cancelled, match="cancelled after 0 tokens"):
        chat.say("hello", [RED], cancel=cancel)
    assert chat.length == 0
    assert text_ids(chat.say("hello", max_tokens=3)) == text_ids(janus.chat().say("hello", max_tokens=3))


def test_pictures_in_a_later_turn(janus):
    chat = janus.chat()
    list(chat.say("hello", max_tokens=2))
    before = chat.length
    list(chat.say("and this?", [BLUE], max_tokens=1))
    assert chat.length - before > janus.manifest.image_input.num_tokens


def test_a_conversation_has_an_end(janus):
    chat = janus.chat(max_length=260)
    list(chat.say("hello", max_tokens=2))
    with pytest.raises(PromptError, match=r"would have \d+ tokens, the limit is 260 .* start a new conversation"):
        chat.say("long " * 60)
    # The refused turn cost nothing.
    list(chat.say("short", max_tokens=1))


def test_the_answer_stops_where_the_cache_ends(janus, script):
    prompt, letters = len(janus._prompter.question("hello", 0)), janus._prompter.encode("abcdefgh")
    script(letters)
    answer = janus.chat(max_length=prompt + 3).say("hello", max_tokens=50)
    list(answer)
    assert answer.stop == "length" and answer.text_ids == letters[:3]


def test_cancel(janus, script):
    cancel = threading.Event()
    script(janus._prompter.encode("abcdefgh"))
    answer = janus.chat().say("hi", cancel=cancel)
    next(answer)
    cancel.set()
    with pytest.raises(Cancelled, match="cancelled after 1 tokens"):
        list(answer)


def test_bad_arguments(janus):
    with pytest.raises(ImageError, match="no image at absent.png"):
        janus.describe("absent.png")
    with pytest.raises(ValueError, match="describe got no picture"):
        janus.describe([])
    with pytest.raises(ValueError, match="max_tokens is 0"):
        janus.describe(RED, max_tokens=0)
    with pytest.raises(ValueError, match="max_length is 5000; expected 2 to 1024"):
        janus.chat(max_length=5000)
    with pytest.raises(PromptError, match="empty"):
        janus.describe(RED, "")
    with pytest.raises(PromptError, match="got a NoneType for a prompt; expected text"):
        janus.chat().say(None)
