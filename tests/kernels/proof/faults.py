"""All planted faults, cheapest first: a name of a variant or a test may be wrong, and `hunt` says so."""

from __future__ import annotations

from tests.kernels.proof import faults_filters, faults_lora, faults_resources
from tests.kernels.proof.planting import Fault

FAULTS: tuple[Fault, ...] = faults_resources.FAULTS + faults_lora.FAULTS + faults_filters.FAULTS
