"""Inline placeholder ops: what many layers repeat is traced once and substituted into each of them, so that tracing time does not grow
with depth."""

import onnx_ir as ir

DOMAIN = "janus"


def inline(model: ir.Model, word: str, body: ir.Model) -> None:
    """Every node `word` of our domain becomes the nodes of `body`, whose inputs and outputs are the node's, in order."""
    constants: dict[ir.Value | None, ir.Value | None] = {None: None}
    for name, value in body.graph.initializers.items():
        shared = ir.Value(name=f"{word}.{name}", shape=value.shape, type=value.type, const_value=value.const_value)
        model.graph.initializers[str(shared.name)] = constants[value] = shared
    for node in list(model.graph):
        if (node.domain, node.op_type) != (DOMAIN, word):
            continue
        values: dict[ir.Value | None, ir.Value | None] = {**constants, **dict(zip(body.graph.inputs, node.inputs, strict=True))}
        for inner in body.graph:
            inputs = [values[value] for value in inner.inputs]
            new = ir.Node(inner.domain, inner.op_type, inputs, inner.attributes.values(), num_outputs=len(inner.outputs))
            for value, made in zip(inner.outputs, new.outputs, strict=True):
                made.name, made.type, made.shape = f"{node.outputs[0].name}.{value.name}", value.type, value.shape
                values[value] = made
            model.graph.insert_before(node, new)
        for value, result in zip(node.outputs, body.graph.outputs, strict=True):
            output = values[result]
            assert output is not None
            output.name, value.name = value.name, None
            ir.convenience.replace_all_uses_with(value, output, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
    model.graph.opset_imports.pop(DOMAIN, None)
    model.graph.opset_imports[""] = max(model.graph.opset_imports[""], body.graph.opset_imports[""])
