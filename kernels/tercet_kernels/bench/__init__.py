"""Benchmarks of the kernels: every operator against its peers, parity before time.

    python -m tercet_kernels.bench --device cuda --minutes 8 --out results

Needs torch, and triton for the kernels themselves; peft and matplotlib are used where they are present. The pieces:
`entries` says what a benchmark is, `registry` lists them in order of value, `runner` runs them within the time there
is, `timing` measures, `parity` holds each result against fp64, `report` writes, `compare` tells two runs apart.
"""
