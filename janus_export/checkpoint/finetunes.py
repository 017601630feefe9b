"""Weights of a family member as trainers leave them: under wrapped names, beside EMA copies, or with adapters beside."""

import re
from collections.abc import Mapping

from ..errors import CheckpointError
from .sizes import Layout
from .tensor import Tensor

# The first part of every name that a published checkpoint has; JanusFlow's parts are the vision_…_enc and vision_…_dec ones.
_ROOTS = {
    "multi_modality": r"(?:language_model|(?:gen_)?(?:vision_model|aligner)|gen_head|gen_embed|vision_(?:und|gen)_\w+|beg_of_und_embed)",
    "hf": r"(?:model\.(?:language_model|vision_model|vqmodel|aligner|generation_\w+)|lm_head)",
}
_WRAPPER = r"(?:module|_orig_mod|model|base_model\.model)\."
_EMA = r"(?:ema|ema_model|model_ema)\."
_EMA_NAME = re.compile(rf"(?:{_WRAPPER})*?{_EMA}")
_ADAPTER = re.compile(r"(?:^|\.)(?:lora_\w+|base_layer)\.")


def unwrapped(tensors: Mapping[str, Tensor], layout: Layout) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """-> the tensors under the names that they have in published checkpoints, and what was done to get there, a line each.

    What no rule knows keeps its name. Raises CheckpointError on adapters that are not merged.
    """
    if adapters := [name for name in tensors if _ADAPTER.search(name)]:
        raise CheckpointError(
            f"the checkpoint holds {len(adapters)} tensors of an adapter that is not merged, such as {adapters[0]}; expected whole "
            "weights: call merge_and_unload() on the model in PEFT and save what it returns"
        )
    wrapped = re.compile(rf"((?:{_WRAPPER}|{_EMA})*?)({_ROOTS[layout]}(?:\..*)?)")
    matches = {name: wrapped.fullmatch(name) for name in tensors}
    groups: dict[str, set[str]] = {}
    for known in filter(None, matches.values()):
        groups.setdefault(known[1], set()).add(known[2])
    copies = [prefix for prefix in groups if _EMA_NAME.match(prefix)]
    prefixes = [prefix for prefix in groups if prefix not in copies] or copies
    if len(prefixes) != 1 or not all(groups[copy] <= groups[prefixes[0]] for copy in copies):
        return dict(tensors), ()
    prefix, result, left = prefixes[0], {}, []
    for name, match in matches.items():
        if match and match[1] == prefix:
            result[match[2]] = tensors[name]
        elif _EMA_NAME.match(name):
            left.append(name)
        else:
            result[name] = tensors[name]
    notes = []
    if prefix in copies:
        notes.append(f"only EMA weights are there, under {prefix}: they are taken")
    elif prefix:
        notes.append(f"{prefix} was taken off the names of {len(groups[prefix])} tensors")
    if left:
        notes.append(f"{len(left)} tensors of EMA copies were left out, such as {left[0]}: the weights are there without them")
    return result, tuple(notes)
