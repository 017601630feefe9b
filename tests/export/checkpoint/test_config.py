import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from janus_export.checkpoint.config import parse_config
from janus_export.errors import CheckpointError
from testing.flow_layout import FLOW_MODELS, flow_config, vae_config
from testing.published_layouts import MODELS, hf_config, original_config


@pytest.mark.parametrize("model", list(MODELS))
def test_both_layouts_state_the_same_sizes(model):
    hf, original = parse_config(hf_config(MODELS[model])), parse_config(original_config(MODELS[model]))
    assert (hf.text, hf.vision, hf.vq) == (original.text, original.vision, original.vq)
    assert (hf.layout, original.layout) == ("hf", "multi_modality")


def test_the_published_7b_config_states_little():
    """Pro-7B's language_config holds four fields; the rest are Llama's defaults."""
    raw = original_config(MODELS["janus-pro-7b"])
    raw["language_config"] = {
        "max_position_embeddings": 16384,
        "model_type": "llama",
        "num_hidden_layers": 30,
        "torch_dtype": "bfloat16",
        "vocab_size": 102400,
    }
    assert parse_config(raw).text == MODELS["janus-pro-7b"].text


def edited(raw, path, value):
    raw = copy.deepcopy(raw)
    *parents, last = path.split(".")
    node = raw
    for parent in parents:
        node = node[parent]
    node[last] = value
    return raw


HF, ORIGINAL = hf_config(MODELS["tiny"]), original_config(MODELS["tiny"])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "model_type None; expected 'multi_modality'"),
        (edited(HF, "model_type", "llama"), "model_type 'llama'"),
        (edited(HF, "text_config.hidden_act", "gelu"), "text_config.hidden_act is 'gelu'; this export builds 'silu' only"),
        (edited(HF, "text_config.num_key_value_heads", 2), "text_config.num_key_value_heads is 2; this export builds 4 only"),
        (edited(HF, "text_config.rope_parameters", {"rope_type": "yarn"}), "text_config.rope_parameters.rope_type is 'yarn'"),
        (edited(HF, "text_config.head_dim", 32), "head_dim is 32; this export builds 16"),
        (edited(HF, "text_config.max_position_embeddings", 0), "max_position_embeddings is 0; expected a whole number from 1 to"),
        (edited(HF, "vision_config.num_attention_heads", True), "vision_config.num_attention_heads is True; expected a whole"),
        (edited(HF, "vision_config.num_attention_heads", 1.5), "num_attention_heads is 1.5; expected a whole"),
        (edited(HF, "text_config.num_hidden_layers", 10**8), "num_hidden_layers is 100000000; expected a whole number from 1 to 300"),
        (edited(HF, "text_config.rms_norm_eps", "small"), "rms_norm_eps is 'small'; expected a number above 0"),
        (edited(HF, "vq_config.channel_multiplier", [1, "2"]), "channel_multiplier is .*; expected a list of whole numbers"),
        (edited(HF, "text_config", []), r"text_config is \[\]; expected an object"),
        (edited(HF, "vision_config.image_size", 72), "image size 72 and patch size 16 do not fit each other"),
        (edited(ORIGINAL, "vision_config.params.image_size", 72), "patch size 16 do not fit"),
        (edited(HF, "vision_config.use_qk_norm", True), "use_qk_norm is True"),
        (edited(HF, "vq_config.double_latent", True), "double_latent is True"),
        (edited(HF, "vq_config.base_channels", 48), "VQ widths .48"),
        (edited(ORIGINAL, "vision_config.params.select_layer", -2), "select_layer is -2"),
        (
            edited(ORIGINAL, "vision_config.params", {"image_size": 384, "model_name": "siglip_so400m"}),
            "has no vision_config.params.width; is the file complete",
        ),
        (edited(ORIGINAL, "aligner_config.params.projector_type", "linear"), "projector_type is 'linear'"),
    ],
)
def test_what_is_not_built_is_refused_by_name(raw, message):
    with pytest.raises(CheckpointError, match=message):
        parse_config(raw)


