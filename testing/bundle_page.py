"""Writes what docs/bundle.md and contract/manifest.schema.json say of graphs and fields, from the code that reads them.

python -m testing.bundle_page [--check]
"""

import dataclasses
import json
import re
import types
import typing
from typing import Annotated, Any, Literal, get_args

import click

from janus_runtime.bundle.interface import Flavour, GraphKind, Interface, Sizes, TensorSpec, graph_name, interface
from janus_runtime.bundle.manifest import FORMAT, Manifest
from testing import CONTRACT, ROOT

PAGE, SCHEMA = ROOT / "docs" / "bundle.md", CONTRACT / "manifest.schema.json"
_MARKERS = re.compile(r"(<!-- table: interface -->\n).*?(<!-- end of table -->)", re.S)
# Fields by their names; layers are counted by hand, as `i`.
_SIZES = {
    "hidden_size": "hidden_size", "num_heads": "num_heads", "head_size": "head_size", "vocab_size": "vocab_size",
    "input_size": "image_input.size", "input_tokens": "image_input.num_tokens", "output_size": "image_output.size",
    "output_tokens": "image_output.num_tokens", "num_ids": "image_output.num_ids", "latent_channels": "flow.latent_channels",
    "latent_size": "flow.latent_size", "condition_size": "flow.condition_size",
}  # fmt: skip
_LATENTS = Sizes(num_layers=1, **{**_SIZES, "num_ids": None})
_IDS = Sizes(num_layers=1, **_SIZES)


def interface_table() -> str:
    lines = ["| graph | tensor | dtype | shape |", "| --- | --- | --- | --- |"]
    for kind in get_args(GraphKind):
        for flavour in get_args(Flavour) if kind == "language_model" else (None,):
            lines += _rows(graph_name(kind, flavour), _interface(kind, flavour, _IDS))
        if kind == "image_decoder":
            lines += _rows("image_decoder of JanusFlow", _interface(kind, None, _LATENTS))
    return "\n".join(lines) + "\n"


def _interface(kind: GraphKind, flavour: Flavour | None, sizes: Sizes) -> Interface:
    cached = kind in ("language_model", "flow_step")
    return interface(kind, flavour, sizes, "f", "cache.dtype" if cached else None)  # type: ignore[arg-type]


def _rows(name: str, found: Interface) -> list[str]:
    rows = []
    for arrow, specs in (("", found.inputs), ("→ ", found.outputs)):
        for tensor, spec in specs.items():
            layer = tensor.replace("key_0", "key_i") if "key_0" in tensor else tensor
            if "value_0" in tensor:
                continue
            both = f"`{layer}`, `{layer.replace('key', 'value')}`" if layer != tensor else f"`{layer}`"
            rows.append(f"| {f'`{name}`' if not rows else ''} | {arrow}{both} | {_dtype(spec)} | {_shape(spec)} |")
    return rows


def _dtype(spec: TensorSpec) -> str:
    return "*f*" if spec.dtype == "f" else f"`{spec.dtype}`"  # type: ignore[comparison-overlap]


def _shape(spec: TensorSpec) -> str:
    return f"[{', '.join(str(size) for size in spec.shape)}]"


def manifest_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the manifest's fields. What sizes must agree is not in it: `Manifest` checks that."""
    schema = _schema(Manifest)
    schema["properties"]["format"] = {"const": FORMAT}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "manifest.json of a janus-rt bundle", **schema}


def _schema(kind: Any) -> dict[str, Any]:
    limit = 2**31
    if typing.get_origin(kind) is Annotated:
        kind, limit = get_args(kind)
    origin, arguments = typing.get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        fields = typing.get_type_hints(kind, include_extras=True)
        properties = {name: _schema(field) for name, field in fields.items()}
        return {"type": "object", "properties": properties, "required": list(fields), "additionalProperties": False}
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_schema(each) for each in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if kind is int:
        return {"type": "integer", "minimum": 0, "exclusiveMaximum": limit}
    return {"type": {str: "string", float: "number", bool: "boolean", type(None): "null"}[kind]}


def written() -> dict[Any, str]:
    """What each file should hold."""
    page = _MARKERS.sub(lambda match: match[1] + interface_table() + match[2], PAGE.read_text(encoding="utf-8"))
    return {PAGE: page, SCHEMA: json.dumps(manifest_schema(), indent=1) + "\n"}


@click.command()
@click.option("--check", is_flag=True, help="Only compare.")
def main(check: bool) -> None:
    for path, text in written().items():
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            raise click.ClickException(f"{path} is not what the code says; run python -m testing.bundle_page")


if __name__ == "__main__":
    main()
