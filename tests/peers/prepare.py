"""prepare.py SCRATCH: writes what all peers read, from the weights in SCRATCH/models/L6.

data/W*.ids            workloads: a text a line, token ids between blanks
models/L12             an encoder of 12 layers with seeded random weights
onnx/L6.onnx, ...      the encoders, and the product of W5
data/L6.W1.f32, ...    what PyTorch makes of them in f64: the reference of the cosines
"""

import math
import pathlib
import random
import shutil
import sys

import torch
from transformers import BertConfig, BertModel

import onnx_graph
from python_peer import PRODUCT, in_padded_batches, pool, read_texts

FIRST_TOKEN, LAST_TOKEN, WORDS = 101, 102, range(1996, 29612)  # [CLS], [SEP] and words and pieces of BERT's English vocabulary


def mixed(texts, seed):
    """Log-normal with a median of 28 and a sigma of 0.9, within 5 and 256: what sentences and paragraphs look like."""
    source = random.Random(seed)
    return [min(256, max(5, round(math.exp(math.log(28) + 0.9 * source.gauss(0, 1))))) for _ in range(texts)]


def write_workloads(folder):
    source = random.Random(7)
    lengths = {"W1": [12], "W2": [source.randint(28, 36) for _ in range(32)], "W3": mixed(256, 20261123), "W4": [512] * 16}
    for name, workload in lengths.items():
        texts = [[FIRST_TOKEN, *source.choices(WORDS, k=length - 2), LAST_TOKEN] for length in workload]
        (folder / f"{name}.ids").write_text("".join(" ".join(map(str, text)) + "\n" for text in texts))


def write_random_model(like, folder):
    torch.manual_seed(12)
    sizes = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 1536}
    model = BertModel(BertConfig(vocab_size=30522, initializer_range=0.05, **sizes))
    for name, parameter in model.named_parameters():  # away from 0 and 1, so that one that a peer drops shows
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, 0, 0.05)
        elif "LayerNorm.weight" in name:
            torch.nn.init.normal_(parameter, 1, 0.1)
    shutil.copytree(like, folder, dirs_exist_ok=True)  # tokenizer and pooling
    model.save_pretrained(folder)


def write_reference(model, workloads, path):
    model = BertModel.from_pretrained(model, add_pooling_layer=False, dtype=torch.float64).eval()

    def embed(ids, mask):
        mask = torch.from_numpy(mask)
        return pool(model(input_ids=torch.from_numpy(ids), attention_mask=mask).last_hidden_state, mask).numpy()

    with torch.inference_mode():
        in_padded_batches(read_texts(workloads), embed).tofile(path)


def main():
    scratch = pathlib.Path(sys.argv[1])
    models, data, graphs = (scratch / name for name in ("models", "data", "onnx"))
    data.mkdir(exist_ok=True)
    graphs.mkdir(exist_ok=True)
    write_workloads(data)
    write_random_model(models / "L6", models / "L12")
    onnx_graph.write_product(*PRODUCT, graphs / "W5.onnx")
    for model in ("L6", "L12"):
        onnx_graph.write_encoder(models / model, graphs / f"{model}.onnx", fused_attention=True)
        # On Mesa's software driver the fused one of WebGPU is wrong: cosines of 0.99.
        onnx_graph.write_encoder(models / model, graphs / f"{model}.webgpu.onnx", fused_attention=False)
        for workload in ("W1", "W2", "W3", "W4"):
            write_reference(models / model, data / f"{workload}.ids", data / f"{model}.{workload}.f32")


if __name__ == "__main__":
    main()
