"""Filter operators against their counterparts in torch and on the CPU: similarity, minhash, edit distance, audio.

A result is exact or has the operator's own error bar; it is held against the definition in fp64, or in Python, on rows
spread over the batch. Times are whole calls of the public functions, argument checks included: that is what a
pipeline pays.
Shapes: N rows, D features; B pairs, L tokens; T rows tested.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tercet_kernels.audio_stats import AudioStats, audio_stats
from tercet_kernels.audio_stats.reference import audio_stats_reference
from tercet_kernels.bench.entries import Case, Parity, Provider, Traffic, triton_obstacle
from tercet_kernels.bench.parity import spread_rows
from tercet_kernels.edit_distance import edit_distance
from tercet_kernels.edit_distance.reference import distance_reference
from tercet_kernels.minhash import permutations, shingle_hashes, signatures
from tercet_kernels.minhash.reference import shingle_hashes_reference, signatures_reference
from tercet_kernels.similarity import earlier_max, pairs_above

RATE = 16_000
FRAME_SECONDS, BELOW_DB = 0.02, 40.0
NUM_PERMUTATIONS, SHINGLE = 128, 5
THRESHOLD = 0.9
FEW = 16  # rows whose reference runs in Python
# of a cosine: the kernel's band for a dot product, twice (similarity/rows.py), at 768 features; the second for products
# rounded to 16 bits
COSINE_BAR, ROUNDED_COSINE_BAR = 4e-4, 1e-2


def filter_cases(device: torch.device, *, tiny: bool = False, dtype: torch.dtype | None = None) -> list[Case]:
    """Return one case of each filter operator, in order of value; `dtype` is that of embeddings."""
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
    return [
        similarity_case(*((200, 32) if tiny else (100_000, 768)), dtype, device),
        pairs_case(*((200, 32) if tiny else (100_000, 768)), dtype, device),
        minhash_case(*((12, 60) if tiny else (2_000, 3_000)), device),
        audio_case(*((4, 2_000) if tiny else (64, 30 * RATE)), device),
        edit_case(*((40, 12) if tiny else (100_000, 32)), device),
    ]


def similarity_case(rows: int, features: int, dtype: torch.dtype, device: torch.device) -> Case:
    """Return each row's nearest earlier row: m rows, k features."""
    return Case(
        operator="earlier_max", shape=f"{rows}x{features}", m=rows, k=features, n="", dtype=dtype,
        arguments=functools.partial(make_rows, rows, features, dtype),
        providers=(
            _plain("full_rectangle", full_rectangle, functools.partial(check_max, bar=ROUNDED_COSINE_BAR, least=0.0)),
            _plain("tercet_triton", lambda x_ND: earlier_max(x_ND, path="triton"), check_max, triton_obstacle(device)),
            _plain("tercet_torch", lambda x_ND: earlier_max(x_ND, path="torch"), check_max),
        ),
        baseline="full_rectangle",
        traffic=lambda _provider, _mode: Traffic(rows * features * dtype.itemsize + 12 * rows),
        flops={"call": float(rows) ** 2 * features},
        argument_bytes=rows * features * dtype.itemsize,
    )  # fmt: skip


def pairs_case(rows: int, features: int, dtype: torch.dtype, device: torch.device) -> Case:
    """Return all pairs over a threshold: m rows, k features."""
    return Case(
        operator="pairs_above", shape=f"{rows}x{features}", m=rows, k=features, n="", dtype=dtype,
        arguments=functools.partial(make_rows, rows, features, dtype),
        providers=(
            _plain("tercet_torch", lambda x_ND: pairs_above(x_ND, THRESHOLD, path="torch"), check_pairs),
            _plain(
                "tercet_triton", lambda x_ND: pairs_above(x_ND, THRESHOLD, path="triton"), check_pairs,
                triton_obstacle(device),
            ),
        ),
        baseline="tercet_torch",
        traffic=lambda _provider, _mode: Traffic(rows * features * dtype.itemsize),
        flops={"call": float(rows) ** 2 * features},
        argument_bytes=rows * features * dtype.itemsize,
    )  # fmt: skip


def make_rows(rows: int, features: int, dtype: torch.dtype, device: torch.device, seed: int) -> Tensor:
    """Draw embeddings, every tenth a near copy of the row ten before it."""
    generator = torch.Generator(device).manual_seed(seed)
    x_ND = torch.randn(rows, features, generator=generator, device=device)
    noise_ND = torch.randn(x_ND[10::10].shape, generator=generator, device=device)
    x_ND[10::10] = x_ND[: rows - 10 : 10][: len(noise_ND)] + 0.1 * noise_ND
    return x_ND.to(dtype)


