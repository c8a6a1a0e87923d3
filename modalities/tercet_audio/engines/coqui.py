"""Coqui TTS (`coqui-tts`, imported as `TTS`): a checkpoint that the user names, or a model of Coqui's own list.

A recipe says which in the engine's settings: `model_path` and `config_path`, or `model` (such as
tts_models/en/vctk/vits), which Coqui downloads on first use. Others: `language` for models of several, `accent` as a
tag for all voices, `speakers` (comma-separated) where the model's list isn't JSON, `licence` of an own checkpoint.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tercet.errors import BackendError
from tercet.modality import Needs
from tercet.models import output_terms_of
from tercet.models.cache import sha256_of
from tercet.randomness import digest
from tercet.records import ModelUse
from tercet_audio.engines.base import NATIVE, Settings, Speech, Voice

SETTINGS = ("model_path", "config_path", "model", "language", "accent", "speakers", "licence")
CPML = "CPML (non-commercial: model and output)"
LICENCES = {  # of Coqui's list, as far as somebody has read them
    "tts_models/en/vctk/vits": ("Apache-2.0", "free"),
    "tts_models/en/ljspeech/vits": ("Apache-2.0", "free"),
    "tts_models/multilingual/multi-dataset/xtts_v2": (CPML, "research"),
    "tts_models/multilingual/multi-dataset/your_tts": ("CC-BY-NC-ND-4.0", "research"),
}
# what the duration control of a kind of model bears; the others have none that we know
PACE_RANGES = {"vits": (0.75, 1.35), "xtts": (0.85, 1.2)}
ONLY_VOICE = "default"
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


class CoquiEngine:
    """The real `TTS.api.TTS`. On a CPU a VITS repeats its samples by the seed; a GPU may not."""

    name = "coqui"
    deterministic = True
    needs = Needs(memory_gib=2.0, model=True)

    def __init__(self, settings: Settings) -> None:
        self.settings = {key: str(value) for key, value in settings.items()}
        self.model = self.settings.get("model", "")
        licence = self.settings.get("licence", "unknown")
        self.licence, self.output_terms = LICENCES.get(self.model, (licence, output_terms_of(licence)))

    @property
    def sample_rate(self) -> int:
        """Read the rate from the model's configuration; 22.05 kHz is what most of Coqui's have."""
        audio = self._config().get("audio", {})
        return int(audio.get("output_sample_rate") or audio.get("sample_rate") or 22_050)

    @property
    def pace_range(self) -> tuple[float, float]:
        """Give what this kind of model bears; a kind without a duration control speaks at pace 1 alone."""
        return PACE_RANGES.get(self._kind(), (1.0, 1.0))

    def voices(self) -> Sequence[Voice]:
        """List the model's speakers; a model of one speaker has the voice `default`, no model has none."""
        if not self._checkpoint():
            return ()
        accent = self.settings.get("accent", "en")
        return tuple(Voice(name, self.name, accent, NATIVE) for name in self._speakers() or (ONLY_VOICE,))

    def missing(self) -> str:
        """Say what to install, to name or to download; empty when it can speak."""
        if importlib.util.find_spec("TTS") is None:
            return "run: pip install 'tercet[coqui]'"
        if unknown := sorted(set(self.settings) - set(SETTINGS)):
            return f"it has no setting {unknown[0]!r}; there are: {', '.join(SETTINGS)}"
        if self.model:
            return self._missing_download()
        for key in ("model_path", "config_path"):
            value = self.settings.get(key, "")
            if not value:
                return f"name a checkpoint in its settings (model_path and config_path) or a model; {key} is not set"
            if not Path(value).is_file():
                return f"settings.{key}: no file {value}; correct the path"
        try:
            self._config()
        except (OSError, ValueError) as error:
            return f"settings.config_path: {self.settings['config_path']} is no JSON configuration: {error}"
        return ""

    def use(self) -> ModelUse:
        """Name the checkpoint by its bytes and its configuration's."""
        path, config = self._files()
        reference = f"coqui:{self.model or path.name}"
        files = (path, config) if path.is_file() and config.is_file() else ()
        return ModelUse(reference, digest(reference, *map(sha256_of, files)), self.licence, self.output_terms)

    def speak(self, text: str, voice: str, pace: float, seed: int) -> Speech:
        """Speak at the model's rate; the seed fixes the noise of duration and sound."""
        import torch

        api = self._api
        options: dict[str, Any] = {} if voice == ONLY_VOICE else {"speaker": voice}
        if api.is_multi_lingual:
            options["language"] = self.settings.get("language", "en")
        net = api.synthesizer.tts_model
        if hasattr(net, "length_scale"):
            net.length_scale = 1 / pace
        elif self._kind() == "xtts":
            options["speed"] = pace
        try:
            with torch.random.fork_rng():
                torch.manual_seed(seed % 2**63)
                samples = np.asarray(api.tts(text, **options), np.float32)
        except (RuntimeError, ValueError, KeyError, IndexError, TypeError, AssertionError) as error:
            raise BackendError(
                f"coqui: voice {voice!r} gave no sound for {text!r}: {error}", retryable=False
            ) from error
        if not np.isfinite(samples).all():
            raise BackendError(f"coqui: voice {voice!r} gave samples that are no numbers", retryable=False)
        return Speech(np.clip(samples, -1, 1), int(api.synthesizer.output_sample_rate))

    @functools.cached_property
    def _api(self) -> Any:
        """Load the model: Coqui's own loader, of a file that the user named, with tensors alone (weights_only)."""
        if advice := self.missing():
            raise BackendError(f"coqui: {advice}", retryable=False)
        from tercet.compat import prepare_torchaudio

        prepare_torchaudio()
        try:
            from torch.cuda import is_available
            from TTS.api import TTS

            path, config = self._files()
            named = {"model_name": self.model} if self.model else {"model_path": path, "config_path": config}
            api = TTS(**named, progress_bar=False)
            return api.to("cuda") if is_available() else api
        except ImportError as error:
            raise BackendError(f"coqui: {error}; run: pip install 'tercet[coqui]'", retryable=False) from error
        except Exception as error:
            what = self.model or self.settings["model_path"]
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise BackendError(
                f"coqui: {what} can't be loaded: {reason}; name a checkpoint of tensors and its own config.json",
                retryable=False,
            ) from error

    def _missing_download(self) -> str:
        if self._checkpoint():
            return ""
        if "xtts" in self.model and os.environ.get("COQUI_TOS_AGREED") != "1":
            return "its licence, the CPML, is non-commercial; after reading it: export COQUI_TOS_AGREED=1"
        offline = next((name for name in OFFLINE if os.environ.get(name, "0") not in ("", "0")), "")
        where = f"; {offline} forbids the network now" if offline else ""
        return f"download it once: python -c \"from TTS.api import TTS; TTS('{self.model}')\"{where}"

    def _files(self) -> tuple[Path, Path]:
        """Give the checkpoint and its configuration, where they are or would be."""
        if not self.model:
            return Path(self.settings.get("model_path", "")), Path(self.settings.get("config_path", ""))
        from tercet.compat import prepare_torchaudio

        prepare_torchaudio()
        from trainer.io import get_user_data_dir

        folder = Path(get_user_data_dir("tts")) / self.model.replace("/", "--")
        return next((folder / name for name in ("model_file.pth", "model.pth") if (folder / name).is_file()), folder), (
            folder / "config.json"
        )

    def _checkpoint(self) -> bool:
        return all(path.is_file() for path in self._files())

    def _config(self) -> Mapping[str, Any]:
        """Read the model's configuration; none where there is no model."""
        if not self._checkpoint():
            return {}
        config: Any = json.loads(self._files()[1].read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("not an object")  # noqa: TRY004 - as json's own errors
        return config

    def _kind(self) -> str:
        return str(self._config().get("model") or self.model.rpartition("/")[2].partition("_")[0])

    def _speakers(self) -> tuple[str, ...]:
        if listed := self.settings.get("speakers"):
            return tuple(name.strip() for name in listed.split(",") if name.strip())
        config = self._config()
        args = config.get("model_args") or {}
        file = Path(str(args.get("speakers_file") or config.get("speakers_file") or ""))
        if file.suffix == ".json" and file.is_file():
            return tuple(json.loads(file.read_text(encoding="utf-8")))
        return ()
