"""Pictures: scene specifications, their captions and questions, drawn exactly."""

from tercet.modality import Modality

modality = Modality(
    name="image",
    extra="image",
    recipe_model="tercet_image.recipe:ImageRecipe",
    payload="tercet_image.payload:payload",
    plan="tercet_image.plan:plan",
    generators={"renderer": "tercet_image.renderer:Renderer"},
    gates={"blank": "tercet_image.gates:Blank"},
    corpus_gates={"near_duplicates": "tercet_image.gates:NearDuplicates"},
    show="tercet_image.show:show",
    checks="tercet_image.checks:checks",
)
