"""Pictures with captions and questions: of planned scenes, drawn exactly or by diffusion, and the user's own."""

from tercet.modality import Modality

modality = Modality(
    name="image",
    extra="image",
    recipe_model="tercet_image.recipe:ImageRecipe",
    payload="tercet_image.payload:payload",
    plan="tercet_image.plan:plan",
    generators={
        "renderer": "tercet_image.renderer:Renderer",
        "diffusion": "tercet_image.diffusion:DiffusionPictures",
        "examples": "tercet_image.examples:Examples",
    },
    gates={"blank": "tercet_image.gates:Blank"},
    corpus_gates={"near_duplicates": "tercet_image.gates:NearDuplicates"},
    tasks={
        "vision-language": "tercet_image.vision_language:VisionLanguage",
        "text-to-image": "tercet_image.text_to_image:TextToImage",
    },
    models={"scenes-vlm": "tercet_image:bases/scenes_vlm", "scenes-diffusion": "tercet_image:bases/scenes_diffusion"},
    show="tercet_image.show:show",
    checks="tercet_image.checks:checks",
)
