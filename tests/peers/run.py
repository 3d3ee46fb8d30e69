"""Runs the same token ids and weights through minilm and its peers, interleaved, and prints Markdown tables; README.md has the rest.

    python run.py [--minutes 12] [--models L6,L12] [--workloads W1,W2,W3,W5] [--peers minilm,torch] [--threads 2] [--out results.json]
"""

import argparse
import atexit
import collections
import datetime
import json
import os
import pathlib
import platform
import select
import signal
import subprocess
import sys
import tempfile
import time

import numpy

import table
from python_peer import HIDDEN, read_texts

HERE = pathlib.Path(__file__).resolve().parent
MOST_RUNS = 15
FEWEST_SHORT_RUNS = 5  # of those below a second, however late it is
LONGEST_ANSWER = 900  # seconds, after which a peer is ended


def peer_list(scratch, model):
    """For each name the command, and the variables it needs."""
    python = [str(scratch / "venv/bin/python"), str(HERE / "python_peer.py")]
    folders = [str(scratch / "models" / model), str(scratch / "data")]
    rust = {name: [str(scratch / "rt/release" / f"peer-{name}"), *folders] for name in ("minilm", "burn", "candle")}
    llama = [str(scratch / "llama_peer"), str(scratch / "models" / f"{model}.gguf"), str(scratch / "data")]
    peers = {
        "minilm": (rust["minilm"], {}),
        "burn": (rust["burn"], {}),
        # Without it llama.cpp takes no software adapter.
        "llama.cpp": (llama, {"GGML_VK_VISIBLE_DEVICES": os.environ.get("GGML_VK_VISIBLE_DEVICES", "0")}),
        "onnxruntime-webgpu": ([*python, "onnxruntime-webgpu", str(scratch), model], {"PYTHONPATH": str(scratch / "webgpu")}),
    }
    driver = scratch / "mesa/driver.json"
    if driver.exists():  # onnxruntime-webgpu refuses the system's: minilm runs on this one too
        libraries = {"VK_DRIVER_FILES": str(driver), "LD_LIBRARY_PATH": str(driver.parent / "usr/lib/x86_64-linux-gnu")}
        peers["onnxruntime-webgpu"][1].update(libraries)
        peers["minilm-newer-driver"] = (rust["minilm"], libraries)
    peers["candle"] = (rust["candle"], {})
    for engine in ("onnxruntime", "torch", "torch-cuda"):
        peers[engine] = ([*python, engine, str(scratch), model], {})
    return peers


class Peer:
    """A process that answers requests, and stands still between them: no thread of it may spin while another peer is timed."""

    def __init__(self, command, variables, folder):
        self.errors = tempfile.TemporaryFile()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
        try:
            self.process = subprocess.Popen(command, env={**os.environ, **variables}, cwd=folder, bufsize=0, **pipes)
        except OSError as error:
            raise RuntimeError(f"it cannot be started: {error.strerror}") from None
        atexit.register(self.process.kill)  # one that stands still would outlive this program
        try:
            self.about = self.answer()
        except RuntimeError:
            self.end()
            raise

    def run(self, workload, file=""):
        """Seconds of one run."""
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(f"run {workload} {file}\n".encode())
        return self.answer()["seconds"]

    def answer(self):
        """The next line that is JSON; libraries print others."""
        line, deadline = b"", time.monotonic() + LONGEST_ANSWER
        while not line.startswith(b"{"):
            if not select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                self.end()
                raise RuntimeError(f"no answer within {LONGEST_ANSWER} s")
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError(self.last_words())
        self.process.send_signal(signal.SIGSTOP)
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(" ".join(answer["error"].split()))
        return answer

    def last_words(self):
        code = self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").split("\n")
        return f"ended with {code}: " + next((line.strip() for line in reversed(lines) if line.strip()), "no message")

    def alive(self):
        return self.process.poll() is None

    def end(self):
        self.process.kill()
        self.process.wait()


def smallest_cosine(path, reference):
    rows, expected = (numpy.fromfile(file, numpy.float32).reshape(-1, HIDDEN).astype(float) for file in (path, reference))
    norms = numpy.linalg.norm(rows, axis=1) * numpy.linalg.norm(expected, axis=1)
    return float(((rows * expected).sum(1) / norms).min())


def measure(peers, workload, reference, deadline, expected):
    """One run of each peer to warm up, whose rows are compared; then rounds of all peers. Each gets at least one run that counts, but for
    those that are expected to take more than their share; the first, which the others are compared with, is never left out."""
    results = {name: {"seconds": []} for name in peers}
    longest = max(1, (deadline - time.monotonic()) / 3)
    for name, result in results.items():
        if expected[name] > longest and name != next(iter(peers)):
            result["left out"] = f"a run would take about {expected[name]:.0f} s"
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                result["first"] = peers[name].run(workload, f"{folder}/rows")
                if workload != "W5":
                    result["cosine"] = smallest_cosine(f"{folder}/rows", reference)
            except (RuntimeError, OSError) as error:
                result["error"] = str(error)
    going = True
    while going:
        going = False
        for name, result in results.items():
            seconds = result["seconds"]
            short = seconds and seconds[-1] < 1 and len(seconds) < FEWEST_SHORT_RUNS
            late = seconds and time.monotonic() + seconds[-1] > deadline and not short
            if late or "first" not in result or "error" in result or len(seconds) == MOST_RUNS:
                continue
            try:
                seconds.append(peers[name].run(workload))
                going = True
            except (RuntimeError, OSError) as error:
                result["error"] = str(error)
    return results


