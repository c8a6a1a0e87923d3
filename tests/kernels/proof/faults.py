"""All planted faults, cheapest first: a name of a variant or a test may be wrong, and `hunt` says so."""

from __future__ import annotations

from tests.kernels.proof import faults_filters, faults_lora, faults_resources
from tests.kernels.proof.planting import Fault

FAULTS: tuple[Fault, ...] = faults_resources.FAULTS + faults_lora.FAULTS + faults_filters.FAULTS

INTEGERS = "takes and gives integers alone; no number of it can be rounded to bf16"
REASONS: dict[tuple[str, str], str] = {  # kernels and the kinds that they can't have, with the reason
    ("edit_distance.edit_distance_kernel", "bf16"): INTEGERS,
    ("minhash.agreement_kernel", "bf16"): INTEGERS,
    ("minhash.line_kernel", "bf16"): INTEGERS,
    ("minhash.round_kernel", "bf16"): INTEGERS,
    ("minhash.shingle_kernel", "bf16"): INTEGERS,
}