@pytest.mark.parametrize("model", list(FLOW_MODELS))
def test_janusflow_and_its_vae(model):
    config = FLOW_MODELS[model]
    assert parse_config(flow_config(config), vae_config(config.flow.vae)) == config


FLOW, VAE = flow_config(FLOW_MODELS["tiny-flow"]), vae_config(FLOW_MODELS["tiny-flow"].flow.vae)
TOWER = FLOW["vision_und_enc_config"]["params"]


@pytest.mark.parametrize(
    ("raw", "vae", "message"),
    [
        (FLOW, {}, "the VAE's config.json has _class_name None; expected 'AutoencoderKL'"),
        (FLOW, {**VAE, "act_fn": "gelu"}, "the VAE's config.json: act_fn is 'gelu'"),
        (FLOW, {**VAE, "latent_channels": 16}, "input_channels is 4; this export, with this VAE, builds 16 only"),
        (FLOW, {**VAE, "block_out_channels": [32, 48, 96, 96]}, "VAE widths .32, 48, 96, 96. and 32 groups"),
        (edited(FLOW, "vision_gen_enc_config.cls", "UNet"), VAE, "vision_gen_enc_config.cls is 'UNet'"),
        (edited(FLOW, "vision_gen_enc_config.params.stride", 4), VAE, "stride is 4; .* builds 2 only"),
        (edited(FLOW, "vision_gen_enc_config.params.padding", 3), VAE, "padding is 3; this export builds 0"),
        (edited(FLOW, "vision_gen_dec_config.params.upsamples", 2), VAE, "upsamples is 2; .* builds 1 only"),
        (edited(FLOW, "vision_gen_dec_config.params.hidden_size", 65), VAE, "hidden_size is 65; .* builds 64 only"),
        (edited(FLOW, "vision_und_enc_config.params", {**TOWER, "image_size": 72, "patch_size": 8}), VAE, "drawn size 64 and seen size 72"),
    ],
)
def test_a_flow_that_is_not_built_is_refused_by_name(raw, vae, message):
    with pytest.raises(CheckpointError, match=message):
        parse_config(raw, vae)


def test_a_silent_flow_config_means_the_classes_defaults():
    """Which no published model can have: three channels in, patches of four."""
    raw = edited(FLOW, "vision_gen_enc_config.params", {})
    with pytest.raises(CheckpointError, match="block_out_channels is|input_channels is 3"):
        parse_config(raw, VAE)


def leaves(node, path=()):
    for key, value in node.items():
        yield from leaves(value, (*path, key)) if isinstance(value, dict) else [".".join((*path, key))]


@pytest.mark.parametrize("raw", [HF, ORIGINAL], ids=["hf", "original"])
@given(data=st.data())
def test_any_one_edit_is_read_or_refused_in_words(raw, data):
    """Nothing but CheckpointError comes out, whichever field holds whatever."""
    path = data.draw(st.sampled_from(sorted(leaves(raw))))
    value = data.draw(
        st.one_of(st.none(), st.booleans(), st.integers(-3, 2**40), st.floats(), st.text(max_size=3), st.just([]), st.just({}))
    )
    try:
        parse_config(edited(raw, path, value))
    except CheckpointError as error:
        assert "\n" not in str(error)


def numbers_in(raw, path=()):
    for key, value in raw.items():
        if isinstance(value, dict):
            yield from numbers_in(value, (*path, key))
        elif type(value) in (int, float):
            yield ".".join((*path, key))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["hf", "original", "flow", "vae"])
def test_nan_and_infinity_are_numbers_of_nothing(name, value):
    """JSON as Python reads it has them. Each is refused by its field's name, wherever the field counts."""
    flow = FLOW_MODELS["tiny-flow"]
    raws = {"hf": HF, "original": ORIGINAL, "flow": flow_config(flow), "vae": vae_config(flow.flow.vae)}
    parse = {"vae": lambda raw: parse_config(raws["flow"], raw)}.get(name, parse_config)
    expected, refused = parse(raws[name]), 0
    for path in numbers_in(raws[name]):
        try:
            assert parse(edited(raws[name], path, value)) == expected, path
        except CheckpointError as error:
            refused += 1
            assert path.rpartition(".")[2] in str(error)
    assert refused >= 4
