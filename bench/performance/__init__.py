"""``docs/PERFORMANCE.md``, its pictures and ``docs/performance.json``, from the records of the benchmarks."""
