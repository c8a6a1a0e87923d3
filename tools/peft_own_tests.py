"""Run PEFT's own tests twice: as they are, and with every LoRA model fused as soon as PEFT has made it.

python -m tools.peft_own_tests                                  of the installed PEFT, those that build their models
python -m tools.peft_own_tests --models                         those that ask the hub, with random models for it
python -m tools.peft_own_tests --sdist DIR --file test_mixed.py  an sdist that is here already, one file

Beside the counts it prints each test whose outcomes differ. Exits with 1 where one differs without a reason that
`REASONS` gives. The module is also the pytest plugin of both runs.
"""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tools.peft_own_hub import make_hub

REPOSITORY = Path(__file__).parents[1]
CACHE = REPOSITORY / ".cache" / "peft-own-tests"
CUSTOM = ("custom_models", "initialization", "tuners_utils", "lora_variants")  # they mostly build their own models
MODELS = (
    "decoder_models", "encoder_decoder_models", "feature_extraction_models", "seq_classifier",
    "token_classification_qa", "trainable_tokens", "low_level_api", "lora_conversion", "lora_ga", "lora_intruders",
    "lorafa", "loraplus", "bdlora", "riemannian_lora", "mixed", "arrow", "helpers", "other", "mapping",
)  # fmt: skip
# of transformers 5.23, used as PEFT 0.21 and its tests do; they take such a warning for a failure
WARNINGS = tuple(
    f"ignore:`{name}` is deprecated:FutureWarning"
    for name in ("is_gradient_checkpointing", "gradient_checkpointing_enable", "gradient_checkpointing_disable")
)
SITE = CACHE / "site"
NAMED = "compares the name of the layer's class, which says that the layer is fused"
REASONS = {  # part of a test's id: why it can't agree
    "::test_repr_lora_linear": NAMED,
    "::test_module_type_": NAMED,
    "::test_target_parameters_and_target_modules": NAMED,
}
COUNTS: Counter[str] = Counter()  # of the test in hand: layers fused, calls of fused layers, calls they computed
Outcomes = dict[str, dict[str, Any]]


def main() -> int:
    """Fetch, run both, compare."""
    parser = argparse.ArgumentParser(description="run PEFT's own tests with its models fused, and without")
    parser.add_argument("--sdist", type=Path, help="PEFT's source distribution, packed or unpacked; default: fetch it")
    parser.add_argument("--models", action="store_true", help="the files that ask the model hub; it is stood in for")
    parser.add_argument("--file", action="append", help="of its tests; default: those that build their own models")
    parser.add_argument("--only", default="", help="as pytest's -k")
    asked = parser.parse_args()
    source = unpacked(asked.sdist or fetched())
    install_parameterized()
    files = asked.file or [f"test_{name}.py" for name in (MODELS if asked.models else CUSTOM)]
    arguments = [f"tests/{name}" for name in files] + (["-k", asked.only] if asked.only else [])
    plain, fused = (run(source, name, arguments) for name in ("plain", "fused"))
    print(table({"PEFT": plain, "fused": fused}))
    unexplained = differences(plain, fused)
    print(f"{unexplained} differences without a reason")
    if not any(one["computed"] for one in fused.values()):
        print("no test computed on the fused path: that proves nothing")
        return 1
    return 1 if unexplained else 0


def fetched() -> Path:
    """Return the sdist of the installed PEFT; wheels carry no tests."""
    version = importlib.metadata.version("peft")
    packed = CACHE / f"peft-{version}.tar.gz"
    if not packed.exists():
        wanted = ["--no-deps", "--no-binary", "peft", f"peft=={version}", "--dest", str(CACHE)]
        subprocess.run([sys.executable, "-m", "pip", "download", *wanted], check=True)
    return packed


def install_parameterized() -> None:
    """Install the one package that PEFT's tests import and nothing of ours does, beside the environment."""
    if not SITE.exists():
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--target", str(SITE), "parameterized"], check=True
        )


def unpacked(source: Path) -> Path:
    """Return the folder of an sdist with its tests importable as a package."""
    if source.is_file():
        with tarfile.open(source) as archive:
            archive.extractall(CACHE, filter="data")
        source = CACHE / source.name.removesuffix(".tar.gz")
    if source.resolve().name != f"peft-{importlib.metadata.version('peft')}":
        raise SystemExit(f"{source}: not the installed version, {importlib.metadata.version('peft')}")
    (source / "tests" / "__init__.py").touch()  # they import one another relatively; the sdist leaves the file out
    return source


def run(source: Path, name: str, arguments: list[str]) -> Outcomes:
    """Run the tests in a process of their own; the log and the outcomes stay in the cache."""
    CACHE.mkdir(parents=True, exist_ok=True)
    record = CACHE / f"{name}.json"
    options = ["-p", "tools.peft_own_tests", "--record", str(record), *(["--fuse"] if name == "fused" else [])]
    # by name: pytest would look for it above every path among the options, and find ours
    quiet = ["-c", "pyproject.toml", "-o", "addopts=", "-p", "no:cacheprovider", "-q", "--tb=short", "--timeout=300"]
    quiet += [part for warning in WARNINGS for part in ("-W", warning)]
    environment = os.environ | {
        "PYTHONPATH": f"{REPOSITORY}:{SITE}",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(CACHE / "hub"),
    }
    command = [sys.executable, "-m", "pytest", *options, *quiet, *arguments]
    with (CACHE / f"{name}.log").open("w") as log:
        code = subprocess.run(
            command, cwd=source, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False
        ).returncode
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise SystemExit(f"pytest came to no proper end ({code}); read {log.name}")
    outcomes: Outcomes = json.loads(record.read_text())
    return outcomes


