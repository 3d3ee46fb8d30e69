"""python_peer.py ENGINE SCRATCH MODEL: a peer in Python, speaking the line protocol of README.md.
ENGINE is torch, torch-cuda, onnxruntime or onnxruntime-webgpu."""

import json
import os
import pathlib
import sys
import time

import numpy

HIDDEN = 384
BATCH = 32
PRODUCT = (4096, 384, 1536)  # W5: rows, inner, outer


def read_texts(path):
    return [[int(number) for number in line.split()] for line in path.read_text().splitlines()]


def in_padded_batches(texts, embed):
    """As sentence-transformers does it: sorted by length, longest first, 32 at a time, padded to the longest of the 32."""
    order = sorted(range(len(texts)), key=lambda text: -len(texts[text]))
    rows = numpy.empty((len(texts), HIDDEN), numpy.float32)
    for first in range(0, len(order), BATCH):
        members = order[first : first + BATCH]
        ids = numpy.zeros((len(members), len(texts[members[0]])), numpy.int64)
        mask = numpy.zeros_like(ids)
        for row, text in enumerate(members):
            ids[row, : len(texts[text])] = texts[text]
            mask[row, : len(texts[text])] = 1
        rows[members] = embed(ids, mask)
    return rows


def pool(hidden, mask):
    """The mean over the tokens of each text, normalised: their number cancels out."""
    import torch

    return torch.nn.functional.normalize((hidden * mask.unsqueeze(-1)).sum(1), dim=1)


class Torch:
    def __init__(self, device, scratch, model, threads):
        import torch
        from transformers import BertModel

        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("torch finds no CUDA device")
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.torch, self.device = torch, device
        self.model = BertModel.from_pretrained(scratch / "models" / model, add_pooling_layer=False).eval().to(device)
        rows, inner, outer = PRODUCT
        self.factors = torch.rand(rows, inner, device=device), torch.rand(inner, outer, device=device)
        self.version = f"torch {torch.__version__}"
        self.adapter = torch.cuda.get_device_name() if device == "cuda" else "CPU"

    def embed(self, ids, mask):
        ids, mask = (self.torch.from_numpy(numbers).to(self.device) for numbers in (ids, mask))
        return pool(self.model(input_ids=ids, attention_mask=mask).last_hidden_state, mask).cpu().numpy()

    def product(self):
        self.torch.mm(*self.factors)
        if self.device == "cuda":
            self.torch.cuda.synchronize()


class OnnxRuntime:
    def __init__(self, webgpu, scratch, model, threads):
        import onnxruntime

        provider = "WebGpuExecutionProvider" if webgpu else "CPUExecutionProvider"
        if provider not in onnxruntime.get_available_providers():
            raise RuntimeError(f"onnxruntime has no {provider}")
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.log_severity_level = 3
        # Shapes and the like stay on the CPU in any case.
        self.onnxruntime, self.providers = onnxruntime, list(dict.fromkeys([provider, "CPUExecutionProvider"]))
        self.session = self.open(scratch / "onnx" / (f"{model}.webgpu.onnx" if webgpu else f"{model}.onnx"))
        # Else the product of constants would be computed only once.
        self.product_session = self.open(scratch / "onnx" / "W5.onnx", disabled_optimizers=["ConstantFolding"])
        self.version = f"onnxruntime {onnxruntime.__version__}"
        self.adapter = "Dawn's first" if webgpu else "CPU"

    def open(self, path, **more):
        return self.onnxruntime.InferenceSession(path, self.options, providers=self.providers, **more)

    def embed(self, ids, mask):
        return self.session.run(None, {"input_ids": ids, "attention_mask": mask})[0]

    def product(self):
        self.product_session.run(None, {})


def open_peer(engine, scratch, model):
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count()))
    if engine.startswith("torch"):
        return Torch("cuda" if engine == "torch-cuda" else "cpu", scratch, model, threads)
    return OnnxRuntime(engine == "onnxruntime-webgpu", scratch, model, threads)


def run(peer, texts, file):
    begin = time.perf_counter()
    if texts is None:
        peer.product()
        return time.perf_counter() - begin
    rows = in_padded_batches(texts, peer.embed)
    seconds = time.perf_counter() - begin
    if file:
        rows.tofile(file)
    return seconds


def main():
    engine, scratch, model = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    try:
        peer = open_peer(engine, scratch, model)
    except RuntimeError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return
    print(json.dumps({"version": peer.version, "adapter": peer.adapter}), flush=True)
    for line in sys.stdin:
        _, workload, *file = line.split()
        try:
            texts = None if workload == "W5" else read_texts(scratch / "data" / f"{workload}.ids")
            answer = {"seconds": run(peer, texts, file[0] if file else None)}
        except Exception as error:  # whatever it is, the table says so and the run goes on
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
