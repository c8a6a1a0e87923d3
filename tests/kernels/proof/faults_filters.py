"""Faults of the filtering kernels: similarity, minhash, edit distance, audio statistics."""

from __future__ import annotations

from tests.kernels.proof.planting import Fault

DEVICE = "tests/kernels/device/"
NEAREST = DEVICE + "test_similarity_device.py::test_the_nearest_earlier_row_is_named[70-40-{}]"
PAIRS = DEVICE + "test_similarity_device.py::test_pairs_are_those_of_fp64[70-40-{}]"
TINY_TILES = DEVICE + "test_similarity_device.py::test_small_tiles_and_a_full_buffer_stay_in_bounds"
STRETCHES = "tests/kernels/test_similarity_fused.py::test_every_tile_of_the_triangle_is_visited_once"
DISTANCES = DEVICE + "test_edit_distance_device.py::test_distances_are_those_of_the_definition[9-torch.int32]"
DISTANCES_HERE = "tests/kernels/test_edit_distance.py::test_pairs_of_every_bucket_meet_in_one_batch"
SHINGLES = DEVICE + "test_minhash_device.py::test_shingle_hashes_are_exact[torch.uint8-5]"
SHINGLES_HERE = "tests/kernels/test_minhash_fused.py::test_shingle_hashes_are_exact"
LINES = DEVICE + "test_minhash_device.py::test_signatures_are_exact[datatrove-64-short]"
LINES_HERE = "tests/kernels/test_minhash_fused.py::test_counts_that_fill_no_block_are_exact"
ROUNDS = DEVICE + "test_minhash_device.py::test_signatures_are_exact[rensa-v2-short]"
ROUNDS_HERE = "tests/kernels/test_minhash_fused.py::test_signatures_are_exact[rensa-v2]"
AGREEMENT = DEVICE + "test_minhash_device.py::test_agreement_counts_equal_permutations[datatrove-64]"
AGREEMENT_HERE = "tests/kernels/test_minhash_fused.py::test_agreement_is_the_torch_path"
CLIPS = DEVICE + "test_audio_stats_device.py::test_statistics_match_the_fp64_definition[{}-64]"


def similarity(kernel: str, kind: str, what: str, old: str, new: str, *proofs: str, short: bool = False) -> Fault:
    """Give a fault of a similarity kernel."""
    return Fault(f"similarity.{kernel}", kind, what, "similarity/fused.py", old, new, proofs, short=short)


def minhash(kernel: str, kind: str, what: str, old: str, new: str, *proofs: str) -> Fault:
    """Give a fault of a MinHash kernel."""
    return Fault(f"minhash.{kernel}", kind, what, "minhash/fused.py", old, new, proofs)


def distance(kind: str, what: str, old: str, new: str, *proofs: str) -> Fault:
    """Give a fault of the edit-distance kernel."""
    return Fault("edit_distance.edit_distance_kernel", kind, what, "edit_distance/fused.py", old, new, proofs)


def audio(kind: str, what: str, old: str, new: str, *proofs: str, short: bool = False) -> Fault:
    """Give a fault of the audio kernel."""
    return Fault("audio_stats.frame_kernel", kind, what, "audio_stats/fused.py", old, new, proofs, short=short)


