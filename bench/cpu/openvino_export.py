"""Graphs of a Janus checkpoint's sizes as OpenVINO runs them best, for `openvino_stages.py`. Weights are random.

    python bench/cpu/openvino_export.py CHECKPOINT BITS ROWS FOLDER

A process of its own, so that what PyTorch and the conversion take is given back before anything is timed. Writes into FOLDER:

- `decoder`: optimum-intel's export of a Llama, with a table of the codebook's size before it and the hidden state of the last token
  behind it. Janus embeds the ids of a picture in eight numbers and two matrices; a table is a little less work than that.
- `text_head` and `image_head`: a matrix, and transformers' head for pictures. They take that one hidden state, as ours do.
- `vision_encoder` (with aligner) and `image_decoder`: transformers' modules, a picture at a time; the encoder also with 8-bit
  weights, `vision_encoder_int8`.

4 bits are symmetric in groups of 128, about as ours (64 takes as long); 8 bits are as optimum and NNCF have them by default.
"""

import json
import math
import sys
import tempfile
from pathlib import Path

import nncf
import openvino
import torch
from openvino import opset15
from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig
from torch import nn
from transformers import JanusConfig, LlamaConfig, LlamaForCausalLM
from transformers.models.janus.modeling_janus import JanusVisionAlignerMLP, JanusVisionModel, JanusVQVAE, JanusVQVAEHead


class Vision(nn.Module):
    """pixels [1, 3, S, S] -> [1, tokens, D]"""

    def __init__(self, config: JanusConfig) -> None:
        super().__init__()
        self.encoder = JanusVisionModel._from_config(config.vision_config)
        self.aligner = JanusVisionAlignerMLP(config.vision_config)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.aligner(self.encoder(pixels).last_hidden_state)


class Pixels(nn.Module):
    """ids [1, tokens] -> [1, 3, S, S]"""

    def __init__(self, config: JanusConfig) -> None:
        super().__init__()
        self.model = JanusVQVAE._from_config(config.vq_config)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.model.decode(ids)


def export_decoder(text: dict, vocabulary: int, bits: int, folder: Path) -> None:
    config = LlamaConfig(**{**text, "vocab_size": vocabulary, "pad_token_id": None, "tie_word_embeddings": False})
    # bf16, as the published weights: half the memory, and the same graph after quantisation.
    torch.set_default_dtype(torch.bfloat16)
    LlamaForCausalLM(config).save_pretrained(folder / "torch")
    torch.set_default_dtype(torch.float32)
    how = {8: {}, 4: {"sym": True, "group_size": group(config.hidden_size, config.intermediate_size), "ratio": 1.0}}[bits]
    quantisation = OVWeightQuantizationConfig(bits=bits, **how)
    model = OVModelForCausalLM.from_pretrained(folder / "torch", export=True, compile=False, quantization_config=quantisation)
    model.save_pretrained(folder / "whole")
    whole = openvino.Core().read_model(folder / "whole" / "openvino_model.xml")
    openvino.save_model(before_head(whole), folder / "decoder.xml")


def before_head(model: openvino.Model) -> openvino.Model:
    """The model without its head, and of a prompt the last token alone."""
    logits = model.output("logits").get_node()
    product = logits.input_value(0).get_node()
    while product.get_type_name() != "MatMul":
        product = product.input_value(0).get_node()
    start, stop, step, axis = (opset15.constant([number], dtype="int64") for number in (-1, 2**31, 1, 1))
    last = opset15.result(opset15.slice(product.input_value(0), start, stop, step, axis), name="hidden")
    last.output(0).tensor.set_names({"hidden"})
    return openvino.Model([last], model.get_sinks(), model.get_parameters(), "decoder")


def convert(module: nn.Module, example: torch.Tensor) -> openvino.Model:
    """For inputs of this shape."""
    with torch.inference_mode():
        return openvino.convert_model(module.eval(), example_input=example, input=list(example.shape))


def compress(model: openvino.Model, bits: int, width: int) -> openvino.Model:
    """Every matrix in `bits`; in place. `width`: inputs of the matrices."""
    if bits == 8:
        return nncf.compress_weights(model)
    return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT4_SYM, ratio=1.0, group_size=group(width), all_layers=True)


def group(*widths: int) -> int:
    """How many weights share a scale, where these are the inputs of every matrix."""
    return math.gcd(128, *widths)


def main() -> None:
    checkpoint, bits, rows, folder = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    # optimum keeps the model whole in a temporary folder of its own.
    tempfile.tempdir = str(folder)
    torch.manual_seed(0)
    values = json.loads((checkpoint / "config.json").read_text())
    config = JanusConfig(**{name: values[name] for name in ("text_config", "vision_config", "vq_config")})
    text, vision, vq = config.text_config, config.vision_config, config.vq_config
    export_decoder(values["text_config"], vq.num_embeddings, bits, folder)

    def save(model: openvino.Model, name: str) -> None:
        openvino.save_model(model, folder / f"{name}.xml")

    hidden = text.hidden_size
    text_head = convert(nn.Linear(hidden, text.vocab_size, bias=False), torch.zeros(1, 1, hidden))
    save(compress(text_head, bits, hidden), "text_head")
    save(compress(convert(JanusVQVAEHead(vq), torch.zeros(rows, 1, hidden)), bits, hidden), "image_head")
    save(convert(Pixels(config), torch.zeros(1, vq.num_patches**2, dtype=torch.long)), "image_decoder")
    encoder = convert(Vision(config), torch.zeros(1, 3, vision.image_size, vision.image_size))
    save(encoder, "vision_encoder")
    save(compress(encoder, 8, vision.hidden_size), "vision_encoder_int8")


if __name__ == "__main__":
    main()
