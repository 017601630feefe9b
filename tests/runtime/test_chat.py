import gc
import threading
import weakref

import numpy as np
import pytest
from PIL import Image

import janus_runtime.chat
from janus_runtime.decoding.host_session import HostSession
from janus_runtime.errors import Cancelled, ImageError, JanusError, NumericalError, PromptError
from janus_runtime.pictures.image import preprocess
from janus_runtime.prompt import splice

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


def test_an_answer_that_is_dropped_frees_its_cache_at_once(janus, monkeypatch):
    """Without the cycle collector, which comes by now and then."""
    alive, session = weakref.WeakSet(), janus_runtime.chat.open_session

    def counted(*arguments, **options):
        opened = session(*arguments, **options)
        alive.add(opened)
        return opened

    monkeypatch.setattr("janus_runtime.chat.open_session", counted)
    gc.disable()
    try:
        for drop in (lambda answer: None, next, list):
            answer = janus.describe(RED, max_tokens=4)
            assert len(alive) == 1
            drop(answer)
            del answer
            assert len(alive) == 0, drop
    finally:
        gc.enable()


def test_a_conversation_costs_what_it_holds(janus):
    """Its cache grows with it, never to twice of what it holds, and gives the answers of one that had all its room at once."""
    growing, roomy = janus.chat(), janus.chat()
    roomy._session._allocate(roomy.max_length)
    for turn in range(12):
        images = [RED] if turn == 3 else []
        texts = [text_ids(chat.say(f"What about {turn}?", images, max_tokens=9)) for chat in (growing, roomy)]
        assert texts[0] == texts[1]
        assert growing.length == roomy.length <= growing._session.capacity < 2 * growing.length < growing.max_length
    assert roomy._session.capacity == roomy.max_length


def test_every_picture_counts_and_so_does_their_order(janus, monkeypatch):
    """The embedded prompt holds what the encoder gives of each picture, in the order in which they were given."""
    prefilled = []
    real = HostSession.prefill
    monkeypatch.setattr(HostSession, "prefill", lambda session, embeds, *rest: prefilled.append(embeds[0]) or real(session, embeds, *rest))
    features = {id(image): janus._engines.encode_image(preprocess(image, janus.manifest.image_input)) for image in (RED, BLUE)}
    assert not np.allclose(*features.values(), atol=1e-3), "the two pictures look alike to this model"
    for images in ((RED, BLUE), (BLUE, RED), (RED,)):
        janus.chat().say("Compare.", images, max_tokens=1)
        places = np.isin(janus._prompter.question("Compare.", len(images)), janus._prompter.replaced)
        assert np.array_equal(prefilled[-1][places], np.concatenate([features[id(image)] for image in images]))


def test_describe_takes_paths_and_lists(janus, tmp_path):
    path = tmp_path / "red.png"
    RED.save(path)
    expected = text_ids(janus.describe(RED, max_tokens=4))
    assert text_ids(janus.describe(str(path), max_tokens=4)) == expected
    assert text_ids(janus.describe([path], max_tokens=4)) == expected


class Script:
    """A session whose logits are scripted: says `ids` one after the other."""

    def __init__(self, real, ids):
        self.real, self.ids = real, list(ids)

    def __getattr__(self, name):
        return getattr(self.real, name)

    def draw(self, logits, limit, sampler, noise, guidance):
        for token in self.ids:
            yield np.array([token], np.int32)
            self.real.step(np.array([token], np.int32))


def scripted(janus, *ids, **options):
    chat = janus.chat(**options)
    chat._session = Script(chat._session, ids)
    return chat


def test_the_end_token_ends_and_is_not_shown(janus):
    eos = janus.manifest.tokens.eos.id
    letters = janus._prompter.encode("ok")
    answer = scripted(janus, *letters, eos, *letters).say("hi")
    assert "".join(answer) == "ok" and answer.stop == "eos" and answer.text_ids == letters


def test_the_limit_ends_without_a_step_too_many(janus):
    letters = janus._prompter.encode("abcdefgh")
    chat = scripted(janus, *letters)
    answer = chat.say("hi", max_tokens=3)
    before = chat._session.lengths[0]
    list(answer)
    assert answer.stop == "length" and answer.text_ids == letters[:3]
    # The third id was shown but is not in the cache yet.
    assert chat._session.lengths[0] == before + 2


@pytest.mark.parametrize("ending", ["eos", "length", "abandoned", "cancelled"])
def test_a_second_turn_continues_the_same_conversation(janus, ending):
    """The cache between turns holds what one prompt of the whole conversation would."""
    eos = janus.manifest.tokens.eos.id
    letters = janus._prompter.encode("fine")
    chat = scripted(janus, *letters, eos)
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
    chat._session = chat._session.real
    chat.say("And now?", max_tokens=1)

    whole = janus.chat()
    prompter = janus._prompter
    first = prompter.question("How are you?", 1)
    second = prompter.question("And now?", 0, first=False)
    ids = np.array([*first, *said, eos, *second], np.int32)
    embeds = janus._engines.embed_text(ids)
    features = janus._engines.encode_image(preprocess(RED, janus.manifest.image_input))[None]
    splice(embeds, ids, prompter.replaced, features)
    whole._session.prefill([embeds], [0], "text")
    assert whole._session.lengths == chat._session.lengths
    length = int(whole._session.lengths[0])
    for index, tensor in enumerate(whole._session._cache):
        expected, got = tensor[0, :, :length], chat._session._cache[index][0, :, :length]
        assert np.abs(expected - got).max() <= 1e-4 * np.abs(expected).max(), index


def test_an_old_answer_does_not_mix_into_a_new_one(janus):
    chat = scripted(janus, *janus._prompter.encode("abcdefgh"))
    old = chat.say("hi")
    next(old)
    chat.say("again")
    before = chat.length
    with pytest.raises(JanusError, match="this answer ended when the next turn began"):
        list(old)
    assert chat.length == before


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


def test_an_answer_that_fails_in_the_engine_is_no_end(janus, monkeypatch):
    """The token whose step failed was said; it is computed again with the next turn."""
    chat, other = janus.chat(), janus.chat()
    answer = chat.say("hello", max_tokens=5)
    with monkeypatch.context() as patch:
        patch.setattr(janus._engines, "predict", predict_nan)
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
    before = int(chat._session.lengths[0])
    list(chat.say("and this?", [BLUE], max_tokens=1))
    assert int(chat._session.lengths[0]) - before > janus.manifest.image_input.num_tokens


def test_a_conversation_has_an_end(janus):
    chat = janus.chat(max_length=260)
    list(chat.say("hello", max_tokens=2))
    with pytest.raises(PromptError, match=r"would have \d+ tokens, the limit is 260 .* start a new conversation"):
        chat.say("long " * 60)
    # The refused turn cost nothing.
    list(chat.say("short", max_tokens=1))


def test_the_answer_stops_where_the_cache_ends(janus):
    prompt, letters = len(janus._prompter.question("hello", 0)), janus._prompter.encode("abcdefgh")
    chat = scripted(janus, *letters, max_length=prompt + 3)
    answer = chat.say("hello", max_tokens=50)
    list(answer)
    assert answer.stop == "length" and answer.text_ids == letters[:3]


def test_cancel(janus):
    cancel = threading.Event()
    chat = scripted(janus, *janus._prompter.encode("abcdefgh"))
    answer = chat.say("hi", cancel=cancel)
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
