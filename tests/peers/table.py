"""What run.py has measured, as Markdown."""

import statistics

from python_peer import PRODUCT, read_texts


def row(cells):
    return f"| {' | '.join(cells)} |"


def heading(cells):
    return [row(cells), row(["---"] * len(cells))]


def work(workload, data):
    """How much there is to do, and its unit."""
    if workload == "W5":
        rows, inner, outer = PRODUCT
        return 2 * rows * inner * outer / 1e9, "GFLOP/s"
    return len(read_texts(data / f"{workload}.ids")), "texts/s"


def speed(result, base, amount):
    """`amount` a second, its ratio to the base's, half the range of the times, their number."""
    if not result or not result["seconds"]:
        return "failed" if result and "error" in result else "-"
    seconds = result["seconds"]
    median = statistics.median(seconds)
    ratio = f"{statistics.median(base['seconds']) / median:.2f}x, " if base and base["seconds"] else ""
    spread = f"±{(max(seconds) - min(seconds)) / 2 / median:.0%} of {len(seconds)}" if len(seconds) > 1 else "1 run"
    return f"{amount / median:.3g} ({ratio}{spread})"


def table_of(model, workloads, names, data):
    base = names[0]
    units = [work(workload, data) for workload in workloads]
    lines = heading([model, *(f"{workload} {unit}" for workload, (_, unit) in zip(workloads, units)), "1 - cosine, at most"])
    for name in names:
        results = [workloads[workload].get(name) for workload in workloads]
        cells = [speed(result, workloads[w].get(base), amount) for result, w, (amount, _) in zip(results, workloads, units)]
        cosines = [result["cosine"] for result in results if result and "cosine" in result]
        lines.append(row([name, *cells, f"{1 - min(cosines):.0e}" if cosines else "-"]))
    return lines


def markdown(report, data):
    about, results = report["about"], report["results"]
    names = [name for name, peer in about.items() if "error" not in peer]
    lines = [
        f"{report['date']}, {report['processor']}, {report['cores']} cores, {report['threads']} threads; "
        f"load {report['load_before']:.1f} before and {report['load_after']:.1f} after, {report['minutes']:.0f} minutes.",
        f"In brackets: how many times as fast as {names[0]}, half the range of the runs' times, their number.",
        "",
        *heading(["peer", "version", "adapter"]),
        *(row([name, about[name]["version"], about[name]["adapter"]]) for name in names),
    ]
    for model, workloads in results.items():
        lines += ["", *table_of(model, workloads, names, data)]
    notes = [f"{name}: {peer['error']}" for name, peer in about.items() if "error" in peer]
    for model, workloads in results.items():
        for workload, peers in workloads.items():
            for name, result in peers.items():
                notes += [f"{name}, {model} {workload}: {result[why]}" for why in ("error", "left out") if why in result]
    return "\n".join(lines + [""] + [f"- {note[:300]}" for note in notes])
