"""Infrastructure shared by tests, campaigns and benchmarks. It imports the service and never the benchmarks."""
