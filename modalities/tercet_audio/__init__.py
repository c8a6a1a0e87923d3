"""Speech: the user's terms in carrier phrases, by several engines, voices and paces, beside ordinary sentences."""

from tercet.modality import Modality

modality = Modality(
    name="audio",
    extra="audio",
    recipe_model="tercet_audio.recipe:AudioRecipe",
    payload="tercet_audio.payload:payload",
    plan="tercet_audio.plan:plan",
    generators={"speech": "tercet_audio.speech:Speech", "examples": "tercet_audio.examples:Examples"},
    gates={
        "duration": "tercet_audio.gates.signal:Duration",
        "silence": "tercet_audio.gates.signal:Silence",
        "clipping": "tercet_audio.gates.signal:Clipping",
        "character_rate": "tercet_audio.gates.signal:CharacterRate",
        "round_trip": "tercet_audio.gates.round_trip:RoundTrip",
    },
    tasks={"speech-to-text": "tercet_audio.task:SpeechToText"},
    metrics={"wer": "tercet_audio.metrics:word_errors"},
    show="tercet_audio.show:show",
    checks="tercet_audio.checks:checks",
    commands={"voices": "tercet_audio.voices:voices", "calibrate": "tercet_audio.calibrate:calibrate"},
)
