import pytest

import janus_runtime
from janus_runtime import errors
from janus_runtime.console.errors import in_flags


def test_codes_are_stable_and_apart():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.JanusError)]
    assert {kind.__name__: kind.code for kind in kinds} == {
        "JanusError": "error",
        "BundleError": "bundle",
        "BackendError": "backend",
        "OutOfMemory": "out_of_memory",
        "TooLarge": "too_large",
        "PromptError": "prompt",
        "ConversationFull": "conversation_full",
        "ImageError": "image",
        "NumericalError": "numerical",
        "Cancelled": "cancelled",
        "DeadlineExceeded": "deadline",
        "Busy": "busy",
        "ReplicaLost": "replica_lost",
    }


def test_a_hint_says_what_to_do(tmp_path):
    with pytest.raises(janus_runtime.BundleError) as caught:
        janus_runtime.load(tmp_path)
    assert caught.value.hint == "make one with 'janus-export checkpoint SRC --out DIR'"
    assert errors.Cancelled("cancelled after 3 steps").hint == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("leave temperature, top_k and top_p out", "leave temperature, --top-k and --top-p out"),
        ("load the bundle with backend=cpu", "load the bundle with --backend cpu"),
        ("use a smaller batch_size, or build more", "use a smaller --batch-size, or build more"),
        ("the stand-in backend draws with 2", "the stand-in backend draws with 2"),
        ("a prompt about stop_k and top_kick", "a prompt about stop_k and top_kick"),
    ],
)
def test_commands_speak_of_flags(text, said):
    assert in_flags(text) == said