def full_rectangle(x_ND: Tensor, block: int = 1024) -> tuple[Tensor, Tensor]:
    """Take maxima of the whole matrix of cosines, a block of columns at a time, as NeMo Curator's pairwise stage does.

    A maximum is at least 0, the value of what it masks.
    """
    units_ND = torch.nn.functional.normalize(x_ND, dim=1)
    values, places = [], []
    for start in range(0, x_ND.shape[0], block):
        dots_NB = units_ND @ units_ND[start : start + block].T
        best = dots_NB.triu(1 - start).max(dim=0)
        values.append(best.values)
        places.append(best.indices)
    return torch.cat(values), torch.cat(places)


def check_max(
    run: Callable[[Tensor], tuple[Tensor, Tensor]], x_ND: Tensor, bar: float = COSINE_BAR, least: float = -1.0
) -> Parity:
    """Compare the largest cosines with fp64, on spread rows; row 0 has no earlier row."""
    rows_T, cosines_TN = _exact_cosines(x_ND)
    right_T = cosines_TN.masked_fill(_not_earlier(rows_T, x_ND), -1).amax(dim=1).clamp(min=least)
    got_T = run(x_ND)[0][rows_T].double()
    return Parity(float((got_T - right_T).abs().max()), bar, "cosine")


def check_pairs(run: Callable[[Tensor], tuple[Tensor, Tensor]], x_ND: Tensor) -> Parity:
    """Count the pairs missed or made up among those whose later row is tested; none may be."""
    rows_T, cosines_TN = _exact_cosines(x_ND)
    near_TN = (cosines_TN >= THRESHOLD) & ~_not_earlier(rows_T, x_ND)
    wanted = {(int(earlier), int(rows_T[later])) for later, earlier in near_TN.nonzero().tolist()}
    pairs_P2 = run(x_ND)[0]
    got = {(earlier, later) for earlier, later in pairs_P2[torch.isin(pairs_P2[:, 1], rows_T)].tolist()}
    return Parity(float(len(wanted ^ got)), 0.0, f"pairs of {len(wanted)}")


def _exact_cosines(x_ND: Tensor) -> tuple[Tensor, Tensor]:
    rows_T = spread_rows(x_ND.shape[0], x_ND.device)[1:]
    units_ND = torch.nn.functional.normalize(x_ND.double(), dim=1)
    return rows_T, units_ND[rows_T] @ units_ND.T


def _not_earlier(rows_T: Tensor, x_ND: Tensor) -> Tensor:
    return torch.arange(x_ND.shape[0], device=x_ND.device)[None, :] >= rows_T[:, None]


@dataclass(frozen=True)
class Ragged:
    """Values of all rows end to end, and where each begins; the same on the host, for its libraries."""

    flat: Tensor
    offsets: Tensor
    host_flat: Tensor
    host_offsets: Tensor

    @classmethod
    def of(cls, flat: Tensor, lengths: Tensor) -> Ragged:
        """Build both copies from lengths on the device."""
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        return cls(flat, offsets, flat.cpu(), offsets.cpu())


Pair = tuple[Ragged, Ragged]


def minhash_case(documents: int, length: int, device: torch.device) -> Case:
    """Sign documents of bytes: m documents, k bytes of each, n permutations."""
    units = documents * length
    return Case(
        operator="minhash", shape=f"{documents}x{length}", m=documents, k=length, n=str(NUM_PERMUTATIONS),
        dtype=torch.uint8,
        arguments=functools.partial(make_documents, documents, length),
        providers=(
            _plain("torch", sign_by_torch, check_signatures),
            _plain("tercet_triton", sign_by_triton, check_signatures, triton_obstacle(device)),
            _plain("rensa", sign_on_host, check_signatures, _missing("rensa")),
        ),
        baseline="torch",
        # bytes in, 64-bit hashes out and in again, signatures out
        traffic=lambda _provider, _mode: Traffic(17 * units + 4 * documents * NUM_PERMUTATIONS),
        argument_bytes=units,
    )  # fmt: skip


def make_documents(documents: int, length: int, device: torch.device, seed: int) -> Ragged:
    """Draw letters."""
    generator = torch.Generator(device).manual_seed(seed)
    flat = torch.randint(97, 123, (documents * length,), generator=generator, device=device, dtype=torch.uint8)
    return Ragged.of(flat, torch.full((documents,), length, dtype=torch.int64, device=device))


