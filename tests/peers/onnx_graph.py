"""Writes encoders as ONNX graphs of ONNX Runtime's own fused operators, the form that its optimizer for BERT aims at: the fastest that
it has."""

import json

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

FUSED = "com.microsoft"


class Graph:
    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, value):
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(numpy.ascontiguousarray(value), name))
        return name

    def add(self, operator, inputs, domain="", **attributes):
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], domain=domain, **attributes))
        return name

    def integers(self, *values):
        return self.constant(numpy.array(values, numpy.int64))


def write_encoder(folder, path, fused_attention):
    """[texts, tokens] of ids and a mask of 0 and 1 to [texts, hidden], normalised."""
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    epsilon, heads = config["layer_norm_eps"], config["num_attention_heads"]
    width = config["hidden_size"] // heads
    graph = Graph()

    def weight(name):
        return graph.constant(weights[f"{name}.weight"])

    def bias(name):
        return graph.constant(weights[f"{name}.bias"])

    def product(x, name):
        return graph.add("MatMul", [x, graph.constant(weights[f"{name}.weight"].T)])

    def add_and_norm(x, residual, dense, norm):
        inputs = [product(x, dense), residual, weight(norm), bias(norm), bias(dense)]
        return graph.add("SkipLayerNormalization", inputs, FUSED, epsilon=epsilon)

    # Scores of padding get -1e9: [texts, 1, tokens, tokens].
    mask = graph.add("Cast", ["attention_mask"], to=TensorProto.FLOAT)
    hidden_keys = graph.add("Mul", [graph.add("Sub", [mask, graph.constant(numpy.float32(1))]), graph.constant(numpy.float32(1e9))])
    texts = graph.add("Shape", ["input_ids"], start=0, end=1)
    tokens = graph.add("Shape", ["input_ids"], start=1, end=2)
    shape = graph.add("Concat", [texts, graph.integers(1), tokens, tokens], axis=0)
    scores = graph.add("Expand", [graph.add("Unsqueeze", [hidden_keys, graph.integers(1, 2)]), shape])

    def attention(*query_key_value):
        query, key, value = (
            graph.add("Transpose", [graph.add("Reshape", [part, graph.integers(0, 0, heads, width)])], perm=order)
            for part, order in zip(query_key_value, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
        )
        products = graph.add("Mul", [graph.add("MatMul", [query, key]), graph.constant(numpy.float32(width**-0.5))])
        shares = graph.add("Softmax", [graph.add("Add", [products, scores])], axis=-1)
        rows = graph.add("Transpose", [graph.add("MatMul", [shares, value])], perm=[0, 2, 1, 3])
        return graph.add("Reshape", [rows, graph.integers(0, 0, heads * width)])

    # Every token has the type 0: its row goes into the positions.
    positions = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    positions = graph.add("Slice", [graph.constant(positions), graph.integers(0), tokens, graph.integers(0)])
    words = graph.add("Gather", [weight("embeddings.word_embeddings"), "input_ids"])
    inputs = [graph.add("Add", [words, positions]), weight("embeddings.LayerNorm"), bias("embeddings.LayerNorm")]
    x = graph.add("LayerNormalization", inputs, epsilon=epsilon, axis=-1)

    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        parts = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
        if fused_attention:
            weight_qkv = graph.constant(numpy.concatenate([weights[f"{part}.weight"].T for part in parts], 1))
            bias_qkv = graph.constant(numpy.concatenate([weights[f"{part}.bias"] for part in parts]))
            attended = graph.add("Attention", [x, weight_qkv, bias_qkv, "", "", scores], FUSED, num_heads=heads)
        else:
            attended = attention(*(graph.add("Add", [product(x, part), bias(part)]) for part in parts))
        x = add_and_norm(attended, x, f"{layer}.attention.output.dense", f"{layer}.attention.output.LayerNorm")
        wide = f"{layer}.intermediate.dense"
        activated = graph.add("Gelu", [graph.add("Add", [product(x, wide), bias(wide)])], FUSED)
        x = add_and_norm(activated, x, f"{layer}.output.dense", f"{layer}.output.LayerNorm")

    # The number of tokens cancels out when the row is normalised.
    kept = graph.add("Mul", [x, graph.add("Unsqueeze", [mask, graph.integers(2)])])
    total = graph.add("ReduceSum", [kept, graph.integers(1)], keepdims=0)
    square = graph.add("ReduceSum", [graph.add("Mul", [total, total]), graph.integers(1)], keepdims=1)
    graph.nodes.append(helper.make_node("Div", [total, graph.add("Sqrt", [square])], ["embeddings"]))

    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "tokens"]) for name in ("input_ids", "attention_mask")]
    save(graph.nodes, inputs, ("embeddings", ["texts", config["hidden_size"]]), graph.constants, path)


def write_product(rows, inner, outer, path):
    """[rows, inner] x [inner, outer] of which only the first row is read back: the factors are in the file, so that they stay on the
    device, as with the other peers."""
    graph = Graph()
    factors = [graph.constant(numpy.full(shape, 0.5, numpy.float32)) for shape in ((rows, inner), (inner, outer))]
    product = graph.add("MatMul", factors)
    graph.nodes.append(helper.make_node("Slice", [product, graph.integers(0), graph.integers(1), graph.integers(0)], ["first_row"]))
    save(graph.nodes, [], ("first_row", [1, outer]), graph.constants, path)


def save(nodes, inputs, output, constants, path):
    outputs = [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])]
    graph = helper.make_graph(nodes, "peer", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(FUSED, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
