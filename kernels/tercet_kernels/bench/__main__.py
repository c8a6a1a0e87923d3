"""Run the benchmarks: `python -m tercet_kernels.bench`."""

from tercet_kernels.bench.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
