"""The Triton kernels of the four steps; `launch.py` gives them shapes and memory.

K1 `lora_down` reads x once for all members; K2b `lora_up_init` writes the small term that the base GEMM then
accumulates onto, K2 `lora_gemm` is that GEMM with the small term in its epilogue; K3 `lora_bwd_s` reads dY once, K4b
`lora_bwd_xa` reads x once; K6 `reduce_partials` sums what the programs of K3 and K4b left, in a fixed order. No mask is
read or written: Philox makes it again. No floating-point atomics: equal runs give equal bits.

Shapes: M rows, K inputs, N outputs, R rank, padded to P columns (a power of two, at least 16: `tl.dot` contracts no
fewer). Up to three members share x; their s and ds lie side by side in (M, G * P).
"""

import triton
import triton.language as tl


@triton.jit
def keep_16(seed, member, rows, first_column, groups, p16, BK: tl.constexpr):
    """Return which of BK columns from `first_column` on stay, per row: one Philox call for 8 lanes of 16 bits.

    The counter is the element's place, so that any tiling makes the same mask: see `tercet_kernels.philox.keep_mask`.
    """
    place = rows[:, None].to(tl.int64) * groups + (first_column // 8 + tl.arange(0, BK // 8))[None, :]
    low = (place & 0xFFFFFFFF).to(tl.uint32)
    high = ((place >> 32) & 0xFFFFFFFF).to(tl.uint32)
    zero = low * 0
    w0, w1, w2, w3 = tl.philox(seed, low, high, zero + member, zero, n_rounds=7)
    words = tl.join(tl.join(w0, w1), tl.join(w2, w3))
    lanes = tl.join(words & 0xFFFF, words >> 16)
    return tl.reshape(lanes, (rows.shape[0], BK)) >= p16


@triton.jit
def _tile(ptr, rows, columns, stride, num_rows, num_columns):
    """Load rows x columns of a row-major matrix; what lies outside reads as zero."""
    inside = (rows < num_rows)[:, None] & (columns < num_columns)[None, :]
    return tl.load(ptr + rows[:, None].to(tl.int64) * stride + columns[None, :], mask=inside, other=0.0)


@triton.jit
def _down_one(
    acc, x, a_ptr, stride_a, rank, columns, K, seed, member, rows, first, groups, p16,
    DROP: tl.constexpr, BK: tl.constexpr, RP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add (mask x) A^T of one member for one block of columns."""
    a_RK = _tile(a_ptr, tl.arange(0, RP), columns, stride_a, rank, K)
    if DROP:
        x = tl.where(keep_16(seed, member, rows, first, groups, p16, BK), x, 0.0).to(x.dtype)
    return tl.dot(x, tl.trans(a_RK.to(x.dtype)), acc, input_precision=PRECISION)


@triton.jit
def lora_down(
    x_ptr, a0_ptr, a1_ptr, a2_ptr, s_ptr, seed_ptr, M, K, stride_x, stride_a0, stride_a1, stride_a2,
    rank0, rank1, rank2, factor0, factor1, factor2, drop0, drop1, drop2, FIRST,
    G: tl.constexpr, RP: tl.constexpr, DROP: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """K1: s_g = factor_g (mask_g x) A_g^T for G members; program: BM rows, all of K."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    seed = tl.load(seed_ptr)
    groups = tl.cdiv(K, 8)
    acc0 = tl.zeros((BM, RP), dtype=tl.float32)
    acc1 = tl.zeros((BM, RP), dtype=tl.float32)
    acc2 = tl.zeros((BM, RP), dtype=tl.float32)
    for first in range(0, K, BK):
        columns = first + tl.arange(0, BK)
        x = _tile(x_ptr, rows, columns, stride_x, M, K)
        acc0 = _down_one(
            acc0,
            x,
            a0_ptr,
            stride_a0,
            rank0,
            columns,
            K,
            seed,
            FIRST,
            rows,
            first,
            groups,
            drop0,
            DROP,
            BK,
            RP,
            PRECISION,
        )
        if G > 1:
            acc1 = _down_one(
                acc1, x, a1_ptr, stride_a1, rank1, columns, K, seed, FIRST + 1, rows, first, groups, drop1, DROP, BK,
                RP, PRECISION,
            )  # fmt: skip
        if G > 2:
            acc2 = _down_one(
                acc2, x, a2_ptr, stride_a2, rank2, columns, K, seed, FIRST + 2, rows, first, groups, drop2, DROP, BK,
                RP, PRECISION,
            )  # fmt: skip
    out = s_ptr + rows[:, None].to(tl.int64) * (G * RP) + tl.arange(0, RP)[None, :]
    inside = (rows < M)[:, None]
    tl.store(out, (acc0 * factor0).to(s_ptr.dtype.element_ty), mask=inside)
    if G > 1:
        tl.store(out + RP, (acc1 * factor1).to(s_ptr.dtype.element_ty), mask=inside)
    if G > 2:
        tl.store(out + 2 * RP, (acc2 * factor2).to(s_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _small_term(
    acc, s_ptr, b_ptr, rows, columns, stride_s, stride_b, M, N, rank, RP: tl.constexpr, PRECISION: tl.constexpr
):
    """Add s B^T of a tile."""
    s = _tile(s_ptr, rows, tl.arange(0, RP), stride_s, M, RP)
    b_NR = _tile(b_ptr, columns, tl.arange(0, RP), stride_b, N, rank)
    return tl.dot(s, tl.trans(b_NR.to(s.dtype)), acc, input_precision=PRECISION)


@triton.jit
def lora_up_init(
    s_ptr, b_ptr, bias_ptr, y_ptr, M, N, rank, stride_s, stride_b, stride_y,
    HAS_BIAS: tl.constexpr, RP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """K2b: y0 = s B^T + bias, written once; the base GEMM adds x W^T to it (addmm, beta 1)."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    acc = _small_term(acc, s_ptr, b_ptr, rows, columns, stride_s, stride_b, M, N, rank, RP, PRECISION)
    if HAS_BIAS:
        acc += tl.load(bias_ptr + columns, mask=columns < N, other=0.0).to(tl.float32)[None, :]
    inside = (rows < M)[:, None] & (columns < N)[None, :]
    out = y_ptr + rows[:, None].to(tl.int64) * stride_y + columns[None, :]
    tl.store(out, acc.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def lora_gemm(
    x_ptr, w_ptr, s_ptr, b_ptr, bias_ptr, y_ptr, M, N, K, rank, stride_x, stride_w, stride_s, stride_b, stride_y,
    HAS_BIAS: tl.constexpr, RP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    GROUP: tl.constexpr, EVEN_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """K2: y = x W^T + s B^T + bias; the small term comes in the epilogue, where it costs no shared memory (A4.2)."""
    # GROUP row blocks go together, so that the tiles of W they share stay in the L2 cache
    across, down = tl.cdiv(N, BN), tl.cdiv(M, BM)
    first_row = (tl.program_id(0) // (GROUP * across)) * GROUP
    height = min(down - first_row, GROUP)
    within = tl.program_id(0) % (GROUP * across)
    rows = (first_row + within % height) * BM + tl.arange(0, BM)
    columns = (within // height) * BN + tl.arange(0, BN)
    # rows and columns outside are read as the first ones: a mask on them would narrow the loads, and nobody stores them
    x_ptrs = x_ptr + tl.where(rows < M, rows, 0)[:, None].to(tl.int64) * stride_x + tl.arange(0, BK)[None, :]
    w_ptrs = w_ptr + tl.where(columns < N, columns, 0)[None, :].to(tl.int64) * stride_w + tl.arange(0, BK)[:, None]
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for first in range(0, K, BK):
        if EVEN_K:
            x, w = tl.load(x_ptrs), tl.load(w_ptrs)
        else:
            inside = first + tl.arange(0, BK) < K
            x = tl.load(x_ptrs, mask=inside[None, :], other=0.0)
            w = tl.load(w_ptrs, mask=inside[:, None], other=0.0)
        acc = tl.dot(x, w, acc, input_precision=PRECISION)
        x_ptrs += BK
        w_ptrs += BK
    acc = _small_term(acc, s_ptr, b_ptr, rows, columns, stride_s, stride_b, M, N, rank, RP, PRECISION)
    if HAS_BIAS:
        acc += tl.load(bias_ptr + columns, mask=columns < N, other=0.0).to(tl.float32)[None, :]
    out = y_ptr + rows[:, None].to(tl.int64) * stride_y + columns[None, :]
    tl.store(out, acc.to(y_ptr.dtype.element_ty), mask=(rows < M)[:, None] & (columns < N)[None, :])


@triton.jit
def lora_bwd_s(
    dy_ptr, b_ptr, s_ptr, ds_ptr, db_ptr, M, N, rank, stride_dy, stride_b, stride_s, strip,
    WANTS_B: tl.constexpr, RP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """K3: one pass over dY; program: BN columns of one strip of rows.

    Leaves dY B of its columns in ds (N / BN, M, P), and dY^T s of its rows in db (strips, N, P), both fp32.
    """
    block, part = tl.program_id(0), tl.program_id(1)
    columns = block * BN + tl.arange(0, BN)
    ranks = tl.arange(0, RP)
    b_NR = _tile(b_ptr, columns, ranks, stride_b, N, rank).to(dy_ptr.dtype.element_ty)
    db = tl.zeros((BN, RP), dtype=tl.float32)
    for first in range(part * strip, min((part + 1) * strip, M), BM):
        rows = first + tl.arange(0, BM)
        dy = _tile(dy_ptr, rows, columns, stride_dy, M, N)
        ds = tl.dot(dy, b_NR, input_precision=PRECISION)
        out = ds_ptr + (block.to(tl.int64) * M + rows[:, None]) * RP + ranks[None, :]
        tl.store(out, ds, mask=(rows < M)[:, None])
        if WANTS_B:
            s = _tile(s_ptr, rows, ranks, stride_s, M, RP)
            db = tl.dot(tl.trans(dy), s, db, input_precision=PRECISION)
    if WANTS_B:
        out = db_ptr + (part.to(tl.int64) * N + columns[:, None]) * RP + ranks[None, :]
        tl.store(out, db, mask=(columns < N)[:, None])


@triton.jit
def _xa_one(
    dx, da, x, a_ptr, ds_ptr, rows, columns, stride_a, stride_ds, M, K, rank, seed, member, first, groups, p16,
    DROP: tl.constexpr, WANTS_A: tl.constexpr, WANTS_X: tl.constexpr, BK: tl.constexpr, RP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Add one member's mask (ds A) to dx, and its ds^T (mask x) to da."""
    ds = _tile(ds_ptr, rows, tl.arange(0, RP), stride_ds, M, RP)
    a_RK = _tile(a_ptr, tl.arange(0, RP), columns, stride_a, rank, K).to(ds.dtype)
    if DROP:
        keep = keep_16(seed, member, rows, first, groups, p16, BK)
        if WANTS_X:
            dx += tl.where(keep, tl.dot(ds, a_RK, input_precision=PRECISION), 0.0)
        if WANTS_A:
            x = tl.where(keep, x, 0.0).to(x.dtype)
    elif WANTS_X:
        dx = tl.dot(ds, a_RK, dx, input_precision=PRECISION)
    if WANTS_A:
        da = tl.dot(tl.trans(ds), x, da, input_precision=PRECISION)
    return dx, da


@triton.jit
def lora_bwd_xa(
    x_ptr, ds_ptr, a0_ptr, a1_ptr, a2_ptr, dx_ptr, da_ptr, seed_ptr, M, K, stride_x, stride_a0, stride_a1, stride_a2,
    rank0, rank1, rank2, drop0, drop1, drop2, member0, member1, member2, strip,
    G: tl.constexpr, RP: tl.constexpr, DROP: tl.constexpr, WANTS_A: tl.constexpr, WANTS_X: tl.constexpr,
    BM: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """K4b: one pass over x; program: BK columns of one strip of rows.

    Writes the LoRA share of dX, sum over g of mask_g (ds_g A_g), onto which dY W is then accumulated, and leaves
    ds_g^T (mask_g x) of its rows in da (strips, G, P, K), fp32.
    """
    block, part = tl.program_id(0), tl.program_id(1)
    first = block * BK
    columns = first + tl.arange(0, BK)
    seed = tl.load(seed_ptr)
    groups = tl.cdiv(K, 8)
    da0 = tl.zeros((RP, BK), dtype=tl.float32)
    da1 = tl.zeros((RP, BK), dtype=tl.float32)
    da2 = tl.zeros((RP, BK), dtype=tl.float32)
    for top in range(part * strip, min((part + 1) * strip, M), BM):
        rows = top + tl.arange(0, BM)
        dx = tl.zeros((BM, BK), dtype=tl.float32)
        x = dx  # read by nobody where no dA is wanted
        if WANTS_A:
            x = _tile(x_ptr, rows, columns, stride_x, M, K)
        dx, da0 = _xa_one(
            dx, da0, x, a0_ptr, ds_ptr, rows, columns, stride_a0, G * RP, M, K, rank0, seed, member0, first, groups,
            drop0, DROP, WANTS_A, WANTS_X, BK, RP, PRECISION,
        )  # fmt: skip
        if G > 1:
            dx, da1 = _xa_one(
                dx, da1, x, a1_ptr, ds_ptr + RP, rows, columns, stride_a1, G * RP, M, K, rank1, seed, member1, first,
                groups, drop1, DROP, WANTS_A, WANTS_X, BK, RP, PRECISION,
            )  # fmt: skip
        if G > 2:
            dx, da2 = _xa_one(
                dx, da2, x, a2_ptr, ds_ptr + 2 * RP, rows, columns, stride_a2, G * RP, M, K, rank2, seed, member2,
                first, groups, drop2, DROP, WANTS_A, WANTS_X, BK, RP, PRECISION,
            )  # fmt: skip
        if WANTS_X:
            out = dx_ptr + rows[:, None].to(tl.int64) * K + columns[None, :]
            tl.store(out, dx.to(dx_ptr.dtype.element_ty), mask=(rows < M)[:, None] & (columns < K)[None, :])
    if WANTS_A:
        out = da_ptr + (part.to(tl.int64) * (G * RP) + tl.arange(0, RP)[:, None]) * K + columns[None, :]
        inside = (columns < K)[None, :]
        tl.store(out, da0, mask=inside)
        if G > 1:
            tl.store(out + RP * K, da1, mask=inside)
        if G > 2:
            tl.store(out + 2 * RP * K, da2, mask=inside)


@triton.jit
def reduce_partials(
    part_ptr, out_ptr, count, plane, rows, columns, stride_part, stride_out, factor, BLOCK: tl.constexpr
):  # fmt: skip
    """K6: out = factor * sum over `count` planes of fp32 partials, always in the same order, in out's dtype."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row, column = place // columns, place % columns
    inside = row < rows
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    start = part_ptr + row * stride_part + column
    for _ in range(count):
        total += tl.load(start, mask=inside, other=0.0)
        start += plane
    out = out_ptr + row * stride_out + column
    tl.store(out, (total * factor).to(out_ptr.dtype.element_ty), mask=inside)


def variants():
    """List every configuration that ships, for the ahead-of-time compiler."""
    from tercet_kernels.lora.variants import variants as listed

    return listed()