FP32 = "torch.float32"
FAULTS = (
    similarity(
        "earlier_max_kernel",
        "store mask",
        "keys past the last row are raised",
        'mask=(row < N) & (best > float("-inf"))',
        'mask=best >= float("-inf")',
        NEAREST.format(FP32),
    ),
    similarity(
        "earlier_max_kernel",
        "load mask",
        "rows past the end are read",
        "safe_row = tl.minimum(row, N - 1)",
        "safe_row = tl.minimum(row, N)",
        NEAREST.format(FP32),
    ),
    similarity(
        "earlier_max_kernel",
        "accumulation",
        "a row may be its own neighbour",
        "column[None, :] < row[:, None]",
        "column[None, :] <= row[:, None]",
        STRETCHES,
        NEAREST.format(FP32),
    ),
    similarity(
        "earlier_max_kernel",
        "race",
        "the maximum is stored, not raised by an atomic",
        'tl.atomic_max(key_ptr + row, key, mask=(row < N) & (best > float("-inf")), sem="relaxed")',
        'tl.store(key_ptr + row, key, mask=(row < N) & (best > float("-inf")))',
        TINY_TILES,
        NEAREST.format(FP32),
    ),
    similarity(
        "earlier_max_kernel",
        "bf16",
        "the sum is rounded to the rows' precision at each step",
        "total = tl.dot(left, tl.trans(right), total, input_precision=PRECISION)",
        "total = tl.dot(left, tl.trans(right), total, input_precision=PRECISION).to(left.dtype).to(tl.float32)",
        NEAREST.format("torch.bfloat16"),
    ),
    similarity(
        "pairs_above_kernel",
        "store mask",
        "pairs are stored past the buffer's end",
        "mask=is_near & (slot < capacity)",
        "mask=is_near",
        TINY_TILES,
    ),
    similarity(
        "pairs_above_kernel",
        "race",
        "the count is read, not raised by an atomic",
        'slot = tl.atomic_add(tl.broadcast_to(count_ptr, (BLOCK, BLOCK)), one, mask=is_near, sem="relaxed")',
        "slot = tl.load(tl.broadcast_to(count_ptr, (BLOCK, BLOCK)), mask=is_near, other=0) + one - one\n"
        "            tl.store(count_ptr, tl.load(count_ptr) + tl.sum(tl.sum(is_near.to(tl.int64), axis=1), axis=0))",
        TINY_TILES,
    ),
    similarity(
        "pairs_above_kernel",
        "load mask",
        "columns past the end are read",
        "safe_column = tl.minimum(column, N - 1)",
        "safe_column = tl.minimum(column, N)",
        PAIRS.format(FP32),
    ),
    similarity(
        "pairs_above_kernel",
        "accumulation",
        "each pair counts twice",
        "one = tl.full((BLOCK, BLOCK), 1, tl.int64)",
        "one = tl.full((BLOCK, BLOCK), 2, tl.int64)",
        STRETCHES,
    ),
    similarity(
        "pairs_above_kernel",
        "bf16",
        "the sum is rounded to the rows' precision at each step",
        "total = tl.dot(left, tl.trans(right), total, input_precision=PRECISION)",
        "total = tl.dot(left, tl.trans(right), total, input_precision=PRECISION).to(left.dtype).to(tl.float32)",
        PAIRS.format("torch.bfloat16"),
    ),
    distance(
        "store mask",
        "distances past the last pair are stored",
        "tl.where(short_length == 0, long_length, last).to(tl.int64), mask=inside)",
        "tl.where(short_length == 0, long_length, last).to(tl.int64))",
        DISTANCES,
    ),
    distance(
        "load mask",
        "tokens past a sequence's end are read",
        "is_token = inside[:, None] & (place < short_length[:, None])",
        "is_token = inside[:, None] & (place < short_length[:, None] + 9999)",
        DISTANCES,
    ),
    distance(
        "accumulation",
        "a row forgets its left neighbours",
        "next_row = tl.associative_scan(cost - column, 1, lesser) + column",
        "next_row = cost",
        DISTANCES_HERE,
    ),
    distance(
        "race",
        "programs store before their first pair",
        "tl.store(out_ptr + pair,",
        "tl.store(out_ptr + pair - tl.program_id(0),",
        DISTANCES,
    ),
    minhash(
        "shingle_kernel",
        "store mask",
        "hashes past a part's end are stored",
        "state.to(tl.int64, bitcast=True), mask=inside)",
        "state.to(tl.int64, bitcast=True))",
        SHINGLES,
    ),
    minhash(
        "shingle_kernel",
        "load mask",
        "bytes past the end are read",
        "unit = tl.load(units_ptr + shift + place + word + byte, mask=inside, other=0)",
        "unit = tl.load(units_ptr + shift + place + word + byte)",
        SHINGLES,
    ),
    minhash(
        "shingle_kernel",
        "accumulation",
        "a byte lands in the wrong place",
        "<< (8 * byte)",
        "<< (4 * byte)",
        SHINGLES_HERE,
    ),
    minhash(
        "shingle_kernel",
        "race",
        "programs store before their first shingle",
        "tl.store(out_ptr + place,",
        "tl.store(out_ptr + place - tl.program_id(0),",
        SHINGLES,
    ),
    minhash(
        "round_kernel",
        "store mask",
        "padding takes part in the minimum",
        'tl.atomic_min(least_ptr + row * P + bucket, rank, mask=inside, sem="relaxed")',
        'tl.atomic_min(least_ptr + row * P + bucket, rank, sem="relaxed")',
        ROUNDS_HERE,
    ),
    minhash(
        "round_kernel",
        "load mask",
        "hashes past a document's end are read",
        "mixed = mix(tl.load(hashes_ptr + place, mask=inside, other=0)",
        "mixed = mix(tl.load(hashes_ptr + place)",
        ROUNDS,
    ),
    minhash(
        "round_kernel",
        "race",
        "the minimum is stored, not taken by an atomic",
        'tl.atomic_min(least_ptr + row * P + bucket, rank, mask=inside, sem="relaxed")',
        "tl.store(least_ptr + row * P + bucket, rank, mask=inside)",
        ROUNDS,
    ),
    minhash(
        "round_kernel",
        "accumulation",
        "a round ranks as the one before",
        "rank = (mixed >> 34).to(tl.uint32) | (NUMBER << 30)",
        "rank = (mixed >> 34).to(tl.uint32)",
        ROUNDS_HERE,
    ),
    minhash(
        "line_kernel",
        "store mask",
        "permutations past the last are stored",
        'tl.atomic_min(least_ptr + row * P + column, least, mask=inside, sem="relaxed")',
        'tl.atomic_min(least_ptr + row * P + column, least, sem="relaxed")',
        LINES,
    ),
    minhash(
        "line_kernel",
        "load mask",
        "hashes past a document's end are read",
        "place = tl.minimum(first + tl.arange(0, BLOCK), end - 1)",
        "place = first + tl.arange(0, BLOCK)",
        LINES,
    ),
    minhash(
        "line_kernel",
        "accumulation",
        "the Mersenne fold forgets its carry",
        "value = tl.where(value >= 0x1FFFFFFFFFFFFFFF, value - 0x1FFFFFFFFFFFFFFF, value)",
        "value = value & 0x1FFFFFFFFFFFFFFF",
        "tests/kernels/test_minhash_fused.py::test_extreme_hashes_are_exact",
        LINES_HERE,
    ),
    minhash(
        "line_kernel",
        "race",
        "the minimum is stored, not taken by an atomic",
        'tl.atomic_min(least_ptr + row * P + column, least, mask=inside, sem="relaxed")',
        "tl.store(least_ptr + row * P + column, least, mask=inside)",
        DEVICE + "test_minhash_device.py::test_signatures_are_exact[datatrove-64-long]",
    ),
    minhash(
        "agreement_kernel",
        "store mask",
        "counts are stored past the last pair",
        "tl.store(count_ptr + pair, count.to(tl.int64), mask=inside)",
        "tl.store(count_ptr + pair, count.to(tl.int64))",
        AGREEMENT,
    ),
    minhash(
        "agreement_kernel",
        "accumulation",
        "padding counts as equal",
        "((one == other) & both)",
        "(one == other)",
        AGREEMENT_HERE,
    ),
    minhash(
        "agreement_kernel",
        "load mask",
        "permutations past the last are read",
        "other = tl.load(words_ptr + later[:, None] + column[None, :], mask=both, other=0)",
        "other = tl.load(words_ptr + later[:, None] + column[None, :])",
        AGREEMENT,
    ),
    minhash(
        "agreement_kernel",
        "race",
        "programs store before their first pair",
        "tl.store(count_ptr + pair,",
        "tl.store(count_ptr + pair - tl.program_id(0),",
        AGREEMENT,
    ),
    audio(
        "store mask",
        "a row is stored past the last frame",
        "tl.store(row + 4 * stride, tl.sum(crossings, axis=1), mask=inside)",
        "tl.store(row + 4 * stride, tl.sum(crossings, axis=1))",
        CLIPS.format(FP32).replace("-64]", "-600]"),
        short=True,
    ),
    audio(
        "load mask",
        "samples of the next clip are read",
        "here = inside[:, None] & (place < end[:, None])",
        "here = inside[:, None] & (place < end[:, None] + 1)",
        CLIPS.format(FP32),
    ),
    audio(
        "accumulation",
        "the last block of a frame is left out",
        "for first in range(0, frame, BLOCK):",
        "for first in range(0, frame - BLOCK, BLOCK):",
        CLIPS.format(FP32),
    ),
    audio(
        "race",
        "rows of one frame overlap",
        "stride = F.to(tl.int64)",
        "stride = F.to(tl.int64) // 2",
        CLIPS.format(FP32),
    ),
    audio(
        "bf16",
        "squares are taken in the samples' precision",
        "square += x * x",
        "square += (x * x).to(samples_ptr.dtype.element_ty).to(tl.float32)",
        CLIPS.format("torch.bfloat16"),
    ),
)