def table(runs: dict[str, Outcomes]) -> str:
    """Lay the outcomes beside each other."""
    lines = [f"{'':<8}{'passed':>8}{'failed':>8}{'skipped':>8}{'seconds':>9}"]
    for name, outcomes in runs.items():
        counts = Counter(one["outcome"] for one in outcomes.values())
        seconds = sum(one["seconds"] for one in outcomes.values())
        lines.append(f"{name:<8}{counts['passed']:>8}{counts['failed']:>8}{counts['skipped']:>8}{seconds:>9.0f}")
    fused = list(runs["fused"].values())
    claims = {"layers": "a layer was fused", "calls": "a fused layer ran", "computed": "the fused path computed"}
    lines += [f"tests in which {claim}: {sum(one[count] > 0 for one in fused)}" for count, claim in claims.items()]
    both = [
        one["message"] for test, one in runs["PEFT"].items() if is_failed(one) and is_failed(runs["fused"].get(test))
    ]
    lines += [
        f"failed in both: {len(both)}",
        *(f"{count:>8}  {why[:100]}" for why, count in Counter(both).most_common(5)),
    ]
    return "\n".join(lines)


def is_failed(outcome: dict[str, Any] | None) -> bool:
    """Tell whether a test ran and failed."""
    return outcome is not None and outcome["outcome"] == "failed"


def differences(plain: Outcomes, fused: Outcomes) -> int:
    """Print the tests whose outcomes differ; return how many have no reason."""
    unexplained = 0
    for test in sorted(plain.keys() | fused.keys()):
        before, after = (outcomes.get(test, {"outcome": "absent", "message": ""}) for outcomes in (plain, fused))
        if before["outcome"] == after["outcome"]:
            continue
        reason = next((why for part, why in REASONS.items() if part in test), "")
        unexplained += not reason
        print(f"{test}: {before['outcome']} by PEFT, {after['outcome']} fused: {reason or after['message']}")
    return unexplained


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take what `run` passes."""
    parser.addoption("--record", type=Path, required=True)
    parser.addoption("--fuse", action="store_true")


def pytest_configure(config: pytest.Config) -> None:
    """Make the models that the tests ask for, fuse from here on, and register the record of outcomes."""
    from tercet.compat import prepare_torchaudio

    prepare_torchaudio()
    make_hub(Path(os.environ["HF_HOME"]))
    if config.getoption("--fuse"):
        fuse_what_peft_makes()
    config.pluginmanager.register(Record(config.getoption("--record")))


def fuse_what_peft_makes() -> None:
    """Fuse each model at the end of the one method by which PEFT, transformers and diffusers put adapters in."""
    from peft.tuners.tuners_utils import BaseTuner

    from tercet_kernels.peft import fuse, groups, layers

    tuner: Any = BaseTuner
    inject = tuner.inject_adapter

    @functools.wraps(inject)
    def inject_and_fuse(self: Any, model: Any, *args: Any, **kwargs: Any) -> None:
        inject(self, model, *args, **kwargs)
        COUNTS["layers"] += fuse(model)

    tuner.inject_adapter = inject_and_fuse
    count_calls(layers.Fused, "forward", "calls")
    for module, name in ((layers, "lora_linear"), (layers, "dora_linear"), (groups, "lora_group")):
        count_calls(module, name, "computed")


def count_calls(owner: Any, name: str, what: str) -> None:
    """Count the calls of a function."""
    function: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        COUNTS[what] += 1
        return function(*args, **kwargs)

    setattr(owner, name, counted)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is parametrised with configurations of other methods only."""
    chosen = [item for item in items if has_lora(item)]
    sys.modules["tests.testing_utils"].__dict__["_HUB_MODEL_ACCESSES"] = Offline(int)
    config.hook.pytest_deselected(items=[item for item in items if not has_lora(item)])
    items[:] = chosen


def has_lora(item: pytest.Item) -> bool:
    """Tell whether LoRA is among the configurations that a test is given, or it is given none."""
    from peft import LoraConfig, PeftConfig

    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    kinds = {value if isinstance(value, type) else type(value) for value in values}
    configs = {kind for kind in kinds if issubclass(kind, PeftConfig)}
    return not configs or LoraConfig in configs


class Offline(defaultdict[str, int]):
    """What PEFT's tests keep of the models they have fetched: all of them, so that they ask the network for none."""

    def __contains__(self, name: object) -> bool:
        return True


class Record:
    """The outcome of each test, written as JSON at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.outcomes: Outcomes = {}

    def pytest_runtest_setup(self) -> None:
        """Count anew."""
        COUNTS.clear()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst of setup, call and teardown."""
        one = self.outcomes.setdefault(report.nodeid, {"outcome": "passed", "message": "", "seconds": 0.0})
        one["seconds"] += report.duration
        one |= {count: COUNTS[count] for count in ("layers", "calls", "computed")}
        if not report.passed:
            crash = getattr(report.longrepr, "reprcrash", None)
            one |= {"outcome": report.outcome, "message": crash.message.split("\n")[0] if crash else ""}

    def pytest_sessionfinish(self) -> None:
        """Write the outcomes down."""
        self.path.write_text(json.dumps(self.outcomes, indent=1))


if __name__ == "__main__":
    sys.exit(main())
