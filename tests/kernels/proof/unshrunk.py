"""A pytest plugin for planted faults: hypothesis stops at the first counterexample, nobody reads a smaller one."""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile("unshrunk", phases=(Phase.explicit, Phase.generate))
