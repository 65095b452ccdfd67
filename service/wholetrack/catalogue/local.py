"""Predicts partitions with the threads of this process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from wholetrack.catalogue.listed_file import ListedFile
from wholetrack.catalogue.manifest import Partition
from wholetrack.catalogue.predictor import FilePredictor
from wholetrack.catalogue.tables import Failed, Predicted

# While some threads decode, others copy files from the store.
_THREADS_PER_TRACK = 2


@dataclass(slots=True)
class PredictedPartition:
    """The results of a partition, in the order of its files."""

    index: int
    predicted: list[Predicted]
    failed: list[Failed]


@dataclass(slots=True)
class _Open:
    """A partition some of whose files have not been predicted."""

    partition: Partition
    outcomes: dict[int, Predicted | Failed] = field(default_factory=dict)

    def result(self) -> PredictedPartition | None:
        """Return the results; None if some are missing."""
        if len(self.outcomes) < len(self.partition.files):
            return None
        ordered = [self.outcomes[position] for position in range(len(self.outcomes))]
        return PredictedPartition(
            self.partition.index,
            [each for each in ordered if isinstance(each, Predicted)],
            [each for each in ordered if isinstance(each, Failed)],
        )


def predict_partitions(
    partitions: Iterable[Partition],
    predictor: FilePredictor,
    *,
    tracks_at_once: int,
    on_file: Callable[[bool], None] = lambda _: None,
) -> Generator[PredictedPartition]:
    """Predict partitions and yield their results as they are completed.

    The files of the next partition are begun while the last ones of a partition are being predicted, so that no
    processor waits for them. Closing the iterator ends the predictions in progress.

    Args:
        partitions: What to predict; read only as far as needed.
        predictor: Predicts a file.
        tracks_at_once: Number of tracks that are decoded at the same time.
        on_file: Called for each file that is done, with whether it was predicted.

    Raises:
        ResumableError: If a store or a device has failed.
    """
    n_threads = _THREADS_PER_TRACK * tracks_at_once
    running: dict[Future[Predicted | Failed], tuple[_Open, int]] = {}
    files = _files(partitions)
    with ThreadPoolExecutor(n_threads, thread_name_prefix="catalogue") as threads:
        try:
            while True:
                # As many again, so that no thread waits while this one commits a partition.
                while len(running) < 2 * n_threads and (following := next(files, None)):
                    opened, position, file = following
                    running[threads.submit(predictor.predict, file)] = opened, position
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    opened, position = running.pop(future)
                    opened.outcomes[position] = outcome = future.result()
                    on_file(isinstance(outcome, Predicted))
                    if result := opened.result():
                        yield result
        except BaseException:
            # The end of the block waits for the threads.
            predictor.cancel()
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _files(partitions: Iterable[Partition]) -> Iterator[tuple[_Open, int, ListedFile]]:
    for partition in partitions:
        opened = _Open(partition)
        for position, file in enumerate(partition.files):
            yield opened, position, file
