"""Write ``docs/scale.md`` from the recorded unit costs and the recorded simulation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.generated import check_files, generator_parser, write_files
from bench.markdown import paragraph
from bench.records import DOCS, Record, read_record
from bench.scale.recordings import ASSUMPTIONS, Costs
from bench.scale.unit_costs import MODELS
from wholetrack_training.results.markdown import markdown_table

PAGE = DOCS / "scale.md"
_TRACKS = 100_000_000
_ALONE_CORES = 64
# Prices on demand, in US dollars. They are assumptions: insert those of a provider.
_CORE_HOUR, _GPU_HOUR, _MILLION_REQUESTS = 0.04, 3.00, 0.40


@dataclass(frozen=True, slots=True)
class Plan:
    """A way to classify the catalogue.

    Attributes:
        model: Name of the model.
        cores: Cores per GPU; without a GPU, the cores of the simulation.
        has_gpu: Whether a GPU runs the network.
        figures: What the simulation found.
    """

    model: str
    cores: int
    has_gpu: bool
    figures: dict[str, float]

    @property
    def hours(self) -> float:
        """Time that such a group of cores would need for all tracks."""
        return _TRACKS / self.figures["tracks_per_s"] / 3600

    @property
    def dollars(self) -> float:
        """Price of the machines."""
        return self.hours * (self.cores * _CORE_HOUR + self.has_gpu * _GPU_HOUR)

    @property
    def bound(self) -> str:
        """The stage that limits the rate."""
        stages = {"link": self.figures["link_busy"], "GPU": self.figures["gpu_busy"]}
        busiest = max(stages, key=stages.__getitem__)
        return busiest if stages[busiest] > self.figures["cores_busy"] else "cores"


def plans_of(simulation: Record, model: str) -> list[Plan]:
    """Return all plans of a model: without a GPU, and with more and more cores per GPU."""
    alone = Plan(model, _ALONE_CORES, has_gpu=False, figures=simulation[model][f"{_ALONE_CORES}_cores_alone"])
    shared = simulation[model]["cores_per_gpu"]
    return [alone, *(Plan(model, int(cores), has_gpu=True, figures=figures) for cores, figures in shared.items())]


def page(costs: Record, simulation: Record) -> str:
    """Return the page."""
    lines = ["# Catalogues of millions"]
    lines += paragraph(
        "What a catalogue of 100 million tracks costs, and how many cores a GPU can serve. `python -m "
        "bench.scale.unit_costs --record` measures the costs, `python -m bench.scale.simulation --record` "
        "simulates the pipeline with them (with SimPy), and `python -m bench.scale.page` writes this page."
    )
    for section in (_unit_costs(costs), _assumptions(), _ratio(simulation), _plan(costs, simulation), _failures(costs)):
        lines += section
    return "\n".join(lines) + "\n"


def _unit_costs(record: Record) -> Iterable[str]:
    machine = record["machine"]
    yield from ("", "## Unit costs")
    yield from paragraph(
        f"For an hour of audio, measured on {record['date']} on one core ({machine['processor']}, ffmpeg "
        f"{machine['ffmpeg']}); the median of {record['cpu_s_per_hour']['service']['repeats']} runs by turns, with the "
        "smallest and the largest in parentheses. The service is the whole request for an mp3 over HTTP. The GPU was "
        "measured by hand with version 1 of the network (see [PERFORMANCE.md](PERFORMANCE.md#network-on-cuda)); its "
        "time for the default model is an estimate, by the ratio of the CPU times of both networks."
    )
    rows = [
        [
            stage.replace(" wholetrack", ", wholetrack"),
            f"{cost['median']:.1f} s ({cost['min']:.1f} to {cost['max']:.1f})",
        ]
        for stage, cost in record["cpu_s_per_hour"].items()
    ]
    for model in MODELS:
        costs = Costs.of(record, model)
        seconds = costs.windows * costs.gpu_window_s
        rows.append(
            [f"network on a GPU, {model}", f"{1000 * seconds:.0f} ms, and {1000 * costs.gpu_batch_s:.1f} ms a batch"]
        )
    yield ""
    yield from markdown_table(("stage", "time"), rows)
    yield from paragraph("What is moved:")
    moved = [[f"file, {codec}", f"{size:.0f} MB"] for codec, size in record["file_mb_per_hour"].items()]
    for model in MODELS:
        sizes, windows = record["bytes_per_window"][model], record["windows_per_hour"]
        moved.append([f"inputs of {model}", f"{windows * sizes['inputs'] / 1e6:.0f} MB"])
        moved.append([f"outputs of {model}", f"{windows * sizes['outputs'] / 1e6:.1f} MB"])
    yield ""
    yield from markdown_table(("data", "size for an hour"), moved)


def _assumptions() -> Iterable[str]:
    assumed = ASSUMPTIONS
    codecs = ", ".join(f"{share:.0%} {codec}" for codec, share in assumed.codecs.items())
    yield from ("", "## Assumptions")
    yield from paragraph(
        f"Durations are those of 768 recordings of free music, and {assumed.mixes:.1%} of all recordings are mixes of "
        f"one to three hours. {codecs}. {assumed.bad:.0%} of the files are refused at once, and one in "
        f"{1 / assumed.poison:,.0f} keeps a decoder busy for {assumed.poison_s:.0f} s. The store sends the first byte "
        f"after {1000 * assumed.fetch_latency_s:.0f} ms (the median of a log-normal distribution) and then "
        f"{assumed.fetch_bytes_per_s / 1e6:.0f} MB/s per connection; it refuses {assumed.throttled:.1%} of the "
        f"requests at first. A machine with a GPU receives {8 * assumed.link_bytes_per_s / 1e9:.0f} Gbit/s. Prices "
        f"in US dollars: {_CORE_HOUR} per core and hour, {_GPU_HOUR} per GPU and hour, {_MILLION_REQUESTS} per million "
        "requests to the store. None of these prices is a quotation."
    )


def _ratio(simulation: Record) -> Iterable[str]:
    yield from ("", "## Cores per GPU")
    yield from paragraph(
        f"{simulation['tracks']:,} simulated recordings each. The cores decode and compute the features. A stage "
        "that is busy for nearly all of the time limits the rate, and more cores are of no use then."
    )
    rows = []
    for model in MODELS:
        for plan in plans_of(simulation, model):
            figures = plan.figures
            rows.append(
                [
                    model,
                    f"{plan.cores}" if plan.has_gpu else f"{plan.cores}, without a GPU",
                    f"{figures['tracks_per_s']:.1f}",
                    f"{figures['cores_busy']:.0%}",
                    f"{figures['link_busy']:.0%}" if plan.has_gpu else "",
                    f"{figures['gpu_busy']:.0%}" if plan.has_gpu else "",
                    f"{plan.dollars / _TRACKS * 1e6:.2f}",
                ]
            )
    yield ""
    yield from markdown_table(
        (
            "model",
            "cores per GPU",
            "tracks per second",
            "cores busy",
            "link busy",
            "GPU busy",
            "dollars per million tracks",
        ),
        rows,
    )


def _plan(costs: Record, simulation: Record) -> Iterable[str]:
    yield from ("", f"## {_TRACKS // 1_000_000} million tracks")
    rows = [_plan_row(plan) for model in MODELS for plan in _choices(simulation, model)]
    yield from paragraph("Without a GPU, and with the number of cores per GPU that is the cheapest:")
    yield ""
    yield from markdown_table(("model", "machines", "core hours", "GPU hours", "bound by", "dollars"), rows)
    hours = float(np.mean(costs["durations_s"])) / 3600
    file_mb = sum(share * costs["file_mb_per_hour"][codec] for codec, share in ASSUMPTIONS.codecs.items()) * hours
    windows = costs["windows_per_hour"] * hours
    sent = {model: windows * costs["bytes_per_window"][model]["inputs"] / 1e6 for model in MODELS}
    default = MODELS[0]
    yield from paragraph(
        f"The files are {file_mb * _TRACKS / 1e6:,.0f} TB, {file_mb:.1f} MB each. Reading them once in a day needs "
        f"{file_mb * 8e6 * _TRACKS / 86_400 / 1e9:,.0f} Gbit/s from the store, and the requests cost "
        f"{_TRACKS / 1e6 * _MILLION_REQUESTS:,.0f} dollars; within the region of the store, the transfer is usually "
        f"free. The windows of {default} are {sent[default]:.0f} MB for each track, "
        f"{sent[default] / file_mb:.1f} times the file, so that a machine with a GPU should decode with cores of its "
        "own as far as it has them, and is better fed with files than with windows from other machines. The "
        f"windows of {MODELS[1]} are {sent[MODELS[1]]:.1f} MB."
    )


def _choices(simulation: Record, model: str) -> tuple[Plan, Plan]:
    """Return the plan without a GPU, and the cheapest one with GPUs."""
    alone, *shared = plans_of(simulation, model)
    return alone, min(shared, key=lambda plan: plan.dollars)


def _plan_row(plan: Plan) -> list[str]:
    machines = f"{plan.cores} cores per GPU" if plan.has_gpu else "cores only"
    gpu_hours = f"{plan.hours:,.0f}" if plan.has_gpu else ""
    return [plan.model, machines, f"{plan.hours * plan.cores:,.0f}", gpu_hours, plan.bound, f"{plan.dollars:,.0f}"]


def _failures(costs: Record) -> Iterable[str]:
    longest = costs["durations_s"][-1]
    yield from ("", "## What fails at this size")
    yield from paragraph(
        f"**Files of very different lengths.** The longest of the 768 recordings takes {longest:.0f} s, and mixes take "
        "hours. Work is divided by files, and each core fetches the next one when it has finished, so that a long file "
        "delays nothing else but the end of its own partition."
    )
    yield from paragraph(
        "**Files that crash or block the decoder.** Each decoder is a process in a sandbox with limits on its time and "
        "memory. Such a file is in the table of failures with its reason, and is not tried again."
    )
    yield from paragraph(
        "**A store that refuses requests.** They are repeated with increasing pauses. If the store refuses for longer, "
        "the run ends with an exit status of its own, and the same command continues it."
    )
    yield from paragraph(
        "**Machines that are taken away.** A partition is written at once when it is complete. Losing a machine "
        "repeats the partitions in progress there, half a partition for each on average. With partitions of a few "
        "minutes, and a loss of each machine once a day, that is less than one percent of the work."
    )


def files() -> dict[Path, str]:
    """Return the page with its path."""
    return {PAGE: page(read_record("unit_costs"), read_record("simulation"))}


def main() -> None:
    """Write the page, or check that it is up to date."""
    options = generator_parser(__doc__).parse_args()
    if options.check:
        check_files(files(), command="python -m bench.scale.page")
    else:
        write_files(files())


if __name__ == "__main__":
    main()
