"""Models: named by a reference, resolved to a folder in Hugging Face's layout, with a digest and terms.

`resolve` is the way in. Importing this package imports neither torch nor transformers.
"""

from tercet.models.reference import ResolvedModel, parse_reference
from tercet.models.resolve import AUTO, ListedModel, list_models, resolve
from tercet.models.terms import check_terms, output_terms_of

__all__ = [
    "AUTO",
    "ListedModel",
    "ResolvedModel",
    "check_terms",
    "list_models",
    "output_terms_of",
    "parse_reference",
    "resolve",
]