def sign_by_triton(documents: Ragged) -> Tensor:
    """Hash and sign on the device."""
    hashes, edges = shingle_hashes(documents.flat, documents.offsets, SHINGLE, path="triton")
    return signatures(hashes, edges, permutations(NUM_PERMUTATIONS), path="triton")


def sign_by_torch(documents: Ragged) -> Tensor:
    """Hash and sign by the definition, document by document on the device."""
    hashes, edges = shingle_hashes_reference(documents.flat, documents.offsets, SHINGLE)
    return signatures_reference(hashes, edges, permutations(NUM_PERMUTATIONS))


def sign_on_host(documents: Ragged) -> Tensor:
    """Hash and sign on the CPU, by rensa."""
    hashes, edges = shingle_hashes(documents.host_flat, documents.host_offsets, SHINGLE, path="torch")
    return signatures(hashes, edges, permutations(NUM_PERMUTATIONS), path="torch")


def check_signatures(run: Callable[[Ragged], Tensor], documents: Ragged) -> Parity:
    """Count the documents whose signature isn't the definition's; none may be."""
    got = run(documents).cpu()
    few = spread_rows(len(documents.host_offsets) - 1, torch.device("cpu"), FEW)
    wrong = 0
    for document in few.tolist():
        start, end = documents.host_offsets[document : document + 2].tolist()
        one = torch.tensor([0, end - start])
        hashes, edges = shingle_hashes_reference(documents.host_flat[start:end], one, SHINGLE)
        wrong += not torch.equal(signatures_reference(hashes, edges, permutations(NUM_PERMUTATIONS))[0], got[document])
    return Parity(float(wrong), 0.0, f"signatures of {len(few)}")


def audio_case(clips: int, samples: int, device: torch.device) -> Case:
    """Measure clips: m clips, k samples of each."""

    def on_device(audio: Ragged, path: str) -> AudioStats:
        return audio_stats(audio.flat, audio.offsets, RATE, path=path)

    def on_host(audio: Ragged) -> AudioStats:
        return audio_stats(audio.host_flat, audio.host_offsets, RATE, path="torch")

    return Case(
        operator="audio_stats", shape=f"{clips}x{samples}", m=clips, k=samples, n="", dtype=torch.float32,
        arguments=functools.partial(make_audio, clips, samples),
        providers=(
            _plain("torch", stats_by_torch, check_stats),
            _plain("tercet_triton", lambda audio: on_device(audio, "triton"), check_stats, triton_obstacle(device)),
            _plain("tercet_host", on_host, check_stats, _missing("numpy")),
        ),
        baseline="torch",
        traffic=lambda _provider, _mode: Traffic(4 * clips * samples),
        argument_bytes=4 * clips * samples,
    )  # fmt: skip


