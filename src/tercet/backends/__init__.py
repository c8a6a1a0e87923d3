"""Where text comes from: a model in this process, or an OpenAI-compatible endpoint.

Importing this package imports neither torch nor aiohttp.
"""

from tercet.backends.chat import ChatRequest, Completion
from tercet.backends.openai_backend import OpenAIBackend
from tercet.backends.transformers_backend import TransformersBackend

__all__ = ["ChatRequest", "Completion", "OpenAIBackend", "TransformersBackend"]
