"""Sums: a modality that the core has never heard of."""

from tercet.modality import Modality

modality = Modality(
    name="sums",
    extra="sums",
    recipe_model="tercet_sums.recipe:SumsRecipe",
    payload="tercet_sums.work:payload",
    plan="tercet_sums.work:Sums",
    generators={"adder": "tercet_sums.work:Adder"},
    gates={"at_most": "tercet_sums.work:AtMost"},
    corpus_gates={"twice": "tercet_sums.work:Twice"},
    show="tercet_sums.work:show",
    checks="tercet_sums.work:checks",
)