def open_peers(scratch, model, names, about):
    peers = {}
    for name, (command, variables) in peer_list(scratch, model).items():
        if name in names:
            try:
                peers[name] = Peer(command, variables, scratch)
                about[name] = peers[name].about
                if name in ("llama.cpp", "onnxruntime-webgpu"):  # these cannot tell
                    about[name]["adapter"] += f", driver as {'minilm-newer-driver' if 'VK_DRIVER_FILES' in variables else 'minilm'}"
            except RuntimeError as error:
                about[name] = {"error": str(error)}
    return peers


def measure_all(options, about):
    """{model: {workload: {peer: result}}}; W5 has no model, and goes with the first."""
    cells = [(model, workload) for model in options.models for workload in options.workloads]
    cells = [cell for cell in cells if cell[1] != "W5" or cell[0] == options.models[0]]
    results = {model: {} for model in options.models}
    costs = collections.defaultdict(float)  # seconds for a token and layer
    end = time.monotonic() + 60 * options.minutes
    model, peers = None, {}
    for i, (name, workload) in enumerate(cells):
        if name != model or not all(peer.alive() for peer in peers.values()):  # one that has ended gets another chance
            close(peers)
            model, peers = name, open_peers(options.scratch, name, options.peers, about)
        now = time.monotonic()
        deadline = now + (end - now) * share(cells[i]) / sum(map(share, cells[i:]))
        print(f"{model} {workload}: {deadline - now:.0f} s", file=sys.stderr)
        amount = token_layers(options.scratch, model, workload)
        expected = {peer: costs[peer] * amount for peer in peers}
        reference = options.scratch / "data" / f"{model}.{workload}.f32"
        results[model][workload] = measure(peers, workload, reference, deadline, expected)
        for peer, result in results[model][workload].items():
            if workload not in ("W1", "W5") and "first" in result:
                costs[peer] = result["first"] / amount  # with all that a peer does for a shape that is new to it
    close(peers)
    return results


def share(cell):
    """What a cell of the tables gets of the time."""
    model, workload = cell
    return {"W1": 1, "W2": 3, "W3": 10, "W4": 10}[workload] * layers(model) if workload != "W5" else 12


def layers(model):
    return int(model[1:])


def token_layers(scratch, model, workload):
    return 0 if workload == "W5" else layers(model) * sum(map(len, read_texts(scratch / "data" / f"{workload}.ids")))


def close(peers):
    for peer in peers.values():
        peer.end()


def processor():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor() or platform.machine())


def commit():
    """Which minilm this is; the programs may still be older: setup.sh builds them."""
    describe = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True)
    return describe.stdout.strip() or "of no commit"


def options_of_caller():
    scratch = pathlib.Path(os.environ.get("PEERS", HERE / "../../target/peers")).resolve()
    words = lambda text: text.split(",")
    parser = argparse.ArgumentParser(description="Runs minilm and its peers interleaved and prints Markdown tables.")
    parser.add_argument("--minutes", type=float, default=12, help="about how long it may take; slow peers get fewer runs, at least one")
    parser.add_argument("--models", type=words, default=["L6", "L12"])
    parser.add_argument("--workloads", type=words, default=["W1", "W2", "W3", "W5"], help="of W1, W2, W3, W4, W5")
    parser.add_argument("--peers", type=words, default=list(peer_list(scratch, "L6")), help="of those in peer_list")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of peers on the CPU, and of Mesa's software driver")
    parser.add_argument("--out", type=pathlib.Path, default=scratch / "results.json", help="every time of every run")
    options = parser.parse_args()
    options.scratch = scratch
    return options


def main():
    options = options_of_caller()
    threads = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "LP_NUM_THREADS"), str(options.threads))
    os.environ.update(threads, HF_HUB_OFFLINE="1")
    os.environ.setdefault("XDG_RUNTIME_DIR", str(options.scratch))
    begin, load = time.monotonic(), os.getloadavg()[0]
    report = {"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "processor": processor(), "about": {}}
    report |= {"cores": os.cpu_count(), "threads": options.threads, "load_before": load}
    report["results"] = measure_all(options, report["about"])
    for name in report["about"]:
        if name.startswith("minilm") and "version" in report["about"][name]:
            report["about"][name]["version"] += f" {commit()}"
    report |= {"load_after": os.getloadavg()[0], "minutes": (time.monotonic() - begin) / 60}
    options.out.write_text(json.dumps(report, indent=1))
    print(table.markdown(report, options.scratch / "data"))


if __name__ == "__main__":
    main()