def make_audio(clips: int, samples: int, device: torch.device, seed: int) -> Ragged:
    """Draw noise in tenths of a second that are loud, or 60 dB lower: no frame lies near the limit of silence."""
    generator = torch.Generator(device).manual_seed(seed)
    sound = 0.2 * torch.randn(clips, samples, generator=generator, device=device).clamp_(-4.9, 4.9)
    blocks = torch.rand(clips, -(-samples // 1600), generator=generator, device=device) < 0.3
    sound *= torch.where(blocks, 1e-3, 1.0).repeat_interleave(1600, dim=1)[:, :samples]
    return Ragged.of(sound.reshape(-1), torch.full((clips,), samples, dtype=torch.int64, device=device))


def stats_by_torch(audio: Ragged) -> AudioStats:
    """Measure by the definition, clip by clip on the device."""
    frame = round(FRAME_SECONDS * RATE)
    return audio_stats_reference(audio.flat, audio.offsets, RATE, frame, BELOW_DB)


def check_stats(run: Callable[[Ragged], AudioStats], audio: Ragged) -> Parity:
    """Compare the first clips with the definition in fp64; a bar for frames summed in fp32."""
    got = vars(run(audio))
    clips = min(4, len(audio.offsets) - 1)
    edges = audio.host_offsets[: clips + 1]
    frame = round(FRAME_SECONDS * RATE)
    right = vars(audio_stats_reference(audio.host_flat[: edges[-1]], edges, RATE, frame, BELOW_DB))
    error = {
        name: float(((got[name][:clips].cpu() - value).abs() / value.abs().clamp_min(1)).max())
        for name, value in right.items()
    }
    what = max(error, key=lambda name: error[name])
    return Parity(error[what], 1e-4, what)


def edit_case(pairs: int, longest: int, device: torch.device) -> Case:
    """Compare token sequences of up to k tokens: m pairs."""

    def by(path: str) -> Callable[[Any], Tensor]:
        return lambda both: edit_distance((both[0].flat, both[0].offsets), (both[1].flat, both[1].offsets), path=path)

    return Case(
        operator="edit_distance", shape=f"{pairs}x{longest}", m=pairs, k=longest, n="", dtype=torch.int64,
        arguments=functools.partial(make_pairs, pairs, longest),
        providers=(
            _plain("torch_rows", lambda both: distances_by_rows(both[0], both[1], longest), check_distances),
            _plain("tercet_triton", by("triton"), check_distances, triton_obstacle(device)),
            _plain("rapidfuzz", by("torch"), check_distances, _missing("rapidfuzz") or _missing("numpy")),
        ),
        baseline="torch_rows",
        traffic=lambda _provider, _mode: Traffic(8 * pairs * longest + 8 * pairs),  # half the longest, twice
        argument_bytes=8 * pairs * longest,
    )  # fmt: skip


def make_pairs(pairs: int, longest: int, device: torch.device, seed: int) -> Pair:
    """Draw pairs of sequences of 0 to `longest` tokens out of few, so that many match."""
    generator = torch.Generator(device).manual_seed(seed)
    both = []
    for _ in range(2):
        lengths = torch.randint(longest + 1, (pairs,), generator=generator, device=device)
        flat = torch.randint(8, (int(lengths.sum()),), generator=generator, device=device)
        both.append(Ragged.of(flat, lengths))
    return both[0], both[1]


def distances_by_rows(a: Ragged, b: Ragged, longest: int) -> Tensor:
    """Fill the table of every pair row by row in torch: d[i, j] = j + min over k <= j of (best[k] - k)."""
    a_BL, b_BL = _padded(a, longest, -1), _padded(b, longest, -2)
    place_L1 = torch.arange(longest + 1, device=a_BL.device)
    row_BL1 = place_L1.expand(len(a_BL), -1)
    last_B, length_B = b.offsets.diff()[:, None], a.offsets.diff()
    found_B = row_BL1.gather(1, last_B)[:, 0]
    for i in range(longest):
        best_BL1 = torch.cat([row_BL1[:, :1] + 1, torch.minimum(row_BL1[:, 1:] + 1,
                              row_BL1[:, :-1] + (a_BL[:, i : i + 1] != b_BL))], dim=1)  # fmt: skip
        row_BL1 = place_L1 + (best_BL1 - place_L1).cummin(dim=1).values
        found_B = torch.where(length_B == i + 1, row_BL1.gather(1, last_B)[:, 0], found_B)
    return found_B


def check_distances(run: Callable[[Pair], Tensor], both: Pair) -> Parity:
    """Count the pairs whose distance isn't the definition's; none may be."""
    got = run(both).cpu()
    few = spread_rows(len(got), torch.device("cpu"), FEW).tolist()
    wrong = sum(distance_reference(*(_sequence(side, pair) for side in both)) != int(got[pair]) for pair in few)
    return Parity(float(wrong), 0.0, f"distances of {len(few)}")


def _sequence(side: Ragged, row: int) -> list[int]:
    start, end = side.host_offsets[row : row + 2].tolist()
    tokens: list[int] = side.host_flat[start:end].tolist()
    return tokens


def _padded(side: Ragged, longest: int, filler: int) -> Tensor:
    out_BL = torch.full((len(side.offsets) - 1, longest), filler, dtype=torch.int64, device=side.flat.device)
    inside_BL = torch.arange(longest, device=side.flat.device)[None, :] < side.offsets.diff()[:, None]
    out_BL[inside_BL] = side.flat
    return out_BL


def _plain(name: str, run: Callable[[Any], Any], check: Callable[..., Parity], obstacle: str = "") -> Provider:
    """Return a provider that is one call; it waits for the device, so no graph can hold it."""
    return Provider(
        name,
        lambda arguments: check(run, arguments),
        lambda arguments: {"call": lambda: run(arguments)},
        obstacle,
        captures=False,
    )


def _missing(package: str) -> str:
    return "" if importlib.util.find_spec(package) else f"{package} isn't installed; run: pip install {package}"
